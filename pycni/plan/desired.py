"""Compute what is wanted of this node from the facts: pure, kind by kind and key by key.

`compute` does all kinds and all keys.  `route` answers for a single key, so that an event costs
only the keys that it touches; a property test holds the two equal.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_interface

from pycni.model.endpoints import WorkloadEndpoint
from pycni.model.linklayer import EntryKey, LinkLayerEntry
from pycni.model.network import (
    Address,
    NextHop,
    Route,
    RouteKey,
    RouteType,
    Ruleset,
    Tunnel,
)
from pycni.model.tunnels import TunnelKind, address_in
from pycni.model.vxlan import PORT
from pycni.plan.ground import Ground
from pycni.plan.imports import Rejected, judge_prefix
from pycni.plan.inputs import Inputs
from pycni.plan.nat import NatInputs, render
from pycni.plan.overlay import (
    FarEnd,
    device_of,
    entries_for,
    usable_kinds,
    wanted_tunnels,
)
from pycni.plan.peering import close_peers
from pycni.plan.podroute import pod_route
from pycni.plan.podsysctls import host_veth_sysctls, interface_sysctl
from pycni.plan.prefixes import is_usual, route_key
from pycni.plan.services import ranges_of

_IPV6_LENGTH = 128


@dataclass(slots=True)
class Desired:
    """What is wanted: kind → {key: value}; `pod_links` maps pods' host ends to their MTUs.

    `gateways` are the host ends that are to have the gateway address of pods with IPv6.
    `refused_devices` are the tunnels' devices that the kernel refused to make or to change.
    """

    tunnels: dict[str, Tunnel] = field(default_factory=dict)
    refused_devices: frozenset[str] = frozenset()
    entries: dict[EntryKey, LinkLayerEntry] = field(default_factory=dict)
    pod_links: dict[str, int] = field(default_factory=dict)
    gateways: set[str] = field(default_factory=set)
    addresses: set[Address] = field(default_factory=set)
    routes: dict[RouteKey, Route] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    ruleset: Ruleset | None = None


def compute(inputs: Inputs, *, ground: Ground | None = None) -> Desired:
    """Compute everything that is wanted in the kernel."""
    ground = ground or Ground(inputs)
    return Desired(
        tunnels=wanted_tunnels(inputs),
        refused_devices=frozenset(inputs.refused_devices),
        entries=wanted_entries(inputs, ground=ground),
        pod_links=wanted_pod_links(inputs),
        gateways={e.host_veth for e in inputs.pods.values() if needs_gateway(e)},
        addresses=wanted_addresses(inputs),
        routes=wanted_routes(inputs, ground=ground),
        sysctls=wanted_sysctls(inputs),
        ruleset=wanted_ruleset(inputs),
    )


# --- tunnels ------------------------------------------------------------------------------------


def wanted_addresses(inputs: Inputs) -> set[Address]:
    """Return the tunnels' addresses; other interfaces' addresses are none of our business."""
    node, found = inputs.node, set()
    if node is None:
        return set()
    for kind in usable_kinds(inputs):
        address = address_in(node, kind)
        if address is not None:
            found.add(Address(device_of(inputs.settings, kind), ip_interface(address)))
    return found


def wanted_entries(
    inputs: Inputs, *, ground: Ground | None = None
) -> dict[EntryKey, LinkLayerEntry]:
    """Return the entries of VXLAN devices that lead to the other nodes."""
    ground = ground or Ground(inputs)
    return {
        entry.key: entry
        for kind in usable_kinds(inputs)
        if kind.is_vxlan
        for end in ground.far_ends(kind).values()
        if isinstance(end, FarEnd)
        for entry in entries_for(end, device=device_of(inputs.settings, kind))
    }


def wanted_pod_links(inputs: Inputs) -> dict[str, int]:
    """Return the host ends of our pods, which must be up, with their MTUs."""
    return {e.host_veth: e.mtu for e in inputs.pods.values()}


def needs_gateway(endpoint: WorkloadEndpoint) -> bool:
    """Tell whether a pod's host end must have the gateway address of IPv6."""
    return any(a.interface.version == 6 for a in endpoint.addresses)


# --- routes -------------------------------------------------------------------------------------


def wanted_routes(inputs: Inputs, *, ground: Ground | None = None) -> dict[RouteKey, Route]:
    """Return all wanted routes: blackholes of own blocks, pods, learned prefixes."""
    routes, ground = {}, ground or Ground(inputs)
    for key in wanted_route_keys(inputs, ground=ground):
        wanted = route(inputs, key, ground=ground)
        if wanted is not None:
            routes[key] = wanted
    return routes


