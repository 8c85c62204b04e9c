"""The facts that a plan is computed from, kept in one place by the reconciler.

Values are immutable; the mappings that hold them belong to the reconciler's task alone, which
changes them as events arrive.  Everything else only reads.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from ipaddress import ip_network

from pycni.ipam.pools import holds
from pycni.model.bgp import BGP_PORT, Path
from pycni.model.endpoints import EndpointKey, EndpointState, WorkloadEndpoint
from pycni.model.network import (
    PROTOCOL_BIRD,
    PROTOCOL_BOOT,
    Address,
    IPAddress,
    IPInterface,
    IPNetwork,
    Link,
)
from pycni.model.prefix import known_address
from pycni.model.resources import (
    BLOCK_SIZES,
    DEFAULT_BLOCK_SIZE,
    AffinityState,
    BlockAffinity,
    IPPool,
    Node,
    TunnelMode,
)
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer, SecretKey
from pycni.model.services import EndpointSlice, Service
from pycni.model.tunnels import TunnelKind, address_in, tunnel_of
from pycni.plan.prefixes import host_prefix


@dataclass(frozen=True, slots=True)
class Settings:
    """What the configuration file decides about a plan.

    `route_protocol` marks our blackhole and learned routes (12 prints as "bird"); pod routes carry
    `pod_route_protocol` (3, "boot", prints as nothing), as Calico's CNI plugin writes them.
    """

    node: str
    tunnel_name: str = "tunl0"
    route_protocol: int = PROTOCOL_BIRD
    pod_route_protocol: int = PROTOCOL_BOOT
    tunnel_mtu: int | None = None
    hold_time_s: int = 90
    restart_time_s: int = 120
    has_extended_next_hop: bool = False
    """Sessions with routers over IPv6 carry IPv4 prefixes, too (RFC 8950)."""


class TunnelPhase(Enum):
    """Whether the pools' modes alone say if there is a tunnel, see `agent.tunnel_change`."""

    SETTLED = "settled"
    COMING = "coming"
    """It is there already, and routes do not lead to it yet."""
    GOING = "going"
    """No pool needs it, and it is there still."""


