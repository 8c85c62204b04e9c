"""A whole cluster on paper: what each node's agent knows, and what nodes tell each other by BGP.

Everything comes from the datastore and from the agent's own functions; what only a host knows (its
interfaces, its pods) is added by whoever knows it, or left out.
"""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TypeVar

from pycni.model.bgp import Advertisement, Family, Neighbour, Path
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources import Block, BlockAffinity, IPPool, Node, Resource
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer, SecretKey
from pycni.plan.exports import wanted_adj_ribs_out
from pycni.plan.inputs import Inputs, Settings
from pycni.plan.peering import wanted_neighbours
from pycni.plan.prefixes import borrowed_in
from pycni.ports import Datastore

T = TypeVar("T", bound=Resource)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a datastore says, as far as routes between nodes hang on it."""

    nodes: tuple[Node, ...]
    pools: tuple[IPPool, ...]
    affinities: tuple[BlockAffinity, ...]
    borrowed: Mapping[IPNetwork, str]
    peers: tuple[BGPPeer, ...]
    filters: tuple[BGPFilter, ...]
    bgp: tuple[BGPConfiguration, ...] = ()

    @property
    def service_ranges(self) -> tuple[IPNetwork, ...]:
        """The ranges of Services, which no node routes."""
        return tuple(cidr for one in self.bgp for cidr in one.services.all)

    def inputs(self, settings: Settings) -> Inputs:
        """Return what the agent of one node knows of it."""
        inputs = Inputs(settings)
        inputs.pools = {pool.name: pool for pool in self.pools}
        inputs.peers = {peer.name: peer for peer in self.peers}
        inputs.filters = {one.name: one for one in self.filters}
        for one in self.bgp:
            inputs.set_bgp(one.node, one)
        # On paper nobody reads a Secret: two ends have the same password where they name one place.
        passwords = (one.password for one in self.peers), (one.mesh_password for one in self.bgp)
        places = (one for some in passwords for one in some if isinstance(one, SecretKey))
        inputs.secrets = {place: str(place) for place in places}
        for node in self.nodes:
            inputs.set_node(node.name, node)
        inputs.affinities = {one.cidr: one for one in self.affinities}
        inputs.borrowed.update(self.borrowed)
        return inputs

    def about(self, prefix: IPNetwork) -> Iterator[tuple[str, "Cluster"]]:
        """Yield for each node as much of the cluster as decides what it makes of one prefix.

        That is: who has it knows everybody, everybody else knows those, and the nodes that a
        BGPPeer names by address.  With all of it each, thousands of nodes would take hours.
        """
        holders = {one.node for one in self.affinities if one.cidr == prefix}
        holders |= {self.borrowed[prefix]} if prefix in self.borrowed else set()
        named = {peer.peer_ip for peer in self.peers}
        known = [n for n in self.nodes if n.name in holders or named & set(_addresses(n))]
        of_node: dict[str, list[BlockAffinity]] = {}
        for affinity in self.affinities:
            of_node.setdefault(affinity.node, []).append(affinity)
        borrowed = {one: by for one, by in self.borrowed.items() if by in holders or one == prefix}
        for node in self.nodes:
            if node.name in holders:
                yield node.name, self
                continue
            near = {one.name: one for one in (*known, node)}
            affinities = [one for name in near for one in of_node.get(name, ())]
            yield (
                node.name,
                replace(
                    self,
                    nodes=tuple(near.values()),
                    affinities=tuple(affinities),
                    borrowed=borrowed,
                ),
            )


def _addresses(node: Node) -> list[IPAddress]:
    return [own.ip for own in (node.ipv4, node.ipv6) if own is not None]


async def read_cluster(datastore: Datastore) -> Cluster:
    """Read a cluster, kind by kind."""
    borrowed: dict[IPNetwork, str] = {}
    for block in await _values(datastore, Block):
        borrowed.update(borrowed_in(block))
    return Cluster(
        nodes=await _values(datastore, Node),
        pools=await _values(datastore, IPPool),
        affinities=await _values(datastore, BlockAffinity),
        borrowed=borrowed,
        peers=await _values(datastore, BGPPeer),
        filters=await _values(datastore, BGPFilter),
        bgp=await _values(datastore, BGPConfiguration),
    )


async def _values(datastore: Datastore, kind: type[T]) -> tuple[T, ...]:
    return tuple(stored.value for stored in (await datastore.list(kind)).items)


Sessions = Mapping[tuple[IPAddress, IPAddress], Neighbour]
"""By both ends, the own one first, the sessions that a node wants."""


def wanted_sessions(inputs: Mapping[str, Inputs]) -> Sessions:
    """Return the sessions that any node wants, whether they are answered or not."""
    return _by_ends(wanted_neighbours(one) for one in inputs.values())


def _by_ends(neighbours: Iterable[Iterable[Neighbour]]) -> Sessions:
    return {(one.local, one.peer): one for some in neighbours for one in some}


def is_answered(sessions: Sessions, neighbour: Neighbour) -> bool:
    """Tell whether the other end, a node, wants the same session, with each other's AS number."""
    back = sessions.get((neighbour.peer, neighbour.local))
    there = (neighbour.peer_as, neighbour.local_as, neighbour.password)
    return back is not None and (back.local_as, back.peer_as, back.password) == there


def exchange(inputs: Mapping[str, Inputs]) -> None:
    """Carry every node's advertisements to its neighbours among the nodes, as BGP would."""
    wanted = {name: wanted_neighbours(one) for name, one in inputs.items()}
    sessions = _by_ends(wanted.values())
    owners = {
        own.ip: one
        for one in inputs.values()
        for own in (one.own_interface(4), one.own_interface(6))
        if own is not None
    }
    for name, one in inputs.items():
        neighbours = [n for n in wanted[name] if is_answered(sessions, n)]
        sent = wanted_adj_ribs_out(one, neighbours)
        for neighbour in neighbours:
            families = neighbour.families & sessions[neighbour.peer, neighbour.local].families
            known = owners[neighbour.peer].paths
            for path in _paths(sent.to(neighbour.peer), neighbour, families):
                known[path.nlri] = (*known.get(path.nlri, ()), path)


def _paths(
    sent: Iterable[Advertisement], neighbour: Neighbour, families: AbstractSet[Family]
) -> Iterator[Path]:
    for one in sent:
        if one.family in families:
            yield Path(one.nlri, one.next_hop, peer=neighbour.local, communities=one.communities)
