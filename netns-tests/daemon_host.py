"""A host without Python on which a DaemonSet's pod runs: deploy/pycni.yaml, started by runc.

What a kubelet and a runtime would do with the manifest is done here: its containers get just the
capabilities, mounts and files that it says, the image's own file system read-only.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cluster import ROOT
from kubernetes_host import KubernetesHost, apiserver_of
from plugin_host import Said, on_underlay

if TYPE_CHECKING:
    from conftest import Namespace

MANIFEST = ROOT / "deploy" / "pycni.yaml"
CLEAN = ROOT / "deploy" / "clean.yaml"
SECRETS = "/var/run/secrets/kubernetes.io/serviceaccount"
END_S = 90
EXABGP = "/run/pycni/exabgp/exabgp.conf"
"""The word of ExaBGP's command line that no other process has."""
# What containerd hides from every container that isn't privileged, and what it makes read-only.
MASKED = ("acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "sched_debug")
READ_ONLY = ("bus", "fs", "irq", "sys", "sysrq-trigger")


@cache
def documents(manifest: Path = MANIFEST) -> dict[str, dict[str, Any]]:
    """Return a manifest's objects by their kinds."""
    found = yaml.safe_load_all(manifest.read_text(encoding="utf-8"))
    return {document["kind"]: document for document in found}


def pod_spec(manifest: Path = MANIFEST) -> dict[str, Any]:
    """Return what the DaemonSet's pods are made of."""
    spec: dict[str, Any] = documents(manifest)["DaemonSet"]["spec"]["template"]["spec"]
    return spec


@cache
def image_archive() -> Path:
    """Return the image, made where it isn't there."""
    line = ["sh", str(ROOT / "bin" / "ensure"), "image"]
    ran = subprocess.run(line, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"no image: {ran.stderr}"
    return Path(ran.stdout.strip())


@dataclass(frozen=True)
class Image:
    """An image unpacked: its configuration, and its files below `root`."""

    root: Path
    config: dict[str, Any]
    name: str


def unpack_image(root: Path) -> Image:
    """Unpack the image as a runtime does."""
    root.mkdir(parents=True)
    with tarfile.open(image_archive()) as archive:

        def blob(digest: str) -> bytes:
            file = archive.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert file is not None
            return file.read()

        index = archive.extractfile("index.json")
        assert index is not None
        (entry,) = json.load(index)["manifests"]
        manifest = json.loads(blob(entry["digest"]))
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=BytesIO(blob(layer["digest"]))) as files:
                files.extractall(root, numeric_owner=True)  # noqa: S202 - of our own making
        config = json.loads(blob(manifest["config"]["digest"]))["config"]
    return Image(root, config, entry["annotations"]["org.opencontainers.image.ref.name"])


@dataclass
class DaemonHost(KubernetesHost):
    """The host, with a root directory of its own for plugin and files, and a pod of the set."""

    image: Image | None = None
    containers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    token: str = field(default_factory=partial(secrets.token_hex, 3))

    @property
    def root(self) -> Path:
        """Where the host's files are."""
        return self.directory / "host"

    def files(self, directory: str) -> list[str]:
        """Return the names in a directory of the host's."""
        return sorted(path.name for path in (self.root / directory).iterdir())

    # --- the runtime ----------------------------------------------------------------------------

    def exec(self, environment: dict[str, str], stdin: str, *, program: str | None = None) -> Said:
        """Run the plugin with nothing around it but the host's files."""
        script = 'mount --rbind /proc "$0/proc" && exec chroot "$0" "$1"'
        with self.namespace.entered():
            ran = subprocess.run(
                ["unshare", "--mount", "sh", "-c", script, str(self.root),
                 program or "/opt/cni/bin/pycni"],
                input=stdin, capture_output=True, text=True, timeout=60, check=False,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
            )  # fmt: skip
        return Said(ran.returncode, ran.stdout, ran.stderr)

    def conflist(self) -> dict[str, Any] | None:
        """Return the network's configuration as a runtime finds it."""
        path = self.root / "etc/cni/net.d/10-pycni.conflist"
        document: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
        return document

    def adopt_network(self) -> None:
        """Call the plugin as the network's configuration says, from now on."""
        document = self.conflist()
        assert document is not None
        (plugin,) = document["plugins"]
        self.config = {"cniVersion": "1.1.0", "name": document["name"], **plugin}

    # --- the pod --------------------------------------------------------------------------------

    def run_to_end(self, name: str, *, manifest: Path = MANIFEST) -> str:
        """Run an init container; return what it said."""
        self._start(name, pod_spec(manifest)["initContainers"]).wait(timeout=END_S)
        status = self.containers.pop(name).returncode
        log = (self.directory / f"{name}.log").read_text(encoding="utf-8")
        assert status == 0, log
        return log

    def start_agent(self) -> None:
        """Start the agent's container."""
        self.agent = self._start("agent", pod_spec()["containers"])

    def stop_agent(self, number: int = 15) -> None:
        """Send a signal to the first process of the agent's container, and wait for its end."""
        container = self.containers.pop("agent", None)
        if container is None:
            return
        self._runc("kill", self._id("agent"), str(number))
        container.wait(timeout=END_S)
        self.agent = None

    def pids(self) -> dict[str, int]:
        """Return the agent's processes by what they are."""
        listed = json.loads(self._runc("ps", "--format", "json", self._id("agent")))
        return {_kind_of(pid): pid for pid in listed}

    def inside(self, *words: str) -> str:
        """Run a program in the agent's container, as `kubectl exec` does."""
        return self._runc("exec", self._id("agent"), *words)

    def agent_log(self) -> str:
        """Return what the agents have logged."""
        return (self.directory / "agent.log").read_text(encoding="utf-8")

    def _start(self, name: str, among: list[dict[str, Any]]) -> subprocess.Popen[bytes]:
        (container,) = (one for one in among if one["name"] == name)
        bundle = self.directory / "bundles" / name
        bundle.mkdir(parents=True, exist_ok=True)
        (bundle / "config.json").write_text(json.dumps(self._runtime_spec(container)))
        with (self.directory / f"{name}.log").open("ab") as log, self.namespace.entered():
            process = subprocess.Popen(
                [*self._command(), "run", "--bundle", str(bundle), self._id(name)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        self.containers[name] = process
        return process

    def _command(self) -> list[str]:
        return ["runc", "--root", str(self.directory / "runc")]

    def _runc(self, *words: str) -> str:
        ran = subprocess.run(
            [*self._command(), *words], capture_output=True, text=True, timeout=END_S, check=False
        )
        assert ran.returncode == 0, f"runc {' '.join(words)}: {ran.stderr}{ran.stdout}"
        return ran.stdout

    def _id(self, name: str) -> str:
        # Not by process id: control groups are seen across PID namespaces.
        return f"pycni-{self.token}-{name}"

    # --- what a kubelet and a runtime make of the manifest --------------------------------------

    def _runtime_spec(self, container: dict[str, Any]) -> dict[str, Any]:
        assert self.image is not None
        security = container["securityContext"]
        assert container["image"] == self.image.name
        assert not security["allowPrivilegeEscalation"]
        assert security["readOnlyRootFilesystem"]
        assert security["capabilities"]["drop"] == ["ALL"]
        capabilities = [f"CAP_{name}" for name in security["capabilities"].get("add", ())]
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": self._arguments(container),
                "env": [*self.image.config["Env"], *self._environment(container)],
                "cwd": "/",
                "noNewPrivileges": True,
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            },
            "root": {"path": str(self.image.root), "readonly": True},
            "hostname": "not-the-nodes-name",
            "mounts": [*_FILE_SYSTEMS, *self._mounts(container)],
            "linux": {
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")],
                "cgroupsPath": f"/{self._id(container['name'])}",
                "maskedPaths": [f"/proc/{name}" for name in MASKED] + ["/sys/firmware"],
                "readonlyPaths": [f"/proc/{name}" for name in READ_ONLY],
            },
        }

    def _arguments(self, container: dict[str, Any]) -> list[str]:
        assert self.image is not None
        if "command" in container:
            return list(container["command"])
        return [*self.image.config["Entrypoint"], *container["args"]]

    def _environment(self, container: dict[str, Any]) -> list[str]:
        where = {"HOST": "127.0.0.1", "PORT": str(self.api.port)}
        fields = {"spec.nodeName": "node-0"}
        said = {
            one["name"]: fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
            for one in container.get("env", ())
        }
        said |= {f"KUBERNETES_SERVICE_{key}": value for key, value in where.items()}
        return [f"{key}={value}" for key, value in said.items()]

    def _mounts(self, container: dict[str, Any]) -> Iterator[dict[str, Any]]:
        volumes = {volume["name"]: volume for volume in pod_spec()["volumes"]}
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            source = (
                self._host_path(volume["hostPath"])
                if "hostPath" in volume
                else self._config_map(volume["configMap"]["name"])
            )
            yield _bind(source, mount["mountPath"], is_read_only=mount.get("readOnly", False))
        yield _bind(self._service_account(), SECRETS, is_read_only=True)

    def _host_path(self, volume: dict[str, str]) -> Path:
        if volume["path"].startswith("/proc/"):
            return Path(volume["path"])
        path = self.root / volume["path"].lstrip("/")
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _config_map(self, name: str) -> Path:
        document = documents()["ConfigMap"]
        assert document["metadata"]["name"] == name
        return _written(self.directory / "config", document["data"])

    def _service_account(self) -> Path:
        authority = self.api.directory / "certificates" / "apiserver.crt"
        with self.namespace.entered():
            token = self.api.agents_token()
        files = {"ca.crt": authority.read_text(), "token": token}
        return _written(self.directory / "secrets", {**files, "namespace": "kube-system"})


_FILE_SYSTEMS = (
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
)


def _bind(source: Path, destination: str, *, is_read_only: bool) -> dict[str, Any]:
    options = ["rbind", "rslave", "ro" if is_read_only else "rw"]
    return {
        "destination": destination, "type": "bind", "source": str(source), "options": options
    }  # fmt: skip


def _written(directory: Path, files: dict[str, str]) -> Path:
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    return directory


def _kind_of(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return "gone"
    line = text.rstrip("\0").split("\0")
    marks = {"/usr/bin/tini": "tini", "pycni.cni.service": "cni", EXABGP: "exabgp"}
    marks |= {"/opt/pycni/venv/bin/pycni-agent": "agent"}
    return next((kind for mark, kind in marks.items() if mark in line), " ".join(line))


@contextlib.contextmanager
def daemon_host(directory: Path, make: Callable[[], Namespace]) -> Iterator[DaemonHost]:
    """Run an API server on a new host without Python, and end whatever runs there."""
    host = DaemonHost(on_underlay(make), directory, make, {})
    (host.root / "proc").mkdir(parents=True)
    # Without one a host doesn't answer for pods' gateway.
    host.namespace.run("ip", "route", "add", "default", "via", "10.10.0.1")
    host.image = unpack_image(directory / "image")
    with apiserver_of(host):
        try:
            yield host
        finally:
            host.stop_agent(9)


def is_ready(host: DaemonHost) -> bool:
    """Tell whether the agent says that it is ready, as the readiness probe asks."""
    probe = pod_spec()["containers"][0]["readinessProbe"]["httpGet"]
    said = host.namespace.run(
        "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}",
        f"http://{probe['host']}:{probe['port']}{probe['path']}", check=False,
    )  # fmt: skip
    return said.stdout == "200"
