"""A host with the plugin installed, as a runtime finds it: executables, an agent or none, pods."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest

from cluster import NotYet, cni_tools, eventually
from conftest import Namespace, link, namespaces
from pycni.ctl.agentlink import ask
from pycni.errors import PycniError

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "10.10.7.20/20"
NETWORK = "spec"
VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
POOL = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: default}
spec: {cidr: 192.168.0.0/16, natOutgoing: true}
"""
# What an agent makes of itself, for hosts without one.
NODE = """\
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-0}
spec: {bgp: {ipv4Address: 10.10.7.20/20}}
"""


class Prepare(Protocol):
    """What a suite does to a host before its tests."""

    def __call__(self, host: "PluginHost", *, has_agent: bool) -> None:
        """Do it."""


@dataclass(frozen=True)
class Said:
    """What the plugin said and how it ended."""

    status: int
    output: str
    errors: str

    @property
    def document(self) -> dict[str, Any]:
        """Return the one JSON object that was printed."""
        document = json.loads(self.output)
        assert isinstance(document, dict), self.output
        return document

    @property
    def code(self) -> int:
        """Return the error's code, 0 for success."""
        return int(self.document["code"]) if self.status else 0

    @property
    def addresses(self) -> list[str]:
        """Return the addresses of a result."""
        return [ip["address"] for ip in self.document["ips"]]


@dataclass
class Pod:
    """One attachment as a runtime knows it."""

    netns: str
    container: str = "c0ffee"
    ifname: str = "eth0"
    args: str = ""

    def environment(self, verb: str, **changes: str | None) -> dict[str, str]:
        """Return the CNI variables of a call; None leaves one out."""
        every: dict[str, str | None] = {
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": self.container,
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.ifname,
            "CNI_ARGS": self.args or None,
            "CNI_PATH": "/opt/cni/bin",
            **changes,
        }
        return {key: value for key, value in every.items() if value is not None}


@dataclass
class PluginHost:
    """A network namespace with the plugin in a directory, its state below `directory`."""

    namespace: Namespace
    directory: Path
    make: Callable[[], Namespace]
    config: dict[str, Any] = field(default_factory=dict)

    @property
    def plugin(self) -> Path:
        """Return the plugin's executable."""
        return self.directory / "bin" / "pycni"

    def pod(self, container: str = "c0ffee", **fields: str) -> Pod:
        """Make a network namespace for a pod."""
        return Pod(self.make().path, container, **fields)

    def exec(self, environment: dict[str, str], stdin: str, *, program: str | None = None) -> Said:
        """Run the plugin, or another program, with just this environment and input."""
        with self.namespace.entered():
            ran = subprocess.run(
                [program or str(self.plugin)],
                input=stdin,
                capture_output=True,
                text=True,
                env={"PATH": os.defpath, **environment},
                timeout=60,
                check=False,
            )
        return Said(ran.returncode, ran.stdout, ran.stderr)

    def call(
        self,
        verb: str,
        pod: Pod,
        config: Mapping[str, Any] | None = None,
        *,
        changes: Mapping[str, str | None] | None = None,
    ) -> Said:
        """Do what a runtime does; `config` and `changes` (of variables) add, replace or remove."""
        document = {k: v for k, v in {**self.config, **(config or {})}.items() if v is not None}
        return self.exec(pod.environment(verb, **(changes or {})), json.dumps(document))

    def cnitool(
        self,
        verb: str,
        pod: Pod,
        network: Mapping[str, Any],
        *,
        capabilities: Mapping[str, Any] | None = None,
    ) -> Said:
        """Have libcni call every plugin of a list, ours and the reference's."""
        directory = self.directory / "net.d"
        directory.mkdir(exist_ok=True)
        (directory / "10-spec.conflist").write_text(json.dumps(network), encoding="utf-8")
        tools = cni_tools()
        environment = {
            "PATH": os.defpath,
            "CNI_PATH": f"{self.plugin.parent}:{tools}",
            "NETCONFPATH": str(directory),
            # libcni keeps results here; the host's own are none of a test's business.
            "CNI_CACHE_DIR": str(self.directory / "cache"),
            "CAP_ARGS": json.dumps(capabilities or {}),
            "CNI_IFNAME": pod.ifname,
        }
        with self.namespace.entered():
            ran = subprocess.run(
                [str(tools / "cnitool"), verb, network["name"], pod.netns],
                capture_output=True,
                text=True,
                env=environment,
                timeout=60,
                check=False,
            )
        return Said(ran.returncode, ran.stdout, ran.stderr)

    @property
    def datastore_words(self) -> list[str]:
        """Return what tells pycnictl which datastore the host has."""
        return ["--datastore", str(self.directory / "pycni.db")]

    def ctl(self, *words: str, stdin: str = "") -> str:
        """Run pycnictl on the host's datastore."""
        said = self.try_ctl(*words, stdin=stdin)
        assert said.status == 0, said.errors + said.output
        return said.output

    def try_ctl(self, *words: str, stdin: str = "") -> Said:
        """Run pycnictl on the host's datastore, however that ends."""
        line = [sys.executable, "-m", "pycni.ctl", *self.datastore_words, *words]
        with self.namespace.entered():
            ran = subprocess.run(
                line, input=stdin, capture_output=True, text=True, check=False, cwd=ROOT, timeout=90
            )
        return Said(ran.returncode, ran.stdout, ran.stderr)

    def leftovers(self) -> list[str]:
        """Return everything that belongs to pods: interfaces, routes, records, addresses."""
        links = self.namespace.run("ip", "-o", "link").stdout.splitlines()
        routes = self.namespace.run("ip", "route").stdout.splitlines()
        records = (self.directory / "run" / "endpoints").glob("*")
        blocks = json.loads(self.ctl("get", "blocks", "-o", "json"))
        return [
            *(line for line in links if "cali" in line),
            *(line for line in routes if "cali" in line),
            *(path.name for path in records),
            *(
                str(attribute["handle_id"])
                for block in blocks["items"]
                for attribute in block["spec"]["attributes"]
            ),
        ]


