"""A machine for container runtimes: namespaces of its own over this one's files.

Changes to /etc, /opt and /var/lib stay in memory, /run and /dev/shm are empty, and its life hangs
on a pipe: when the test ends, however it does, so do all processes in it.  Only the control groups
are this machine's own; they lie below one that has the machine's name and goes with it.
"""

import contextlib
import json
import os
import resource
import secrets
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
import yaml

from cluster import ROOT, eventually

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CGROUPS = Path("/sys/fs/cgroup")
NETWORK = "pycni"
POOL = "10.66.0.0/16"
RUN_DIR = "/run/pycni"
IMAGE = "localhost/probe:1"
APPLETS = ("sh", "sleep", "ip", "ping")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
TIMEOUT_S = 30
# What the first process does; dash's `wait` reaps whatever else ends meanwhile. The pipe is not
# left on standard input, which the shell takes away from what runs in the background.
BEGIN = """
set -eu
mount --make-rprivate /
for place in /run /dev/shm "$1/layers"; do mount -t tmpfs tmpfs "$place"; done
for place in etc opt var/lib; do
    layer=$1/layers/$place
    mkdir -p "$layer/upper" "$layer/work"
    options=lowerdir=/$place,upperdir=$layer/upper,workdir=$layer/work
    mount -t overlay -o "$options" layers "/$place"
done
rm -rf /etc/cni /var/lib/cni
mkdir -p /run/netns /run/lock /etc/cni /opt/cni
cp -R "$1/net.d" /etc/cni/net.d
cp -R "$1/bin" /opt/cni/bin
ip link set lo up
ip link add eth0 type veth peer name underlay
ip address add 10.10.7.20/20 dev eth0
ip link set underlay up
ip link set eth0 up
ip route add default via 10.10.0.1
exec 3<&0
cat <&3 >/dev/null &
echo begun
wait $!
"""


@dataclass(frozen=True)
class Machine:
    """A running machine; `pid` is its first process, `name` that of its control groups."""

    directory: Path
    name: str
    pid: int

    def command(self, *words: str) -> list[str]:
        """Compose the call of a program inside."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--", *words]

    @property
    def environment(self) -> Mapping[str, str]:
        """What programs inside find: nothing of the test's own."""
        return {"PATH": PATH, "HOME": "/root", "CONTAINERS_CONF": f"{self.directory}/podman.conf"}

    def run(self, *words: str, check: bool = True) -> str:
        """Run a program inside to its end; return what it printed."""
        ran = subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self.environment,
        )
        assert not check or ran.returncode == 0, f"{' '.join(words)}: {ran.stderr}{ran.stdout}"
        return ran.stdout

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program inside meanwhile; its output goes to a file named after it."""
        with (self.directory / f"{Path(words[0]).name}.log").open("ab") as log:
            process = subprocess.Popen(
                self.command(*words),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
            )
        try:
            yield process
        finally:
            process.terminate()  # nsenter; what it has started ends with the machine at the latest
            process.wait(TIMEOUT_S)

    def ls(self, path: str) -> list[str]:
        """Return the names in a directory inside; none where there is no such directory."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(f"/proc/{self.pid}/root{path}"))  # noqa: PTH208
        return []

    def control_groups(self) -> list[str]:
        """Return the containers' control groups, of whatever controller.

        podman keeps one for all its monitors, as it keeps the one above.
        """
        inner = [path for top in _groups(self.name) for path in top.iterdir() if path.is_dir()]
        return sorted({path.name for path in inner} - {"conmon"})


def _groups(name: str) -> list[Path]:
    return [top for top in (CGROUPS / name, *CGROUPS.glob(f"*/{name}")) if top.is_dir()]


def _are_groups_gone(name: str) -> bool:
    """Remove a machine's control groups; those of a process that is still ending stay."""
    for top in _groups(name):
        for path, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                Path(path).rmdir()
    return not _groups(name)


