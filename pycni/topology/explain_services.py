"""Which nodes announce an address of a Service, to whom and by which prefix, and why not.

On paper, from what the datastore and the Services say: whether a session is up, only its two
ends know.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from pycni.ipam.pools import describe, holds
from pycni.model.network import IPNetwork
from pycni.model.resources import IPPool, PoolUse
from pycni.model.services import (
    EndpointSlice,
    Service,
    ServicesListed,
    ServiceSources,
    SlicesListed,
)
from pycni.plan.exports import wanted_adj_ribs_out, withheld
from pycni.plan.inputs import Inputs, Settings
from pycni.plan.peering import passes_on, wanted_neighbours
from pycni.plan.prefixes import host_prefix
from pycni.plan.services import (
    EXCLUDING_LABEL,
    announced_services,
    colliding,
    is_excluded,
    ranges_of,
)
from pycni.topology.explain import Part, Standing, peer_name
from pycni.topology.paper import Cluster

_FIELDS = {
    "cluster IP": "serviceClusterIPs",
    "external IP": "serviceExternalIPs",
    "LoadBalancer IP": "serviceLoadBalancerIPs",
}


@dataclass(frozen=True, slots=True)
class Served:
    """Services and their endpoints; `is_known` is False where nothing tells of any."""

    services: Mapping[str, Service] = field(default_factory=dict)
    slices: Mapping[str, Mapping[str, EndpointSlice]] = field(default_factory=dict)
    is_known: bool = True


async def read_services(sources: ServiceSources) -> Served:
    """Read all Services and endpoints once: a source lists them before it tells of changes."""
    services: dict[str, Service] = {}
    slices: dict[str, dict[str, EndpointSlice]] = {}
    for source in sources.values():
        listings = 2 // len(sources)
        async for news in source():
            if isinstance(news, ServicesListed):
                services = {one.name: one for one in news.values}
            elif isinstance(news, SlicesListed):
                for one in news.values:
                    slices.setdefault(one.service, {})[one.name] = one
            listings -= 1
            if listings == 0:
                break
    return Served(services, slices, is_known=bool(sources))


def concerns_services(asked: IPNetwork, cluster: Cluster) -> bool:
    """Tell whether a prefix lies in a range of Services, or in a pool of LoadBalancer addresses.

    Ranges over pools of pods are left out, and what lies there is the pods'.
    """
    pool = next((one for one in cluster.pools if holds(one.cidr, asked)), None)
    if pool is not None:
        return PoolUse.LOAD_BALANCER in pool.allowed_uses
    return _range_around(asked, cluster) is not None


def _range_around(asked: IPNetwork, cluster: Cluster) -> IPNetwork | None:
    found = [cidr for cidr in cluster.service_ranges if holds(cidr, asked)]
    return max(found, key=lambda cidr: cidr.prefixlen, default=None)


def _pool_around(asked: IPNetwork, cluster: Cluster) -> IPPool | None:
    balancing = (pool for pool in cluster.pools if PoolUse.LOAD_BALANCER in pool.allowed_uses)
    return next((pool for pool in balancing if holds(pool.cidr, asked)), None)


def described(asked: IPNetwork, cluster: Cluster, served: Served) -> str:
    """Say what a prefix is, in words: whose address, in which range and pool."""
    words = [
        f"the {kind} of Service {one.name} (externalTrafficPolicy"
        f" {'Local' if one.is_local else 'Cluster'})"
        for kind, one in _owners(asked, served)
    ]
    if asked.prefixlen == asked.max_prefixlen and not words:
        words = ["no Service's" if served.is_known else "perhaps a Service's (none are known here)"]
    cidr, pool = _range_around(asked, cluster), _pool_around(asked, cluster)
    words += ["in no range of Services" if cidr is None else f"in {cidr}, a range of Services"]
    words += [] if pool is None else [f"of pool {describe(pool)}"]
    return ", ".join(words)


def _owners(asked: IPNetwork, served: Served) -> Iterator[tuple[str, Service]]:
    """Yield the Services that have just this address, each with what it is to them."""
    for name in sorted(served.services):
        one = served.services[name]
        kinds = (one.cluster_ips, one.external_ips, one.load_balancer_ips)
        for kind, addresses in zip(_FIELDS, kinds, strict=True):
            if asked in map(host_prefix, addresses):
                yield kind, one


def service_standings(asked: IPNetwork, cluster: Cluster, served: Served) -> list[Standing]:
    """Return every node's part in a prefix of Services, those that announce it first."""
    owners = list(_owners(asked, served))
    concerned = {one.name: one for _, one in owners}
    found = [
        _standing(asked, inputs, owners, is_known=served.is_known)
        for inputs in _inputs(cluster, concerned, served)
    ]
    return sorted(found, key=lambda one: one.part is not Part.ANNOUNCES)


