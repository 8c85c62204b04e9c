"""What goes out by BGP: what this node announces, and to whom."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pycni.ipam.pools import holds
from pycni.model.bgp import AdjRibsOut, Advertisement, Neighbour
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources_bgp import BGPPeer
from pycni.plan.filters import kept_in
from pycni.plan.inputs import Inputs
from pycni.plan.peering import passes_on, peering_with
from pycni.plan.services import announced_services


@dataclass(frozen=True, slots=True)
class Withheld:
    """A prefix that a peer is not told, and why, in words for `pycnictl routes`."""

    nlri: IPNetwork
    peer: IPAddress
    reason: str


def wanted_adj_ribs_out(inputs: Inputs, neighbours: Sequence[Neighbour]) -> AdjRibsOut:
    """Return what each of the neighbours is to hear, most of them nodes, and the same."""
    common, services = _own(inputs), _of_services(inputs)
    particular = {}
    if services:
        everything = common | services
        particular = {one.peer: everything for one in neighbours if passes_on(inputs, one.peer)}
    for neighbour, peering in _filtered(inputs, neighbours):
        own = particular.get(neighbour.peer, common)
        passing = frozenset(a for a in own if _why_kept_in(inputs, peering, a.nlri) is None)
        if passing != own:
            particular[neighbour.peer] = passing
    for neighbour in neighbours:
        if neighbour.has_extended_next_hop:
            own = particular.get(neighbour.peer, common)
            particular[neighbour.peer] = frozenset(
                replace(a, next_hop=neighbour.local) for a in own
            )
    return AdjRibsOut(common, particular)


def withheld(inputs: Inputs, neighbours: Iterable[Neighbour]) -> list[Withheld]:
    """Return what filters keep from the neighbours, of what their sessions would carry."""
    common, everything = _own(inputs), wanted_advertisements(inputs)
    return [
        Withheld(one.nlri, neighbour.peer, reason)
        for neighbour, peering in _filtered(inputs, neighbours)
        for one in sorted(everything if passes_on(inputs, neighbour.peer) else common, key=str)
        if one.family in neighbour.families
        and (reason := _why_kept_in(inputs, peering, one.nlri)) is not None
    ]


def _filtered(
    inputs: Inputs, neighbours: Iterable[Neighbour]
) -> Iterator[tuple[Neighbour, BGPPeer]]:
    """Yield the neighbours whose BGPPeer names filters."""
    # Mostly there are none, and whose a neighbour is has to be worked out one by one.
    if not any(peering.filters for peering in inputs.peers.values()):
        return
    for neighbour in neighbours:
        peering = peering_with(inputs, neighbour.peer)
        if peering is not None and peering.filters:
            yield neighbour, peering


def _why_kept_in(inputs: Inputs, peering: BGPPeer, nlri: IPNetwork) -> str | None:
    pod = inputs.pods.get(nlri)
    return kept_in(inputs, peering, nlri, interface=None if pod is None else pod.host_veth)


def wanted_advertisements(inputs: Inputs) -> frozenset[Advertisement]:
    """Return what we announce to whoever passes it on: to other nodes nothing of Services."""
    return _own(inputs) | _of_services(inputs)


def _own(inputs: Inputs) -> frozenset[Advertisement]:
    """Return own blocks, and addresses of ours in others' blocks.

    A node that leaves announces nothing; not while a pod is here, whoever let it in.
    """
    if inputs.is_leaving and not inputs.endpoints:
        return frozenset()
    return _advertised(inputs, (p for p in _own_prefixes(inputs) if _may_leave(inputs, p)))


def _of_services(inputs: Inputs) -> frozenset[Advertisement]:
    """Return addresses of Services, which other nodes are not told, unless they reflect.

    Each has its own kube-proxy, and takes no way to any of them; among hundreds of nodes each
    endpoint that comes or goes would be told to all.
    """
    return _advertised(inputs, announced_services(inputs))


def _advertised(inputs: Inputs, prefixes: Iterable[IPNetwork]) -> frozenset[Advertisement]:
    bgp = inputs.own_bgp
    tagged = [(one.cidr, bgp.communities_of(one)) for one in bgp.prefix_advertisements]
    wanted = set()
    for prefix in prefixes:
        own = inputs.own_interface(prefix.version)
        if own is not None:
            tags = (communities for cidr, communities in tagged if holds(cidr, prefix))
            wanted.add(Advertisement(prefix, own.ip, communities=frozenset().union(*tags)))
    return frozenset(wanted)


def _own_prefixes(inputs: Inputs) -> set[IPNetwork]:
    borrowed = {p for p in inputs.pods if inputs.borrowed.get(p) == inputs.settings.node}
    return borrowed.union(inputs.own_blocks())


def _may_leave(inputs: Inputs, prefix: IPNetwork) -> bool:
    pool = inputs.pool_of(prefix)
    return pool is not None and not pool.disable_bgp_export