@contextlib.contextmanager
def plugin_host(
    directory: Path, make: Callable[[], Namespace], *, relay: str, has_agent: bool
) -> Iterator[PluginHost]:
    """Install the plugin (relay "c" or "python") for a new host; start an agent or not."""
    install(directory / "bin", relay)
    config = network_config(directory, datastore=str(directory / "pycni.db"))
    host = PluginHost(on_underlay(make), directory, make, config)
    host.ctl("apply", "-f", "-", stdin=POOL)
    if not has_agent:
        yield host
        return
    with _agent(host):
        yield host


def nothing_more(host: PluginHost, *, has_agent: bool) -> None:
    """Leave a host as it was made."""


def installed_by(
    *ways: tuple[str, bool],
    scope: Literal["function", "module"] = "module",
    prepare: Prepare = nothing_more,
) -> object:
    """Return a fixture `installed`, once for each way: the relay's language, and if with agent."""

    def installed(
        request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[PluginHost]:
        relay, has_agent = request.param
        with (
            namespaces() as make,
            plugin_host(
                tmp_path_factory.mktemp("h"), make, relay=relay, has_agent=has_agent
            ) as host,
        ):
            prepare(host, has_agent=has_agent)
            yield host

    ids = [f"{relay}-{'agent' if has_agent else 'alone'}" for relay, has_agent in ways]
    return pytest.fixture(scope=scope, params=ways, ids=ids)(installed)


@pytest.fixture
def clean_host(installed: PluginHost) -> Iterator[PluginHost]:
    """Hand out the host, and hold against it what a test leaves behind."""
    yield installed
    left = installed.leftovers()
    if left:  # one failure, not one for each test that follows
        installed.call("GC", Pod("", "none"), {"cni.dev/valid-attachments": []})
    assert left == []


def on_underlay(make: Callable[[], Namespace]) -> Namespace:
    """Make a host's network namespace, with its address on an underlay."""
    namespace, far = make(), make()
    link(namespace, "eth0", far, "far")
    namespace.run("ip", "addr", "add", ADDRESS, "dev", "eth0")
    return namespace


def network_config(directory: Path, **datastore: str) -> dict[str, Any]:
    """Return the network's configuration; `datastore` are the keys that say where the books are."""
    return {
        "cniVersion": "1.1.0",
        "name": NETWORK,
        "type": "pycni",
        "nodename": "node-0",
        "run_dir": str(directory / "run"),
        "state_dir": str(directory / "state"),
        **datastore,
    }


def install(target: Path, relay: str) -> None:
    """Lay the executables beside each other, as install.sh does."""
    target.mkdir(parents=True)
    source = ROOT / "bin" / "pycni"
    if relay == "c":
        line = ["sh", "-euc", f". {ROOT}/bin/lib.sh; ensure_relay", str(ROOT / "bin" / "ensure")]
        ran = subprocess.run(
            line, capture_output=True, text=True, check=True, env={**os.environ, "ROOT": str(ROOT)}
        )
        source = Path(ran.stdout.strip())
    shutil.copy(source, target / "pycni")
    (target / "pycni-ipam").symlink_to("pycni")
    shutil.copy(ROOT / "bin" / "pycni-relay.py", target)
    engine = target / "pycni-engine"
    engine.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m pycni.cni "$@"\n', encoding="utf-8"
    )
    engine.chmod(0o755)


def start_agent(host: PluginHost, **settings: str) -> subprocess.Popen[bytes]:
    """Start an agent with these settings, its state below the host's directory.

    Its name comes from the environment, as in a pod.
    """
    path = host.directory / "agent.yaml"
    own = {"run_dir": f"{host.directory}/run", "state_dir": f"{host.directory}/state"}
    path.write_text(json.dumps(own | settings), encoding="utf-8")
    with (host.directory / "agent.log").open("ab") as output, host.namespace.entered():
        return subprocess.Popen(
            [sys.executable, "-m", "pycni.agent", "--config", str(path)],
            cwd=ROOT,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NODE_NAME": "node-0"},
        )


@contextlib.contextmanager
def _agent(host: PluginHost) -> Iterator[None]:
    agent = start_agent(host, node_address=ADDRESS, datastore=f"{host.directory}/pycni.db")
    log = host.directory / "agent.log"
    try:
        eventually(lambda: serves(host), within_s=60, what=log.read_text)
        yield
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait(timeout=60)


def serves(host: PluginHost) -> bool:
    """Tell whether the host's agent has converged and serves; raise `NotYet` before it answers."""
    try:
        status = ask(host.directory / "run", "status")
    except PycniError as exc:
        raise NotYet(str(exc)) from exc
    return bool(status["converged"]) and status["cni_pid"] is not None
