"""A cluster on paper: nodes with their underlay, resources, pods.  Read from YAML, checked.

Nodes, hosts and pods have IPv4, and IPv6 as well where the file says so (`address6`).
"""

import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
)
from pathlib import Path

from pycni.errors import InvalidInput
from pycni.model.endpoints import host_veth_name
from pycni.model.network import IPAddress, IPInterface
from pycni.model.resources import IPPool, Resource
from pycni.model.schema_yaml import parse_document
from pycni.plan.first_pools import of_pods
from pycni.topology.section import NAME, Section
from pycni.yamltext import read_documents

UNDERLAY = "eth0"
DEFAULT_UNDERLAY_MTU = 1500
MIN_MTU_V6 = 1280
_VETH = re.compile(r"cali[0-9a-zA-Z_.-]{1,11}\Z")


@dataclass(frozen=True, slots=True)
class TopologyNode:
    """A node: its underlay addresses with their subnets' prefixes, and its default gateways."""

    name: str
    address: IPv4Interface
    gateway: IPv4Address
    mtu: int = DEFAULT_UNDERLAY_MTU
    address6: IPv6Interface | None = None
    gateway6: IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class TopologyHost:
    """A host behind the router that is no node."""

    name: str
    address: IPv4Interface
    gateway: IPv4Address
    address6: IPv6Interface | None = None
    gateway6: IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class TopologyRouter:
    """Another's BGP router: it learns the blocks from its peers and leads to them.

    `uplink` is its address at a second interface; with `cluster_id` it reflects (RFC 4456) to the
    peers of its own AS; `peers` are names of nodes and routers.
    """

    name: str
    address: IPv4Interface
    gateway: IPv4Address
    as_number: int
    peers: tuple[str, ...]
    uplink: IPv4Interface | None = None
    cluster_id: IPv4Address | None = None

    @property
    def ends(self) -> tuple[IPv4Interface, ...]:
        """Return its addresses; the first one is its router ID, too."""
        return (self.address,) if self.uplink is None else (self.address, self.uplink)


Member = TopologyNode | TopologyHost | TopologyRouter
"""Who hangs on the router in the middle."""


def addresses_of(member: Member) -> list[tuple[IPInterface, IPAddress]]:
    """Return a member's addresses, each with the gateway of its IP version."""
    found: list[tuple[IPInterface, IPAddress]] = [(member.address, member.gateway)]
    if isinstance(member, TopologyRouter):
        return found
    if member.address6 is not None and member.gateway6 is not None:
        found.append((member.address6, member.gateway6))
    return found


@dataclass(frozen=True, slots=True)
class TopologyPod:
    """A pod to add; without `address` and `host_veth` the plugin chooses.

    One that asks for an address gets just what it asks for: `address` and `address6`.
    """

    namespace: str
    name: str
    node: str
    address: IPAddress | None = None
    host_veth: str | None = None
    address6: IPv6Address | None = None

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """Return the addresses asked for."""
        return tuple(a for a in (self.address, self.address6) if a is not None)

    @property
    def full_name(self) -> str:
        """Return "namespace/name"."""
        return f"{self.namespace}/{self.name}"

    @property
    def interface(self) -> str:
        """Return the host interface's name, the plugin's own rule where none is fixed."""
        if self.host_veth is not None:
            return self.host_veth
        return host_veth_name(f"{self.namespace}.{self.name}")


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole cluster; names are unique, every pod's node exists, every gateway is near."""

    name: str
    nodes: tuple[TopologyNode, ...]
    hosts: tuple[TopologyHost, ...] = ()
    routers: tuple[TopologyRouter, ...] = ()
    resources: tuple[Resource, ...] = ()
    pods: tuple[TopologyPod, ...] = ()

    def __post_init__(self) -> None:
        if not self.nodes:
            raise InvalidInput("nodes: at least one is needed")
        _require_unique([m.name for m in self.members], "name")
        _require_unique([p.full_name for p in self.pods], "pod")
        _require_unique([p.interface for p in self.pods], "pod interface")
        _require_unique([str(a) for p in self.pods for a in p.addresses], "pod address")
        used = [str(a.ip) for m in self.members for a, _ in addresses_of(m)]
        used += [str(r.uplink.ip) for r in self.routers if r.uplink is not None]
        _require_unique(used, "address")
        known = {n.name for n in self.nodes}
        for pod in self.pods:
            if pod.node not in known:
                raise InvalidInput(f"pod {pod.full_name}: there is no node {pod.node!r}")
        for member in self.members:
            _require_gateways(member)
        peering = [n.name for n in self.nodes] + [r.name for r in self.routers]
        for router in self.routers:
            _require_peers(router, {name for name in peering if name != router.name})
        for node in self.nodes:
            if node.address6 is not None and node.mtu < MIN_MTU_V6:
                raise InvalidInput(
                    f"{node.name}: mtu {node.mtu} is below {MIN_MTU_V6}, the least for IPv6"
                )

    @property
    def members(self) -> tuple[Member, ...]:
        """Return all who hang on the router in the middle."""
        return (*self.nodes, *self.hosts, *self.routers)

    @property
    def pools(self) -> tuple[IPPool, ...]:
        """Return the pools among the resources."""
        return tuple(r for r in self.resources if isinstance(r, IPPool))

    @property
    def pod_versions(self) -> tuple[int, ...]:
        """Return the IP versions of which pods get an address: those that a pool serves."""
        served = {pool.cidr.version for pool in of_pods(self.pools) if not pool.is_disabled}
        return tuple(sorted(served)) or (4,)

    @property
    def versions(self) -> tuple[int, ...]:
        """Return the IP versions that the cluster has anything to do with."""
        has_six = any(node.address6 is not None for node in self.nodes)
        return (4, 6) if has_six or 6 in self.pod_versions else (4,)


