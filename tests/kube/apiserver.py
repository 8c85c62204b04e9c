"""A real API server over a real etcd, on loopback: no cluster, only the objects.

`bin/ensure kubernetes` builds both.  One token file is what the server knows its users by; a
kubeconfig names another file that holds the token of who asks.
"""

import base64
import contextlib
import json
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from pycni.datastore import kubernetes_json

ROOT = Path(__file__).resolve().parents[2]
READY_S = 60.0
TOKEN = "first-token"  # noqa: S105 - known to this server only
AGENT = "/api/v1/namespaces/kube-system/serviceaccounts/pycni-agent"
_GROUPS = {
    "v1": "/api/v1",
    "rbac.authorization.k8s.io/v1": "/apis/rbac.authorization.k8s.io/v1",
    "admissionregistration.k8s.io/v1": "/apis/admissionregistration.k8s.io/v1",
}


class Failed(AssertionError):
    """A server that did not come up, with what it said."""


def binaries(*more: str) -> Path:
    """Return where etcd, kube-apiserver and others are, which are built where they are missing."""
    line = ["sh", str(ROOT / "bin" / "ensure"), "kubernetes", "etcd", "kube-apiserver", *more]
    ran = subprocess.run(line, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise Failed(f"cannot build Kubernetes: {ran.stderr}")
    return Path(ran.stdout.strip())


def reserve_port() -> socket.socket:
    """Return a socket that keeps a port of loopback for who binds it by number with SO_REUSEADDR.

    Go's listeners do.  While it is open, the kernel gives the port to nobody who asks for just any.
    """
    one = socket.socket()
    one.bind(("127.0.0.1", 0))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return one


@dataclass
class ApiServer:
    """etcd and kube-apiserver with their files below `directory`; ports stay over restarts."""

    directory: Path
    programs: Path
    _reserved: dict[str, socket.socket] = field(default_factory=dict)
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def kubeconfig(self) -> Path:
        """Where the kubeconfig of an administrator is."""
        return self.directory / "kubeconfig"

    @property
    def agents_kubeconfig(self) -> Path:
        """Where the kubeconfig of an agent is, once `apply_rbac` was called."""
        return self.directory / "agents-kubeconfig"

    @property
    def port(self) -> int:
        """Where the API server listens, on loopback."""
        return self._port("apiserver")

    @property
    def url(self) -> str:
        """Where the API server is asked."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def _etcd_url(self) -> str:
        return f"http://127.0.0.1:{self._port('etcd')}"

    @property
    def pids(self) -> dict[str, int]:
        """Return the programs that run, with their processes."""
        return {name: process.pid for name, process in self._running.items()}

    def _port(self, name: str) -> int:
        return int(self._reserved[name].getsockname()[1])

    # --- life -----------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Write keys, users and kubeconfig; reserve ports in the namespace that this runs in."""
        self._reserved = {name: reserve_port() for name in ("apiserver", "etcd", "etcd peer")}
        self.directory.mkdir(parents=True, exist_ok=True)
        key = self.directory / "sa.key"
        for line in (
            ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(key)],
            ["pkey", "-in", str(key), "-pubout", "-out", str(key.with_suffix(".pub"))],
        ):
            subprocess.run(["openssl", *line], check=True, capture_output=True)
        self.set_tokens(TOKEN)
        self.use_token(TOKEN)

    def set_tokens(self, *tokens: str) -> None:
        """Say by which tokens the server knows its administrator; it reads them at its start."""
        lines = [f'{token},admin,admin,"system:masters"\n' for token in tokens]
        (self.directory / "tokens.csv").write_text("".join(lines), encoding="utf-8")

    def use_token(self, token: str) -> None:
        """Put another token in the file that the kubeconfig names."""
        new = self.directory / "token.new"
        new.write_text(token, encoding="utf-8")
        new.replace(self.directory / "token")

    def start_etcd(self) -> None:
        """Start etcd and wait until it serves."""
        client, peer = self._etcd_url, f"http://127.0.0.1:{self._port('etcd peer')}"
        self._start(
            "etcd", "--name=one", f"--data-dir={self.directory}/etcd",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=one={peer}", "--unsafe-no-fsync", "--log-level=warn",
        )  # fmt: skip
        self._wait("etcd", f"{client}/health")

    def start_apiserver(self, *, token: str = TOKEN) -> None:
        """Start the API server and wait until it is ready; `token` is one that it knows."""
        directory = self.directory
        self._start(
            "kube-apiserver", f"--etcd-servers={self._etcd_url}",
            "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
            f"--secure-port={self.port}", "--endpoint-reconciler-type=none",
            f"--cert-dir={directory}/certificates", f"--token-auth-file={directory}/tokens.csv",
            "--authorization-mode=Node,RBAC", "--service-cluster-ip-range=10.96.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={directory}/sa.pub",
            f"--service-account-signing-key-file={directory}/sa.key",
            "--disable-admission-plugins=ServiceAccount", "--profiling=false",
        )  # fmt: skip
        self._wait("kube-apiserver", f"{self.url}/readyz", token=token)
        self._write_kubeconfig(self.kubeconfig, {"tokenFile": str(directory / "token")})

    def _write_kubeconfig(self, path: Path, user: dict[str, str]) -> None:
        authority = (self.directory / "certificates" / "apiserver.crt").read_bytes()
        cluster = {"server": self.url, "certificate-authority-data": _in_base64(authority)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "one", "cluster": cluster}],
            "users": [{"name": "user", "user": user}],
            "contexts": [{"name": "one", "context": {"cluster": "one", "user": "user"}}],
            "current-context": "one",
        }
        path.write_text(yaml.safe_dump(document), encoding="utf-8")

    def start_controllers(self, *controllers: str) -> None:
        """Start some of kube-controller-manager's, once the API server serves."""
        binaries("kube-controller-manager")
        self._start(
            "kube-controller-manager", f"--kubeconfig={self.kubeconfig}", "--leader-elect=false",
            f"--controllers={','.join(controllers)}", "--secure-port=0",
            f"--service-account-private-key-file={self.directory}/sa.key",
            f"--root-ca-file={self.directory}/certificates/apiserver.crt",
        )  # fmt: skip

    def kill_apiserver(self, number: int = signal.SIGKILL) -> None:
        """End the API server."""
        self._end("kube-apiserver", number)

    def stop(self) -> None:
        """End all programs, each of which may start again."""
        self._end("kube-controller-manager", signal.SIGKILL)
        self._end("kube-apiserver", signal.SIGKILL)
        self._end("etcd", signal.SIGKILL)

    def close(self) -> None:
        """End all, and give the ports back."""
        self.stop()
        for reserved in self._reserved.values():
            reserved.close()

    # --- asking ---------------------------------------------------------------------------------

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str = "",
        content_type: str = "application/json",
    ) -> Any:  # noqa: ANN401 - JSON
        """Send a request past everything that is tested; return the document of the answer.

        It is the administrator's, or whose token is given.
        """
        token = token or (self.directory / "token").read_text(encoding="utf-8")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": content_type}
        for _ in range(50):
            try:
                return _request(method, self.url + path, body, headers=headers)
            except urllib.error.HTTPError as exc:
                if exc.code != HTTPStatus.TOO_MANY_REQUESTS:
                    raise
                time.sleep(0.2)  # it has just started
        raise Failed(f"{self.url} stays too busy for {method} {path}")

    def apply_crds(self) -> None:
        """Create the custom resources' definitions, and wait until they serve."""
        where = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        text = (ROOT / "deploy" / "crds.yaml").read_text(encoding="utf-8")
        documents = list(yaml.safe_load_all(text))
        for document in documents:
            self.ask("POST", where, document)
        for document in documents:
            place = f"/apis/crd.projectcalico.org/v1/{document['spec']['names']['plural']}"
            self._wait("kube-apiserver", f"{self.url}{place}")
            # The first write of a new kind takes two seconds, even one that is refused.
            with contextlib.suppress(urllib.error.HTTPError):
                self.ask("POST", place, {"metadata": {"name": "none"}})

    def apply_rbac(self) -> None:
        """Let there be the agents' account with its rights, and a kubeconfig of it."""
        self._wait("kube-apiserver", f"{self.url}/api/v1/namespaces/kube-system")
        self.apply("rbac.yaml", "admission.yaml")
        token = self.agents_token()
        self._write_kubeconfig(self.agents_kubeconfig, {"token": token})
        # Who may do what is known a moment after it was written.
        self._wait("kube-apiserver", f"{self.url}/api/v1/nodes", token=token)

    def apply(self, *names: str) -> None:
        """Create what files of deploy/ have, none of which is there yet."""
        for document in _documents(*names):
            self.ask("POST", _place(document), document)

    def remove(self, name: str) -> None:
        """Delete what a file of deploy/ has."""
        for document in _documents(name):
            self.ask("DELETE", f"{_place(document)}/{document['metadata']['name']}")

    def agents_token(self) -> str:
        """Return a token of the agents' account."""
        lasting = {"spec": {"expirationSeconds": 86400}}
        return str(self.ask("POST", f"{AGENT}/token", lasting)["status"]["token"])

    def compact(self) -> None:
        """Let etcd forget all former versions."""
        client = f"{self._etcd_url}/v3"
        key = _in_base64(b"/registry")
        head = _request("POST", f"{client}/kv/range", {"key": key})["header"]["revision"]
        _request("POST", f"{client}/kv/compaction", {"revision": head, "physical": True})

    # --- processes ------------------------------------------------------------------------------

    def _start(self, program: str, *options: str) -> None:
        log = self.directory / f"{program}.log"
        with log.open("ab") as output:
            self._running[program] = subprocess.Popen(
                [str(self.programs / program), *options],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.directory,
            )  # fmt: skip

    def _end(self, program: str, number: int) -> None:
        process = self._running.pop(program, None)
        if process is not None:
            process.send_signal(number)
            process.wait(timeout=60)

    def _wait(self, program: str, url: str, *, token: str = TOKEN) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                _request("GET", url, None, headers={"Authorization": f"Bearer {token}"})
            except (OSError, ValueError) as exc:
                is_over = self._running[program].poll() is not None
                if is_over or time.monotonic() > deadline:
                    log = (self.directory / f"{program}.log").read_text(encoding="utf-8")
                    raise Failed(f"{program} does not serve: {exc}\n{log[-4000:]}") from exc
                time.sleep(0.05)
            else:
                return


