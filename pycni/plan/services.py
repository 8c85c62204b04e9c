"""Which addresses of Services this node announces, and why: as Calico decides it.

Ranges whole, from every node: kube-proxy takes what comes, and passes it on to an endpoint.  Of a
Service with `externalTrafficPolicy: Local` each address by itself, from the nodes alone that have a
ready endpoint, or while there is none have one that ends: a router prefers these to the range,
being longer.
"""

from collections.abc import Iterator
from dataclasses import replace

from pycni.ipam.pools import holds
from pycni.model.network import IPNetwork
from pycni.model.resources import IPPool, PoolUse
from pycni.model.service_ranges import ServiceRanges
from pycni.model.services import EndpointSlice, Service
from pycni.plan.inputs import Inputs
from pycni.plan.prefixes import host_prefix

_OF_NODES = frozenset({PoolUse.WORKLOAD, PoolUse.TUNNEL})
EXCLUDING_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"
"""Of a Node with the value "true": routers send it no packets to Services."""


def ranges_of(inputs: Inputs) -> ServiceRanges:
    """Return the configured ranges, without those that pods or tunnels have addresses from."""
    said, taken = inputs.bgp.services, {cidr for cidr, _ in colliding(inputs)}
    if not taken:
        return said
    return replace(
        said,
        cluster=tuple(cidr for cidr in said.cluster if cidr not in taken),
        external=tuple(cidr for cidr in said.external if cidr not in taken),
        load_balancer=tuple(cidr for cidr in said.load_balancer if cidr not in taken),
    )


def colliding(inputs: Inputs) -> list[tuple[IPNetwork, IPPool]]:
    """Return the configured ranges that overlap a pool of pods or tunnels, and which."""
    pools = [pool for pool in inputs.pools.values() if pool.allowed_uses & _OF_NODES]
    return [
        (cidr, pool)
        for cidr in dict.fromkeys(inputs.bgp.services.all)
        for pool in pools
        if cidr.version == pool.cidr.version and cidr.overlaps(pool.cidr)
    ]


def announced_services(inputs: Inputs) -> dict[IPNetwork, str]:
    """Return the prefixes of Services that this node announces, each with its reason in words.

    One that leaves is no way to those that other nodes lead to as well; an endpoint that is on it
    still keeps its addresses of policy Local until it is gone.
    """
    found: dict[IPNetwork, str] = {}
    ranges, is_leaving = ranges_of(inputs), inputs.is_leaving
    if not ranges.all or is_excluded(inputs) or (is_leaving and not inputs.endpoints):
        return found
    for name in sorted(inputs.services):
        service = inputs.services[name]
        if service.is_local or not is_leaving:
            for prefix, reason in announced_of(inputs, service, ranges):
                found.setdefault(prefix, reason)
    return found if is_leaving else found | dict(_whole(ranges))


def announced_of(
    inputs: Inputs, service: Service, ranges: ServiceRanges
) -> Iterator[tuple[IPNetwork, str]]:
    """Yield the addresses of one Service that this node announces by themselves, each with why.

    `ranges` are those of `ranges_of`: whoever asks of many Services looks at the pools once.
    """
    kinds = (
        ("cluster IP", service.cluster_ips, ranges.cluster, True),
        ("external IP", service.external_ips, ranges.external, True),
        ("LoadBalancer IP", service.load_balancer_ips, ranges.load_balancer, ranges.is_aggregating),
    )
    for kind, addresses, within, is_range_announced in kinds:
        for prefix in map(host_prefix, addresses):
            if not any(holds(cidr, prefix) for cidr in within):
                continue
            if service.is_local:
                why = _why_local(inputs, service, prefix)
            elif prefix in within and kind != "cluster IP":
                why = "it is a range of its own"
            else:
                why = None if is_range_announced else _why_apart(inputs, service, prefix)
            if why is not None:
                yield prefix, f"{kind} of Service {service.name}: {why}"


def _why_local(inputs: Inputs, service: Service, prefix: IPNetwork) -> str | None:
    node, slices = inputs.settings.node, _slices(inputs, service, prefix)
    if any(node in one.nodes for one in slices):
        return "externalTrafficPolicy Local, with a ready endpoint here"
    # Elsewhere nobody would answer: kube-proxy leads to these as long as there is no other.
    is_last = any(node in one.ending_nodes for one in slices)
    if is_last and not any(one.nodes for one in slices):
        return "externalTrafficPolicy Local, with an endpoint here that ends, and none ready"
    return None


def _why_apart(inputs: Inputs, service: Service, prefix: IPNetwork) -> str | None:
    slices = _slices(inputs, service, prefix)
    if any(one.is_ready for one in slices):
        return "serviceLoadBalancerAggregation Disabled, with a ready endpoint"
    if any(one.is_ending for one in slices):
        return "serviceLoadBalancerAggregation Disabled, with endpoints that end, and none ready"
    return None


def _slices(inputs: Inputs, service: Service, prefix: IPNetwork) -> list[EndpointSlice]:
    """Return a Service's endpoints of the IP version of its address."""
    slices = inputs.slices.get(service.name, {}).values()
    return [one for one in slices if one.version == prefix.version]


def _whole(ranges: ServiceRanges) -> Iterator[tuple[IPNetwork, str]]:
    """Yield the ranges that every node announces; single addresses follow their Service."""
    for cidr in ranges.cluster:
        yield cidr, "serviceClusterIPs"
    for cidr in filter(_is_wide, ranges.external):
        yield cidr, "serviceExternalIPs"
    if ranges.is_aggregating:
        for cidr in filter(_is_wide, ranges.load_balancer):
            yield cidr, "serviceLoadBalancerIPs"


def _is_wide(cidr: IPNetwork) -> bool:
    return cidr.prefixlen < cidr.max_prefixlen


def is_excluded(inputs: Inputs) -> bool:
    """Tell whether this node is to get no packets to Services from the outside."""
    node = inputs.node
    return node is not None and dict(node.labels).get(EXCLUDING_LABEL) == "true"
