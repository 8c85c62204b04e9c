"""What others' routers tell the nodes: BGP as BIRD speaks it by default (RFC 4271, 4456).

Pure.  Routers tell each other and the nodes what they have chosen, round by round, until nobody has
anything new; a node passes nothing on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from pycni.errors import InvalidInput
from pycni.model.bgp import AdjRibsOut, Neighbour, Path
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources import Node
from pycni.model.resources_bgp import BGPConfiguration
from pycni.topology.model import Topology, TopologyNode, TopologyRouter

ROUNDS = 64


@dataclass(frozen=True, slots=True)
class Session:
    """One session as a router sees it; `subnet` is that in which both ends are, if they are."""

    router: TopologyRouter
    peer: TopologyNode | TopologyRouter
    local: IPv4Address
    remote: IPv4Address
    peer_as: int
    is_direct: bool

    @property
    def is_internal(self) -> bool:
        """Tell whether both ends are of one AS (iBGP)."""
        return self.peer_as == self.router.as_number


@dataclass(frozen=True, slots=True)
class _Learned:
    """A path as a router has it from one of its sessions."""

    session: Session
    nlri: IPNetwork
    next_hop: IPAddress
    as_path: tuple[int, ...]
    communities: frozenset[str] = frozenset()
    clusters: frozenset[IPv4Address] = frozenset()


_Table = dict[IPNetwork, _Learned]


def sessions_of(topology: Topology) -> tuple[Session, ...]:
    """Return the sessions that routers want; of two routers one that names the other will do."""
    numbers = _as_numbers(topology)
    routers = {router.name: router for router in topology.routers}
    peers: dict[str, TopologyNode | TopologyRouter] = {n.name: n for n in topology.nodes}
    peers |= routers
    wanted = {(router.name, name) for router in topology.routers for name in router.peers}
    wanted |= {(other, own) for own, other in wanted if other in routers}
    return tuple(
        _session(routers[own], peers[other], peer_as=numbers[other])
        for own, other in sorted(wanted)
    )


def _as_numbers(topology: Topology) -> dict[str, int]:
    usual = BGPConfiguration().as_number
    stated: dict[str, int] = {}
    for resource in topology.resources:
        if isinstance(resource, BGPConfiguration) and resource.node is None:
            usual = resource.as_number
        elif isinstance(resource, Node) and resource.as_number is not None:
            stated[resource.name] = resource.as_number
    numbers = {node.name: stated.get(node.name, usual) for node in topology.nodes}
    return numbers | {router.name: router.as_number for router in topology.routers}


def _session(
    router: TopologyRouter, peer: TopologyNode | TopologyRouter, *, peer_as: int
) -> Session:
    theirs = peer.ends if isinstance(peer, TopologyRouter) else (peer.address,)
    for own in router.ends:
        for end in theirs:
            if own.network == end.network:
                return Session(router, peer, own.ip, end.ip, peer_as, is_direct=True)
    return Session(router, peer, router.address.ip, peer.address.ip, peer_as, is_direct=False)


def tell(
    topology: Topology,
    *,
    neighbours: Mapping[str, Iterable[Neighbour]],
    announced: Mapping[str, AdjRibsOut],
) -> dict[str, list[Path]]:
    """Return what each node hears of routers, when nodes announce this to their neighbours."""
    sessions = [s for s in sessions_of(topology) if _is_up(s, neighbours)]
    heard: dict[Session, _Table] = {s: _from_node(s, announced) for s in sessions}
    between = [s for s in sessions if isinstance(s.peer, TopologyRouter)]
    for _ in range(ROUNDS):
        told = {s: _told(s, heard) for s in sessions}
        news = {s: _accepted(s, told[_mirror(s, between)]) for s in between}
        if news == {s: heard[s] for s in between}:
            break
        heard |= news
    else:
        raise InvalidInput(f"the routers are not done with each other after {ROUNDS} rounds")
    return _to_nodes(told)


def _is_up(session: Session, neighbours: Mapping[str, Iterable[Neighbour]]) -> bool:
    """Tell whether the far end is configured for a session, too; between routers it always is."""
    if isinstance(session.peer, TopologyRouter):
        return True
    return any(
        (n.local, n.peer, n.local_as, n.peer_as)
        == (session.remote, session.local, session.peer_as, session.router.as_number)
        for n in neighbours.get(session.peer.name, ())
    )


def _from_node(session: Session, announced: Mapping[str, AdjRibsOut]) -> _Table:
    own = () if session.is_internal else (session.peer_as,)
    sent = announced.get(session.peer.name, AdjRibsOut()).to(session.local)
    return {
        one.nlri: _Learned(session, one.nlri, one.next_hop, own, one.communities)
        for one in sent
        if one.nlri.version == session.local.version
    }


def _mirror(session: Session, sessions: Iterable[Session]) -> Session:
    """Return the same session as the other router sees it."""
    return next(s for s in sessions if (s.local, s.remote) == (session.remote, session.local))


def _told(session: Session, heard: Mapping[Session, _Table]) -> _Table:
    """Return what a router sends by a session."""
    paths: dict[IPNetwork, list[_Learned]] = {}
    for source, table in heard.items():
        if source.router is session.router:
            for nlri, path in table.items():
                paths.setdefault(nlri, []).append(path)
    best = (min(of_one, key=_rank) for of_one in paths.values())
    sent = (_passed_on(path, session) for path in best)
    return {path.nlri: path for path in sent if path is not None}


def _rank(path: _Learned) -> tuple[int, bool, int, int]:
    """Order paths as RFC 4271 9.1.2.2 does, as far as ours differ; smaller is better."""
    router_id = path.session.peer.address.ip
    remote = path.session.remote
    return (len(path.as_path), path.session.is_internal, int(router_id), int(remote))


def _passed_on(path: _Learned, to: Session) -> _Learned | None:
    """Return a path as it leaves by a session; None: it does not."""
    came_by = path.session
    cluster = to.router.cluster_id
    if came_by == to or (came_by.is_internal and to.is_internal and cluster is None):
        return None
    if to.is_internal:
        reflected = path.clusters | ({cluster} if came_by.is_internal and cluster else set())
        return replace(path, clusters=reflected)
    # Who is in one subnet with both may as well be told of each other.
    is_third_party = came_by.is_direct and to.is_direct and came_by.local == to.local
    return _Learned(
        came_by,
        path.nlri,
        path.next_hop if is_third_party else to.local,
        (to.router.as_number, *path.as_path),
        path.communities,
    )


def _accepted(session: Session, table: _Table) -> _Table:
    """Return what a router takes of what another sends: nothing that has been there before."""
    own = session.router
    return {
        nlri: replace(path, session=session)
        for nlri, path in table.items()
        if own.as_number not in path.as_path and own.cluster_id not in path.clusters
    }


def _to_nodes(told: Mapping[Session, _Table]) -> dict[str, list[Path]]:
    heard: dict[str, list[Path]] = {}
    for session, table in told.items():
        if isinstance(session.peer, TopologyNode):
            heard.setdefault(session.peer.name, []).extend(
                Path(
                    one.nlri,
                    one.next_hop,
                    peer=session.local,
                    as_path=one.as_path,
                    communities=one.communities,
                )
                for one in table.values()
            )
    return heard