@dataclass(slots=True)
class Inputs:
    """Everything known that matters to this node.

    `borrowed` maps an address (as /32 or /128) to the node that holds it, for addresses that lie
    in another node's block.  `pool_history` has every pool that ever was, so that leftovers of a
    deleted one are still recognised as ours.  `links` and `addresses` are the host's own.
    `is_leaving`: the node is to be out of the network for good.  `services` has Kubernetes's by
    "namespace/name", and `slices` their endpoints: Service → EndpointSlice by name.
    `formers` are pools as they were before they took another tunnel, while that may not lead
    everywhere yet; a kind that `tunnel_phases` doesn't name is settled.  `refused_devices` are
    names of tunnels' devices that the kernel refused to make or change when it was asked last.
    `secrets` are the passwords that a cluster keeps for sessions, as far as they are known.
    `bgp` are the settings of all nodes, and `nodes_bgp` what nodes have of their own.
    `last_ends` are the addresses inside a tunnel of VXLAN that the books gave to nodes when last
    looked at: one that has moved is reached there until it is heard whose the new address is.
    `pods`, `host_veths` and `nodes_by_address` are indexes, kept by `set_endpoint` and `set_node`.
    """

    settings: Settings
    pools: dict[str, IPPool] = field(default_factory=dict)
    pool_history: set[IPNetwork] = field(default_factory=set)
    nodes: dict[str, Node] = field(default_factory=dict)
    nodes_by_address: dict[IPAddress, Node] = field(default_factory=dict)
    peers: dict[str, BGPPeer] = field(default_factory=dict)
    filters: dict[str, BGPFilter] = field(default_factory=dict)
    bgp: BGPConfiguration = field(default_factory=BGPConfiguration)
    nodes_bgp: dict[str, BGPConfiguration] = field(default_factory=dict)
    affinities: dict[IPNetwork, BlockAffinity] = field(default_factory=dict)
    borrowed: dict[IPNetwork, str] = field(default_factory=dict)
    endpoints: dict[EndpointKey, WorkloadEndpoint] = field(default_factory=dict)
    pods: dict[IPNetwork, WorkloadEndpoint] = field(default_factory=dict)
    host_veths: dict[str, WorkloadEndpoint] = field(default_factory=dict)
    paths: dict[IPNetwork, tuple[Path, ...]] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    tunnel_phases: dict[TunnelKind, TunnelPhase] = field(default_factory=dict)
    formers: dict[str, IPPool] = field(default_factory=dict)
    refused_devices: set[str] = field(default_factory=set)
    last_ends: dict[tuple[str, TunnelKind], IPAddress] = field(default_factory=dict)
    addresses: set[Address] = field(default_factory=set)
    is_leaving: bool = False
    services: dict[str, Service] = field(default_factory=dict)
    slices: dict[str, dict[str, EndpointSlice]] = field(default_factory=dict)
    secrets: dict[SecretKey, str] = field(default_factory=dict, repr=False)
    _end_blocks: set[IPNetwork] | None = field(default=None, init=False, repr=False)

    @property
    def node(self) -> Node | None:
        """Return this node's own object, None before it is known."""
        return self.nodes.get(self.settings.node)

    def set_bgp(self, node: str | None, value: BGPConfiguration | None) -> None:
        """Learn or forget the settings of BGP: a node's own, or (None) all nodes'."""
        if node is None:
            self.bgp = value or BGPConfiguration()
        elif value is None:
            self.nodes_bgp.pop(node, None)
        else:
            self.nodes_bgp[node] = value

    @property
    def own_bgp(self) -> BGPConfiguration:
        """Return the settings of BGP that this node goes by."""
        return self.bgp.with_own(self.nodes_bgp.get(self.settings.node))

    def listen_port_of(self, node: str) -> int:
        """Return the port where a node accepts sessions."""
        own = self.nodes_bgp.get(node)
        return (own.listen_port if own is not None else None) or self.bgp.listen_port or BGP_PORT

    def pool_of(self, prefix: IPNetwork) -> IPPool | None:
        """Return the pool that contains a prefix; pools never overlap."""
        for pool in self.pools.values():
            if holds(pool.cidr, prefix):
                return pool
        return None

    def set_node(self, name: str, node: Node | None) -> None:
        """Learn or forget a node, and its underlay addresses."""
        self.look_at_ends(name)
        old = self.nodes.pop(name, None)
        self._end_blocks = None
        if node is not None:
            self.nodes[name] = node
        self.look_at_ends(name)
        for address in {*_underlay_addresses(old), *_underlay_addresses(node)}:
            self._index_node(address, old=old, new=node)

    def look_at_ends(self, name: str) -> None:
        """Keep where the books give a node its ends of VXLAN tunnels, for when they move.

        What a node sends and takes goes by its MAC address: an address inside that was its own
        serves as long as the books give it to nobody else.  An end that it takes back is no end.
        """
        node = self.nodes.get(name)
        for kind in TunnelKind:
            address = address_in(node, kind) if node is not None and kind.is_vxlan else None
            if address is None:
                self.last_ends.pop((name, kind), None)
            elif self.holder_of(address) == name:
                self.last_ends[name, kind] = address

    def _index_node(self, address: IPAddress, *, old: Node | None, new: Node | None) -> None:
        """Keep the index true; of two nodes that claim an address, the first by name has it.

        A renamed node has two objects for a while.
        """
        index = self.nodes_by_address
        there = index.get(address)
        if there is None and new is not None:
            index[address] = new
        elif there is old:
            claims = [n for n in self.nodes.values() if address in _underlay_addresses(n)]
            if claims:
                index[address] = min(claims, key=lambda n: n.name)
            else:
                del index[address]
        elif (
            new is not None
            and there is not None
            and new.name < there.name
            and address in _underlay_addresses(new)
        ):
            index[address] = new

    def set_endpoint(self, key: EndpointKey, endpoint: WorkloadEndpoint | None) -> set[IPNetwork]:
        """Learn or forget an endpoint; return the prefixes whose routes may change by that."""
        touched: set[IPNetwork] = set()
        old = self.endpoints.pop(key, None)
        if old is not None and old.has_interface:
            self._take_from_veth(old)
            for prefix in _pod_prefixes(old):
                touched.add(prefix)
                if self.pods.get(prefix) is old:
                    del self.pods[prefix]
        if endpoint is not None:
            self.endpoints[key] = endpoint
        # Another plugin's interface is neither seen nor routed by us.
        if endpoint is not None and endpoint.has_interface:
            self._give_to_veth(endpoint)
            if endpoint.state is EndpointState.READY:
                for prefix in _pod_prefixes(endpoint):
                    touched.add(prefix)
                    self.pods[prefix] = endpoint
        return touched

    def _give_to_veth(self, endpoint: WorkloadEndpoint) -> None:
        """Let a host interface be an endpoint's, unless a finished one has it.

        Two sandboxes of one pod share the name for a while, and their records come in any order.
        """
        holder = self.host_veths.get(endpoint.host_veth)
        is_held = holder is not None and holder.state is EndpointState.READY
        if not is_held or endpoint.state is EndpointState.READY:
            self.host_veths[endpoint.host_veth] = endpoint

    def _take_from_veth(self, endpoint: WorkloadEndpoint) -> None:
        """Let a host interface be another's that has it by its record, or nobody's."""
        name = endpoint.host_veth
        if self.host_veths.get(name) is not endpoint:
            return
        del self.host_veths[name]
        if endpoint.pod_name:  # otherwise the name follows from the key, and is nobody else's
            for other in self.endpoints.values():
                if other.host_veth == name:
                    self._give_to_veth(other)

    def prefixes_behind(self, host_veth: str) -> tuple[IPNetwork, ...]:
        """Return the addresses of the pod behind a host end, as prefixes."""
        endpoint = self.host_veths.get(host_veth)
        return tuple(_pod_prefixes(endpoint)) if endpoint is not None else ()

    def own_interface(self, version: int) -> IPInterface | None:
        """Return this node's underlay address of a family, with its prefix."""
        node = self.node
        if node is None:
            return None
        return node.ipv4 if version == 4 else node.ipv6

    def underlay(self, version: int) -> str | None:
        """Return the name of the interface that carries this node's underlay address.

        Of several it is the first by name, before those that BGP ignores.
        """
        own = self.own_interface(version)
        if own is None:
            return None
        # Bytes, because each `ip` would be a new object.
        packed = own.packed
        names = (a.ifname for a in self.addresses if a.interface.packed == packed)
        return min(names, key=lambda name: (self.bgp.ignores(name), name), default=None)

    def broken_underlay(self, version: int) -> str | None:
        """Return the underlay interface of a family if it is down or without carrier, or None.

        Whoever is behind it can't be reached, long before a hold timer tells.  Of an interface
        that BGP ignores this says nothing.
        """
        name = self.underlay(version)
        if name is not None and self.bgp.ignores(name):
            return None
        link = self.links.get(name) if name is not None else None
        return name if link is not None and not (link.is_up and link.has_carrier) else None

    def is_underlay(self, ifname: str) -> bool:
        """Tell whether an interface carries one of this node's underlay addresses."""
        # Most interfaces are pods' host ends, which have no address at all.
        has_address = any(a.ifname == ifname for a in self.addresses)
        return has_address and ifname in (self.underlay(4), self.underlay(6))

    def is_connected(self, prefix: IPNetwork) -> bool:
        """Tell whether an interface of the host has an address with just this prefix."""
        return any(one.interface.network == prefix for one in self.addresses)

    def is_own_block(self, cidr: IPNetwork) -> bool:
        """Tell whether this node owns a block for certain (a confirmed affinity)."""
        affinity = self.affinities.get(cidr)
        return (
            affinity is not None and affinity.node == self.settings.node and is_confirmed(affinity)
        )

    def own_blocks(self) -> Iterator[IPNetwork]:
        """Yield the blocks that this node owns for certain."""
        return (cidr for cidr in self.affinities if self.is_own_block(cidr))

    def phase_of(self, kind: TunnelKind) -> TunnelPhase:
        """Return whether the pools' modes alone say if there is a tunnel of a kind."""
        return self.tunnel_phases.get(kind, TunnelPhase.SETTLED)

    def in_effect(self, pool: IPPool) -> IPPool:
        """Return a pool with the tunnel that packets to it take as of now."""
        kind = tunnel_of(pool)
        if kind is None or self.phase_of(kind) is not TunnelPhase.COMING:
            return pool
        never = replace(pool, ipip_mode=TunnelMode.NEVER, vxlan_mode=TunnelMode.NEVER)
        return self.formers.get(pool.name, never)

    def has_tunnel(self, kind: TunnelKind) -> bool:
        """Tell whether any pool needs a kind of tunnel, or somebody may still send by it."""
        is_going = self.phase_of(kind) is TunnelPhase.GOING
        return is_going or need_tunnel(self.pools.values(), kind)

    def holder_of(self, address: IPAddress) -> str | None:
        """Return the node that an address is given to by the books, None where they don't say."""
        # Hardly any cluster has lent addresses, and each prefix would be a new object.
        lent = self.borrowed.get(host_prefix(address)) if self.borrowed else None
        if lent is not None:
            return lent
        for block in _blocks_with(address):
            affinity = self.affinities.get(block)
            if affinity is not None and is_confirmed(affinity):
                return affinity.node
        return None

    def concerns_end(self, prefix: IPNetwork) -> bool:
        """Tell whether a block or an address is where a node has its end of a VXLAN tunnel."""
        if self._end_blocks is None:
            ends = (
                address_in(node, kind)
                for node in self.nodes.values()
                for kind in TunnelKind
                if kind.is_vxlan
            )
            known = {*ends, *self.last_ends.values()}
            found = (_blocks_with(end) for end in known if end is not None)
            self._end_blocks = {block for blocks in found for block in blocks}
        return prefix in self._end_blocks