@contextlib.contextmanager
def machine(directory: Path, *, has_agent: bool) -> Iterator[Machine]:
    """Bring a machine up whose network is pycni's, and down again whatever happens."""
    # Not by process id: control groups are seen across PID namespaces.
    name = f"pycni-test-{secrets.token_hex(3)}-{int(has_agent)}"
    fill(directory, has_agent=has_agent)
    words = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child", "--"]
    with (directory / "machine.log").open("wb") as log:
        process = subprocess.Popen(
            [*words, "sh", "-c", BEGIN, "machine", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={"PATH": PATH},
        )
    assert process.stdout is not None
    try:
        begun = process.stdout.readline()
        assert begun, f"no machine: {(directory / 'machine.log').read_text()}"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        running = Machine(directory, name, int(children[0]))
        with agent(running) if has_agent else contextlib.nullcontext():
            yield running
    finally:
        process.kill()  # and the kernel everything in its namespaces
        process.communicate(timeout=TIMEOUT_S)
        eventually(lambda: _are_groups_gone(name), within_s=30)


@contextlib.contextmanager
def agent(on: Machine) -> Iterator[None]:
    """Run the agent meanwhile."""
    config = str(on.directory / "agent.yaml")
    with on.running(sys.executable, "-I", "-m", "pycni.agent", "--config", config):
        eventually(lambda: _has_converged(on), within_s=60)
        yield


def _has_converged(on: Machine) -> bool:
    """Tell whether the agent has made the host one that forwards: pods are reached from then on."""
    words = ("-m", "pycni.ctl", "status", "--run-dir", RUN_DIR, "-o", "json")
    told = on.run(sys.executable, "-I", *words, check=False)
    return bool(told) and bool(json.loads(told)["converged"])


# --- what it is made of -------------------------------------------------------------------------


def fill(directory: Path, *, has_agent: bool) -> None:
    """Write everything that is there before the machine is."""
    for made in ("bin", "net.d", "layers", "state"):
        (directory / made).mkdir()
    write_image(directory / "image.tar")
    write_plugin(directory / "bin", has_engine=not has_agent)
    for file, text in configuration(directory).items():
        (directory / file).write_text(text, encoding="utf-8")
    pycnictl(directory, "apply", "-f", str(directory / "pool.yaml"))


def pycnictl(directory: Path, *words: str) -> str:
    """Ask the machine's datastore, from outside."""
    store = str(directory / "state" / "pycni.db")
    return subprocess.run(
        [sys.executable, "-I", "-m", "pycni.ctl", "--datastore", store, *words],
        capture_output=True, text=True, timeout=TIMEOUT_S, check=True, stdin=subprocess.DEVNULL,
    ).stdout  # fmt: skip


def write_plugin(directory: Path, *, has_engine: bool) -> None:
    """Install the plugin; an engine that refuses proves that the agent has answered."""
    for name in ("pycni", "pycni-relay.py"):
        shutil.copy(ROOT / "bin" / name, directory / name)
    does = f'exec "{sys.executable}" -I -m pycni.cni "$@"' if has_engine else "exit 9"
    (directory / "pycni-engine").write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
    (directory / "pycni-engine").chmod(0o755)


def configuration(directory: Path) -> dict[str, str]:
    """Return every configuration file, by name."""
    places = {"run_dir": RUN_DIR, "state_dir": f"{directory}/state"}
    plugin = {"type": "pycni", "nodename": "node-0", **places, "ipam": {"type": "pycni-ipam"}}
    network = {"cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": NETWORK}
    pool = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "IPPool",
        "metadata": {"name": "default-ipv4-ippool"},
        "spec": {"cidr": POOL, "ipipMode": "Never", "natOutgoing": False},
    }
    settings = {"node": "node-0", "node_address": "10.10.7.20/20", "metrics_port": 0, **places}
    return {
        "net.d/10-pycni.conflist": json.dumps(network | {"plugins": [plugin]}, indent=2),
        "pool.yaml": yaml.safe_dump(pool),
        "agent.yaml": yaml.safe_dump(settings),
        "podman.conf": PODMAN.format(directory=directory, limits=_limits()),
        "containerd.toml": CONTAINERD,
    }


def _limits() -> str:
    """Return limits that may be set without CAP_SYS_RESOURCE, as podman's own may not."""
    found = []
    for kind, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        hard = resource.getrlimit(number)[1]
        count = 4096 if hard == resource.RLIM_INFINITY else min(hard, 4096)
        found.append(f'"{kind}={count}:{count}"')
    return ", ".join(found)


PODMAN = """\
[containers]
default_ulimits = [{limits}]
[network]
network_backend = "cni"
cni_plugin_dirs = ["{directory}/bin"]
network_config_dir = "{directory}/net.d"
default_network = "pycni"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
"""
CONTAINERD = """\
version = 2
root = "/run/store/containerd"
state = "/run/containerd"
disabled_plugins = [
    "io.containerd.grpc.v1.cri",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "/run/containerd.sock"
"""


def busybox() -> Path:
    """Return the static busybox that bin/ensure has fetched."""
    cache = Path(os.environ.get("PYCNI_CACHE", Path.home() / ".cache" / "pycni"))
    return cache / "busybox" / "busybox"


def require_runtimes(*programs: str) -> None:
    """Fail where something that bin/ensure gets is missing; skip where groups can't be made."""
    if os.geteuid() != 0:
        pytest.skip("needs root: makes a machine for containers")
    missing = [program for program in programs if shutil.which(program, path=PATH) is None]
    missing += [] if busybox().exists() else ["a static busybox"]
    if missing:
        pytest.fail(f"{', '.join(missing)} missing: run  bin/ensure runtimes")
    # With control groups of version 1 the upper directory says nothing.
    groups = CGROUPS / "memory"
    if not os.access(groups if groups.exists() else CGROUPS, os.W_OK):
        pytest.skip(f"no container runs here: {CGROUPS} can't be written")


def write_image(path: Path) -> None:
    """Write an image of busybox alone, in the form that docker saves."""
    layer = _tar(
        {"bin/busybox": busybox().read_bytes()},
        links={f"bin/{name}": "busybox" for name in APPLETS},
    )
    digest = f"sha256:{sha256(layer).hexdigest()}"
    config = {
        "architecture": ARCHITECTURES.get(os.uname().machine, os.uname().machine),
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "600"]},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]
    files = {
        "manifest.json": json.dumps(manifest).encode(),
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer,
    }
    path.write_bytes(_tar(files, links={}))


def _tar(files: Mapping[str, bytes], *, links: Mapping[str, str]) -> bytes:
    written = BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, BytesIO(content))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return written.getvalue()
