"""Where a lab keeps its files, and what it was asked to be.  Pure.

All of it lies below one directory in memory that only the lab's own processes see.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pycni.errors import InvalidInput

RUN = Path("/run")
NETNS = RUN / "netns"
CNI_CACHE = Path("/var/lib/cni")
NETWORK = "k8s-pod-network"
ROUTER = "router"
TUNNELS = ("auto", "ipip", "uml", "bpf")


@dataclass(frozen=True, slots=True)
class Plan:
    """What `up` asks for: the topology's text, and the programs to use.

    `tunnel` is "ipip" (the kernel's own), "bpf" (`bpf_object` holds the programs) or "none".
    `cnitool` and `relay` are "" where there is none: the lab's own runtime and bin/pycni stand in.
    `kit` is the directory of what Kubernetes's machines are given, "" for a lab without Kubernetes.
    """

    topology: str
    source: str
    tunnel: str
    where: str
    clone: str
    cnitool: str = ""
    relay: str = ""
    bpf_object: str = ""
    kit: str = ""

    def document(self) -> dict[str, Any]:
        """Return what travels in the request."""
        return asdict(self)


def parse_plan(document: Mapping[str, Any]) -> Plan:
    """Read a plan out of a request."""
    try:
        return Plan(**document)
    except TypeError as exc:
        raise InvalidInput(f"the request to come up can't be read: {exc}") from exc


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one lab."""

    name: str

    @property
    def root(self) -> Path:
        """Return the directory of everything."""
        return RUN / "pycni-lab" / self.name

    @property
    def datastore(self) -> Path:
        """Return the one datastore that all nodes share."""
        return self.root / "datastore.db"

    @property
    def services(self) -> Path:
        """Return the file of Services that all nodes' agents announce; nobody makes it but you."""
        return self.root / "services" / "services.yaml"

    @property
    def plugins(self) -> Path:
        """Return CNI_PATH."""
        return self.root / "bin"

    @property
    def python(self) -> Path:
        """Return an interpreter that ExaBGP's user can reach, whatever hides the clone."""
        return self.root / "venv" / "bin" / "python"

    @property
    def log(self) -> Path:
        """Return the supervisor's own log."""
        return self.root / "supervisor.log"

    def node(self, node: str) -> Path:
        """Return a node's directory."""
        return self.root / node

    def run_dir(self, node: str) -> Path:
        """Return where a node's agent keeps its sockets."""
        return self.node(node) / "run"

    def state_dir(self, node: str) -> Path:
        """Return where a node's agent keeps what outlives it."""
        return self.node(node) / "state"

    def net_dir(self, node: str) -> Path:
        """Return NETCONFPATH."""
        return self.node(node) / "net.d"

    def agent_config(self, node: str) -> Path:
        """Return the agent's configuration file."""
        return self.node(node) / "agent.yaml"

    def agent_log(self, node: str) -> Path:
        """Return the agent's log."""
        return self.node(node) / "agent.log"

    def web_log(self, place: str) -> Path:
        """Return the log of the web server in a pod or a host."""
        return self.root / "web" / f"{place}.log"


def netns_path(place: str) -> Path:
    """Return the network namespace of a node, a host, or a pod's place."""
    return NETNS / place


def pod_place(full_name: str) -> str:
    """Return the name of a pod's network namespace: default/web lives in default.web."""
    return full_name.replace("/", ".")