def _inputs(cluster: Cluster, services: Mapping[str, Service], served: Served) -> Iterator[Inputs]:
    """Yield what each node knows, as far as that decides what it announces of these Services.

    Of other nodes that is those which may be told: with all of them, thousands would take hours.
    """
    named = {peer.peer_ip for peer in cluster.peers}
    told = [
        node
        for node in cluster.nodes
        if node.reflector_cluster_id is not None
        or any(own is not None and own.ip in named for own in (node.ipv4, node.ipv6))
    ]
    for node in cluster.nodes:
        near = {one.name: one for one in (*told, node)}
        part = replace(cluster, nodes=tuple(near.values()), affinities=(), borrowed={})
        inputs = part.inputs(Settings(node=node.name))
        inputs.services = dict(services)
        inputs.slices = {name: dict(served.slices.get(name, {})) for name in services}
        yield inputs


def _standing(
    asked: IPNetwork, inputs: Inputs, owners: list[tuple[str, Service]], *, is_known: bool
) -> Standing:
    name, announced = inputs.settings.node, announced_services(inputs)
    if inputs.own_interface(asked.version) is None:
        return Standing(name, Part.KEEPS, f"the node has no IPv{asked.version} address")
    around = sorted((one for one in announced if holds(one, asked)), key=lambda one: -one.prefixlen)
    why_not = [] if asked in announced else list(_why_not(asked, inputs, owners, is_known=is_known))
    if not around:
        return Standing(name, Part.KEEPS, "; ".join(why_not))
    by = f"as {around[0]}, for {announced[around[0]]}"
    return Standing(name, Part.ANNOUNCES, "; ".join([by, *_hearers(around[0], inputs), *why_not]))


def _hearers(prefix: IPNetwork, inputs: Inputs) -> Iterator[str]:
    neighbours = [one for one in wanted_neighbours(inputs) if passes_on(inputs, one.peer)]
    sent = wanted_adj_ribs_out(inputs, neighbours)
    told = [
        peer_name(inputs, neighbour)
        for neighbour in neighbours
        for one in sent.to(neighbour.peer)
        if one.nlri == prefix and one.family in neighbour.families
    ]
    nobody = "no session carries it" if neighbours else "no router or reflector is its peer"
    yield f"to {', '.join(told)}" if told else f"to nobody: {nobody}"
    for back in withheld(inputs, neighbours):
        if back.nlri == prefix:
            yield f"not to {back.peer}: {back.reason}"


def _why_not(
    asked: IPNetwork, inputs: Inputs, owners: list[tuple[str, Service]], *, is_known: bool
) -> Iterator[str]:
    """Yield what keeps a node from announcing an address by itself."""
    if is_excluded(inputs):
        yield f"the node has the label {EXCLUDING_LABEL}: true"
        return
    for cidr, pool in colliding(inputs):
        if holds(cidr, asked):
            yield f"{cidr} overlaps pool {describe(pool)}, and is left out"
    ranges = ranges_of(inputs)
    if not any(holds(cidr, asked) for cidr in ranges.all):
        yield "it lies in no range of Services (serviceLoadBalancerIPs and its like)"
    elif not owners and is_known and asked.prefixlen == asked.max_prefixlen:
        yield "no Service has this address"
    within = dict(
        zip(_FIELDS, (ranges.cluster, ranges.external, ranges.load_balancer), strict=True)
    )
    for kind, service in owners:
        if not any(holds(cidr, asked) for cidr in within[kind]):
            yield f"as {kind} of Service {service.name} it needs a range of {_FIELDS[kind]}"
        elif service.is_local:
            yield f"not by itself: Service {service.name} has no ready endpoint here"
        elif kind == "LoadBalancer IP" and not ranges.is_aggregating:
            yield f"not by itself: Service {service.name} has no ready endpoint"