def _require_peers(router: TopologyRouter, known: AbstractSet[str]) -> None:
    for name in router.peers:
        if name not in known:
            raise InvalidInput(f"router {router.name}: no node or router {name!r} to peer with")
    if router.uplink is not None and router.uplink.network.overlaps(router.address.network):
        raise InvalidInput(f"router {router.name}: uplink is to be in another subnet than address")


def _require_gateways(member: Member) -> None:
    if not isinstance(member, TopologyRouter) and (
        (member.address6 is None) is not (member.gateway6 is None)
    ):
        raise InvalidInput(f"{member.name}: address6 and gateway6 need each other: give both")
    for address, gateway in addresses_of(member):
        if gateway not in address.network or gateway == address.ip:
            raise InvalidInput(
                f"{member.name}: gateway {gateway} is no other address of {address.network}"
            )


def _require_unique(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InvalidInput(f"the {what} {name!r} is given twice")
        seen.add(name)


# --- reading ------------------------------------------------------------------------------------


def load_topology(path: Path) -> Topology:
    """Read a topology file; errors name the file and the place."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as exc:
        raise InvalidInput(f"cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise InvalidInput(f"{path} is no YAML: {exc}") from exc
    return read_topology(text, source=str(path))


def read_topology(text: str, *, source: str) -> Topology:
    """Read a topology; errors name where it came from, and the place."""
    documents = read_documents(text, source=source)
    try:
        for document in documents:
            _refuse_manifest(document)
        if len(documents) > 1:
            raise InvalidInput(f"a topology is one document, and here are {len(documents)}")
        return parse_topology(documents[0] if documents else None)
    except InvalidInput as exc:
        raise InvalidInput(f"{source}: {exc}") from exc


def _refuse_manifest(document: object) -> None:
    if isinstance(document, dict) and "apiVersion" in document and "nodes" not in document:
        raise InvalidInput(
            f"this is a manifest ({document.get('kind')}), no topology: apply it to a network by"
            "  pycnictl apply -f,  or put it into the resources of a topology"
        )


def parse_topology(document: object) -> Topology:
    """Check a document."""
    top = Section(document, "topology")
    topology = Topology(
        name=top.name("name", default="lab"),
        nodes=tuple(_node(s) for s in top.sections("nodes")),
        hosts=tuple(_host(s) for s in top.sections("hosts")),
        routers=tuple(_router(s) for s in top.sections("routers")),
        resources=tuple(parse_document(d) for d in top.items("resources")),
        pods=tuple(_pod(s) for s in top.sections("pods")),
    )
    top.finish()
    return topology


def _node(section: Section) -> TopologyNode:
    node = TopologyNode(
        name=section.name("name"),
        address=section.interface("address"),
        gateway=section.ipv4("gateway"),
        mtu=section.number("mtu", default=DEFAULT_UNDERLAY_MTU),
        address6=section.interface6("address6"),
        gateway6=section.ipv6("gateway6"),
    )
    section.finish()
    return node


def _host(section: Section) -> TopologyHost:
    host = TopologyHost(
        name=section.name("name"),
        address=section.interface("address"),
        gateway=section.ipv4("gateway"),
        address6=section.interface6("address6"),
        gateway6=section.ipv6("gateway6"),
    )
    section.finish()
    return host


def _router(section: Section) -> TopologyRouter:
    router = TopologyRouter(
        name=section.name("name"),
        address=section.interface("address"),
        gateway=section.ipv4("gateway"),
        as_number=section.number("asNumber", within=(1, 2**32 - 1)),
        peers=tuple(section.names("peers")),
        uplink=section.interface("uplink") if "uplink" in section else None,
        cluster_id=section.ipv4("clusterID") if "clusterID" in section else None,
    )
    section.finish()
    return router


def parse_pod(document: object) -> TopologyPod:
    """Check one pod's document; that its node exists is for the caller to see."""
    return _pod(Section(document, "pod"))


def _pod(section: Section) -> TopologyPod:
    namespace, slash, name = section.text("name").partition("/")
    if not slash or not NAME.match(namespace) or not NAME.match(name):
        raise InvalidInput(f"{section.place}.name must be namespace/name")
    address, address6 = section.optional_ip("address"), section.ipv6("address6")
    if address6 is not None and address is not None and address.version == 6:
        raise InvalidInput(f"{section.place}: address and address6 are both IPv6: leave one out")
    host_veth = section.text("hostInterface", default="")
    if host_veth and not _VETH.match(host_veth):
        raise InvalidInput(f"{section.place}.hostInterface must be 'cali' and 1 to 11 characters")
    pod = TopologyPod(
        namespace=namespace,
        name=name,
        node=section.name("node"),
        address=address,
        host_veth=host_veth or None,
        address6=address6,
    )
    section.finish()
    return pod