def _request(method: str, url: str, body: object, *, headers: dict[str, str] | None = None) -> Any:  # noqa: ANN401 - JSON
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(  # noqa: S310 - ours, on loopback
        url,
        data=data,
        method=method,
        headers={"Content-Type": "application/json", **(headers or {})},
    )
    unverified = ssl._create_unverified_context()  # noqa: S323, SLF001 - its certificate is new
    with urllib.request.urlopen(request, timeout=30, context=unverified) as answer:  # noqa: S310
        text = answer.read()
    return text.decode() if text[:1] != b"{" else kubernetes_json.parse(text)


def _documents(*names: str) -> Iterator[dict[str, Any]]:
    for name in names:
        text = (ROOT / "deploy" / name).read_text(encoding="utf-8")
        yield from (one for one in yaml.safe_load_all(text) if one)


def _place(document: dict[str, Any]) -> str:
    namespace = document["metadata"].get("namespace")
    inside = f"/namespaces/{namespace}" if namespace else ""
    kind = f"{document['kind'].lower()}s".replace("policys", "policies")
    return f"{_GROUPS[document['apiVersion']]}{inside}/{kind}"


def _in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@contextlib.contextmanager
def apiserver(directory: Path) -> Iterator[ApiServer]:
    """Run an API server that knows the custom resources, and the agents' account."""
    with bare_apiserver(directory) as server:
        server.apply_crds()
        server.apply_rbac()
        yield server


@contextlib.contextmanager
def bare_apiserver(directory: Path) -> Iterator[ApiServer]:
    """Run an API server of a new cluster."""
    server = ApiServer(directory, binaries())
    server.prepare()
    try:
        server.start_etcd()
        server.start_apiserver()
        yield server
    finally:
        server.close()