# Asked of each node's end of a tunnel in every pass that looks at one.
@lru_cache(maxsize=1 << 14)
def _blocks_with(address: IPAddress) -> tuple[IPNetwork, ...]:
    """Return the blocks of all sizes that an address may be in, the usual size first."""
    usual = DEFAULT_BLOCK_SIZE[address.version]
    sizes = sorted(BLOCK_SIZES[address.version], key=lambda size: size != usual)
    return tuple(ip_network((address, size), strict=False) for size in sizes)


def need_tunnel(pools: Iterable[IPPool], kind: TunnelKind) -> bool:
    """Tell whether the modes of any of these pools ask for a kind of tunnel."""
    return any(tunnel_of(pool) is kind for pool in pools)


def _underlay_addresses(node: Node | None) -> tuple[IPAddress, ...]:
    if node is None:
        return ()
    return tuple(known_address(i.ip) for i in (node.ipv4, node.ipv6) if i is not None)


def _pod_prefixes(endpoint: WorkloadEndpoint) -> list[IPNetwork]:
    return [_host_prefix_of(a.interface) for a in endpoint.addresses]


def _host_prefix_of(interface: IPInterface) -> IPNetwork:
    network = interface.network
    # As our own allocator gives it, it is alone in its network already.
    is_alone = network.prefixlen == network.max_prefixlen
    return network if is_alone else host_prefix(interface.ip)


def is_confirmed(affinity: BlockAffinity) -> bool:
    """Tell whether a claim counts: pending ones may still lose, dying ones are on their way out."""
    return affinity.state is AffinityState.CONFIRMED and not affinity.is_deleted
