"""Who speaks BGP with whom in a cluster on paper: between nodes, and with others' routers.

Pure.  One session for each IP version, named once, with both its ends.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pycni.model.network import IPAddress
from pycni.plan.inputs import Inputs
from pycni.plan.peering import peering_with
from pycni.topology import routers
from pycni.topology.model import Topology
from pycni.topology.paper import is_answered, wanted_sessions


@dataclass(frozen=True, slots=True)
class Line:
    """A session as it is drawn: its two ends by name and address, and what is said of it.

    `by` is what there is one by ("mesh", "BGPPeer tor"); `is_up` that both ends want the same.
    """

    ends: tuple[str, str]
    addresses: tuple[IPAddress, IPAddress]
    numbers: tuple[int, int]
    by: str
    is_up: bool

    @property
    def version(self) -> int:
        """Return the IP version that it runs over."""
        return self.addresses[0].version

    @property
    def is_internal(self) -> bool:
        """Tell whether both ends are of one AS (iBGP)."""
        return self.numbers[0] == self.numbers[1]


def lines(topology: Topology, inputs: Mapping[str, Inputs]) -> list[Line]:
    """Return every session that somebody wants, in the order of their ends."""
    found: dict[frozenset[IPAddress], Line] = {}
    for line in (*_of_nodes(topology, inputs), *_of_routers(topology)):
        key = frozenset(line.addresses)
        known = found.get(key)
        if known is None or (line.is_up and not known.is_up):
            found[key] = line
    return sorted(found.values(), key=lambda one: (sorted(one.ends), one.version))


def _of_nodes(topology: Topology, inputs: Mapping[str, Inputs]) -> Iterator[Line]:
    names = _names(topology)
    sessions = wanted_sessions(inputs)
    # What routers want of nodes, as the nodes see it: both ends, and both AS numbers.
    expected: dict[tuple[IPAddress, IPAddress], tuple[int, int]] = {
        (session.remote, session.local): (session.peer_as, session.router.as_number)
        for session in routers.sessions_of(topology)
    }
    for (local, peer), neighbour in sessions.items():
        own = inputs[names[local]]
        peering = peering_with(own, peer)
        numbers = (neighbour.local_as, neighbour.peer_as)
        yield Line(
            ends=(names[local], names.get(peer, str(peer))),
            addresses=(local, peer),
            numbers=numbers,
            by="mesh" if peering is None else f"BGPPeer {peering.name}",
            is_up=is_answered(sessions, neighbour) or expected.get((local, peer)) == numbers,
        )


def _of_routers(topology: Topology) -> Iterator[Line]:
    between = {router.name for router in topology.routers}
    for session in routers.sessions_of(topology):
        numbers = (session.router.as_number, session.peer_as)
        is_up = session.peer.name in between  # what a node wants of it, the node says
        ends = (session.router.name, session.peer.name)
        addresses = (session.local, session.remote)
        yield Line(ends, addresses, numbers, by="the routers' own", is_up=is_up)


def _names(topology: Topology) -> dict[IPAddress, str]:
    found: dict[IPAddress, str] = {}
    for node in topology.nodes:
        found |= {own.ip: node.name for own in (node.address, node.address6) if own is not None}
    for router in topology.routers:
        found |= {end.ip: router.name for end in router.ends}
    return found