def wanted_route_keys(inputs: Inputs, *, ground: Ground | None = None) -> Iterator[RouteKey]:
    """Yield every key that might be wanted (some come more than once)."""
    for end in (ground or Ground(inputs)).ends6():
        yield route_key(end)
    for cidr in inputs.own_blocks():
        yield route_key(cidr)
    for prefix in inputs.pods:
        yield route_key(prefix)
    for nlri in inputs.paths:
        yield route_key(nlri)


def route(inputs: Inputs, key: RouteKey, *, ground: Ground | None = None) -> Route | None:
    """Return the route wanted under one key: a pod of ours, else a block of ours, else learned."""
    if not is_usual(key):
        return None
    endpoint = inputs.pods.get(key.dst)
    if endpoint is not None:
        return pod_route(
            key.dst.network_address,
            host_veth=endpoint.host_veth,
            protocol=inputs.settings.pod_route_protocol,
        )
    if inputs.is_own_block(key.dst):
        # A blackhole keeps packets for unallocated addresses from following the default route and
        # coming back; a block of one address needs none, it would only hide the pod (calico#3635).
        if key.dst.prefixlen == key.dst.max_prefixlen:
            return None
        # Another plugin's bridge has the block (`ipam.subnet`): what is unallocated ends there.
        if inputs.is_connected(key.dst):
            return None
        return Route(key=key, type=RouteType.BLACKHOLE, protocol=inputs.settings.route_protocol)
    ground = ground or Ground(inputs)
    # A block is no single address, and to find all ends takes a while.
    if key.dst.prefixlen == _IPV6_LENGTH and key.dst in ground.ends6():
        hop = NextHop(device_of(inputs.settings, TunnelKind.VXLAN_V6))
        protocol = inputs.settings.route_protocol
        return Route(key=key, next_hops=frozenset({hop}), protocol=protocol)
    return judge_prefix(inputs, key.dst, ground=ground).route


def rejected_paths(inputs: Inputs) -> list[Rejected]:
    """Return every learned path that isn't used, with its reason."""
    ground = Ground(inputs)
    return [r for nlri in inputs.paths for r in judge_prefix(inputs, nlri, ground=ground).rejected]


# --- sysctls and nftables -----------------------------------------------------------------------


def wanted_sysctls(inputs: Inputs) -> dict[str, str]:
    """Return the sysctls that must hold: forwarding, and those of every pod's host end.

    rp_filter on the host ends is strict: with a /32 route per pod it drops packets that carry
    another's source, even where nftables is missing.  The kernel uses the larger of `all` and the
    interface's own value, and 2 (loose) would win over 1, so `all` must not be 2.
    """
    wanted = {"net.ipv4.ip_forward": "1"}
    if any(pool.cidr.version == 6 for pool in inputs.pools.values()):
        wanted["net.ipv6.conf.all.forwarding"] = "1"
    for kind in usable_kinds(inputs):
        if kind.version != 4:
            continue
        tunnel = device_of(inputs.settings, kind)
        # Replies may come back by the underlay when a pool is CrossSubnet: strict would drop them.
        wanted[interface_sysctl("ipv4", ifname=tunnel, key="rp_filter")] = "0"
    for endpoint in inputs.pods.values():
        wanted |= wanted_pod_sysctls(endpoint)
    return wanted


def wanted_pod_sysctls(endpoint: WorkloadEndpoint) -> dict[str, str]:
    """Return the sysctls of one pod's host end."""
    versions = frozenset(a.interface.version for a in endpoint.addresses)
    return host_veth_sysctls(endpoint.host_veth, versions=versions)


def wanted_ruleset(inputs: Inputs) -> Ruleset | None:
    """Return our nftables table: NAT out, anti-spoofing, and who may send tunnel packets."""
    services = frozenset(ranges_of(inputs).all)
    if inputs.node is None or not (inputs.pools or services):
        return None
    has_vxlan = any(inputs.has_tunnel(kind) for kind in TunnelKind if kind.is_vxlan)
    return render(
        NatInputs(
            pools=frozenset(p.cidr for p in inputs.pools.values()),
            nat_pools=frozenset(p.cidr for p in inputs.pools.values() if p.nat_outgoing),
            nodes=frozenset(inputs.nodes_by_address),
            has_ipip=inputs.has_tunnel(TunnelKind.IPIP),
            vxlan_port=PORT if has_vxlan else None,
            close_peers=close_peers(inputs),
            listen_port=inputs.listen_port_of(inputs.settings.node),
            services=services,
        )
    )
