"""A cluster on paper: nodes with their underlay, resources, pods.  Read from YAML, checked.

Nodes, hosts and pods have IPv4, and IPv6 as well where the file says so (`address6`).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)
from pathlib import Path
from typing import Any

import yaml

from pycni.errors import InvalidInput
from pycni.model.endpoints import host_veth_name
from pycni.model.network import IPAddress, IPInterface
from pycni.model.resources import IPPool, Resource
from pycni.model.schema_yaml import parse_document

UNDERLAY = "eth0"
DEFAULT_UNDERLAY_MTU = 1500
MIN_MTU_V6 = 1280
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?\Z")
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


Member = TopologyNode | TopologyHost
"""Who hangs on the router."""


def addresses_of(member: Member) -> list[tuple[IPInterface, IPAddress]]:
    """Return a member's addresses, each with the gateway of its IP version."""
    found: list[tuple[IPInterface, IPAddress]] = [(member.address, member.gateway)]
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
    resources: tuple[Resource, ...] = ()
    pods: tuple[TopologyPod, ...] = ()

    def __post_init__(self) -> None:
        if not self.nodes:
            raise InvalidInput("nodes: at least one is needed")
        _require_unique([n.name for n in self.nodes] + [h.name for h in self.hosts], "name")
        _require_unique([p.full_name for p in self.pods], "pod")
        _require_unique([p.interface for p in self.pods], "pod interface")
        _require_unique([str(a) for p in self.pods for a in p.addresses], "pod address")
        members: tuple[Member, ...] = (*self.nodes, *self.hosts)
        _require_unique([str(a.ip) for m in members for a, _ in addresses_of(m)], "address")
        known = {n.name for n in self.nodes}
        for pod in self.pods:
            if pod.node not in known:
                raise InvalidInput(f"pod {pod.full_name}: there is no node {pod.node!r}")
        for member in members:
            _require_gateways(member)
        for node in self.nodes:
            if node.address6 is not None and node.mtu < MIN_MTU_V6:
                raise InvalidInput(
                    f"{node.name}: mtu {node.mtu} is below {MIN_MTU_V6}, the least for IPv6"
                )

    @property
    def pools(self) -> tuple[IPPool, ...]:
        """Return the pools among the resources."""
        return tuple(r for r in self.resources if isinstance(r, IPPool))

    @property
    def pod_versions(self) -> tuple[int, ...]:
        """Return the IP versions of which pods get an address: those that a pool serves."""
        served = {pool.cidr.version for pool in self.pools if not pool.is_disabled}
        return tuple(sorted(served)) or (4,)

    @property
    def versions(self) -> tuple[int, ...]:
        """Return the IP versions that the cluster has anything to do with."""
        has_six = any(node.address6 is not None for node in self.nodes)
        return (4, 6) if has_six or 6 in self.pod_versions else (4,)


def _require_gateways(member: Member) -> None:
    if (member.address6 is None) is not (member.gateway6 is None):
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
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as exc:
        raise InvalidInput(f"{source} is no YAML: {exc}") from exc
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
    top = _Section(document, "topology")
    topology = Topology(
        name=top.name("name", default="lab"),
        nodes=tuple(_node(s) for s in top.sections("nodes")),
        hosts=tuple(_host(s) for s in top.sections("hosts")),
        resources=tuple(parse_document(d) for d in top.items("resources")),
        pods=tuple(_pod(s) for s in top.sections("pods")),
    )
    top.finish()
    return topology


def _node(section: "_Section") -> TopologyNode:
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


def _host(section: "_Section") -> TopologyHost:
    host = TopologyHost(
        name=section.name("name"),
        address=section.interface("address"),
        gateway=section.ipv4("gateway"),
        address6=section.interface6("address6"),
        gateway6=section.ipv6("gateway6"),
    )
    section.finish()
    return host


def parse_pod(document: object) -> TopologyPod:
    """Check one pod's document; that its node exists is for the caller to see."""
    return _pod(_Section(document, "pod"))


def _pod(section: "_Section") -> TopologyPod:
    namespace, slash, name = section.text("name").partition("/")
    if not slash or not _NAME.match(namespace) or not _NAME.match(name):
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


class _Section:
    """One mapping of the file: reads keys by type, and refuses those that nobody read."""

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, dict):
            raise InvalidInput(f"{place} must be a mapping")
        self.place = place
        self._value: dict[Any, Any] = value
        self._unread = set(value)

    def _take(self, key: str, default: object = None) -> object:
        self._unread.discard(key)
        value = self._value.get(key, default)
        if value is None:
            raise InvalidInput(f"{self.place}.{key} is missing")
        return value

    def text(self, key: str, *, default: str | None = None) -> str:
        value = self._take(key, default)
        if not isinstance(value, str):
            raise InvalidInput(f"{self.place}.{key} must be a string")
        return value

    def name(self, key: str, *, default: str | None = None) -> str:
        text = self.text(key, default=default)
        if not _NAME.match(text):
            raise InvalidInput(f"{self.place}.{key}: {text!r} is no name (a-z, 0-9, '-', '.')")
        return text

    def number(self, key: str, *, default: int) -> int:
        value = self._take(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidInput(f"{self.place}.{key} must be a number")
        return value

    def interface(self, key: str) -> IPv4Interface:
        value = self._interface(key, self.text(key))
        if not isinstance(value, IPv4Interface):
            raise InvalidInput(f"{self.place}.{key} must be IPv4 with prefix, like 10.0.0.1/24")
        return value

    def interface6(self, key: str) -> IPv6Interface | None:
        text = self.text(key, default="")
        if not text:
            return None
        value = self._interface(key, text)
        if not isinstance(value, IPv6Interface) or value.is_link_local:
            raise InvalidInput(
                f"{self.place}.{key} must be IPv6 with prefix, like fd00:10::1/64,"
                " and not link-local"
            )
        return value

    def _interface(self, key: str, text: str) -> IPInterface | None:
        """Read an address with its prefix; None: the prefix is missing."""
        try:
            value = ip_interface(text)
        except ValueError as exc:
            raise InvalidInput(f"{self.place}.{key}: {exc}") from exc
        return value if "/" in text else None

    def ipv4(self, key: str) -> IPv4Address:
        try:
            return IPv4Address(self.text(key))
        except ValueError as exc:
            raise InvalidInput(f"{self.place}.{key}: {exc}") from exc

    def ipv6(self, key: str) -> IPv6Address | None:
        value = self.optional_ip(key)
        if value is not None and not isinstance(value, IPv6Address):
            raise InvalidInput(f"{self.place}.{key} must be IPv6, like fd00:10::1")
        return value

    def optional_ip(self, key: str) -> IPAddress | None:
        text = self.text(key, default="")
        try:
            return ip_address(text) if text else None
        except ValueError as exc:
            raise InvalidInput(f"{self.place}.{key}: {exc}") from exc

    def items(self, key: str) -> list[Any]:
        value = self._take(key, [])
        if not isinstance(value, list):
            raise InvalidInput(f"{self.place}.{key} must be a list")
        return value

    def sections(self, key: str) -> list["_Section"]:
        return [_Section(v, f"{self.place}.{key}[{i}]") for i, v in enumerate(self.items(key))]

    def finish(self) -> None:
        if self._unread:
            raise InvalidInput(f"{self.place}: unknown key {', '.join(map(repr, self._unread))}")
