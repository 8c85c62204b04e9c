"""Turn messages into facts (`Inputs`) and into what has to be looked at again (`Dirty`).

No input or output: the reconciler feeds messages in, and acts on what comes out.
"""

from collections.abc import Iterable
from typing import assert_never

from pycni.agent.configured import set_configured, set_or_drop
from pycni.agent.dirty import Dirty
from pycni.agent.messages import (
    BgpTold,
    Changed,
    Doubt,
    EndpointChanged,
    EndpointsListed,
    KernelTold,
    Leaving,
    Listed,
    LookAgain,
    Message,
    SecretsRead,
    SysctlsRead,
)
from pycni.agent.service_facts import ServiceFacts
from pycni.agent.tunnel_change import TunnelChange
from pycni.bgp.news import News
from pycni.bgp.rib import Rib
from pycni.ipam.books import corruption_of
from pycni.model.bgp import EndOfRib
from pycni.model.endpoints import EndpointState, WorkloadEndpoint
from pycni.model.network import (
    Address,
    AddressChanged,
    CreateTunnel,
    Failure,
    IPAddress,
    IPNetwork,
    KernelState,
    NeighbourChanged,
    Op,
    Route,
    RouteChanged,
    RouteKey,
    SetLink,
)
from pycni.model.resources import Block, BlockAffinity, IPPool, Node, Resource, resource_name
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer
from pycni.model.services import (
    ServiceChanged,
    ServicesListed,
    SliceChanged,
    SlicesListed,
)
from pycni.model.tunnels import VXLAN_DEVICES
from pycni.plan.ground import FarEnds, Ground
from pycni.plan.inputs import Inputs, is_confirmed
from pycni.plan.mirror import NOTHING, Effect, apply_event, leave_out_link_local
from pycni.plan.peering import wanted_secrets
from pycni.plan.prefixes import borrowed_in, host_prefix, route_key

_VXLAN = frozenset(VXLAN_DEVICES.values())

WATCHED_KINDS: tuple[type[Resource], ...] = (
    IPPool,
    Node,
    BGPConfiguration,
    BGPPeer,
    BGPFilter,
    BlockAffinity,
    Block,
)


class Facts:
    """Everything that is known, kept by one task."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.rib = Rib()
        self.news = News()
        self.have: KernelState | None = None
        self.listed: set[type[Resource]] = set()
        self.has_endpoints = False
        self._objects: dict[type[Resource], dict[str, Resource]] = {}
        self._claims: dict[IPNetwork, dict[str, BlockAffinity]] = {}
        self._borrowed_in: dict[IPNetwork, dict[IPNetwork, str]] = {}
        self._tunnel = TunnelChange()
        self._has_recalled = False
        self._services = ServiceFacts(inputs)
        self._ends: FarEnds = {}

    @property
    def has_datastore(self) -> bool:
        """Tell whether every watched kind has been listed that has a meaning here.

        A filter has none before a peer names one: a cluster whose definitions are older than this
        agent knows no filters, and its nodes must not lose their sessions for that.
        """
        needed = set(WATCHED_KINDS)
        if not any(peering.filters for peering in self.inputs.peers.values()):
            needed.discard(BGPFilter)
        return self.listed >= needed

    @property
    def has_services(self) -> bool:
        """Tell whether all Services are known, where any is to be announced."""
        return self._services.is_complete or not self.inputs.bgp.services.all

    @property
    def has_secrets(self) -> bool:
        """Tell whether the passwords of all sessions are known."""
        return wanted_secrets(self.inputs) <= self.inputs.secrets.keys()

    def snapshot(self, state: KernelState, *, now: float) -> None:
        """Take a new picture of the kernel."""
        leave_out_link_local(state)
        self.have = state
        self.inputs.links = state.links
        self.inputs.addresses = state.addresses
        self._recall(now=now)

    def _recall(self, *, now: float) -> None:
        """Find once, before anything is planned, what a predecessor was about with the tunnels."""
        if self.have is not None and IPPool in self.listed and not self._has_recalled:
            self._has_recalled = True
            self._tunnel.recall(self.inputs, self.have, now=now)

    def next_deadline(self) -> float:
        """Return when `expire` has something to do; inf when never."""
        return min(self.rib.next_deadline(), self._tunnel.deadline)

    def ground(self) -> Ground:
        """Return what judgements of this moment share.

        Of 5,000 nodes the far ends take longer to find than all the rest of a pod's pass, and hang
        on what makes everything dirty: nodes, and the books where ends are.
        """
        return Ground(self.inputs, ends=self._ends)

    def feed(self, message: Message, *, now: float) -> Dirty:
        """Learn one message."""
        dirty = self._learn(message, now=now)
        if dirty.is_all:
            self._ends = {}
        return dirty

    def _learn(self, message: Message, *, now: float) -> Dirty:
        match message:
            case Listed() | Changed():
                return self._told_of_objects(message, now=now)
            case EndpointChanged():
                return self._endpoint_changed(message)
            case EndpointsListed():
                return self._endpoints_listed(message)
            case KernelTold():
                return self._kernel_told(message)
            case BgpTold():
                return self._bgp_told(message, now=now)
            case SysctlsRead() | SecretsRead():
                return self._values_read(message)
            case Leaving():
                self.inputs.is_leaving = message.is_wanted
                return Dirty(is_bgp=True)
            case ServicesListed() | ServiceChanged() | SlicesListed() | SliceChanged():
                return Dirty(is_bgp=self._services.heed(message))
            case LookAgain() | Doubt():
                return _asked(message)
            case _:
                assert_never(message)

    def expire(self, *, now: float) -> Dirty:
        """Drop stale paths whose time is over, and end the change of a tunnel."""
        dirty = self._touched(self.rib.expire(now=now))
        dirty.is_all |= self._tunnel.expire(self.inputs, now=now)
        return dirty

    def learn_outcome(self, ops: Iterable[Op], failures: Iterable[Failure]) -> None:
        """Learn which tunnels' devices the kernel refuses to make, or to change in place."""
        refused = {failure.op for failure in failures}
        for op in ops:
            if isinstance(op, CreateTunnel | SetLink) and op.tunnel is not None:
                remember = set.add if op in refused else set.discard
                remember(self.inputs.refused_devices, op.tunnel.name)

    def keep_peers(self, wanted: Iterable[IPAddress]) -> Dirty:
        """Forget what peers said with whom no session is wanted any more."""
        dirty = Dirty()
        for address in self.rib.peers.keys() - set(wanted):
            dirty.merge(self._touched(self.rib.forget(address)))
        return dirty

    # --- one message each -----------------------------------------------------------------------

    def _told_of_objects(self, message: Listed | Changed, *, now: float) -> Dirty:
        before = dict(self.inputs.pools) if message.kind is IPPool else {}
        if isinstance(message, Listed):
            dirty = self._listed(message)
        else:
            dirty = self._changed(message.kind, message.name, message.value)
        if message.kind is IPPool:
            self._tunnel.heed(self.inputs, before=before, now=now)
            self._recall(now=now)
        return dirty

    def _endpoint_changed(self, message: EndpointChanged) -> Dirty:
        old, new = self.inputs.endpoints.get(message.key), message.endpoint
        if old == new:
            return Dirty()  # told twice: a record may change again before its file is read
        touched = self.inputs.set_endpoint(message.key, new)
        # Of an unfinished pod's interface nothing is wanted, so from one to none nothing changes.
        ends = (old, new) if _is_ready(old) or _is_ready(new) else ()
        return Dirty(
            keys={route_key(p) for p in touched},
            links={e.host_veth for e in ends if e is not None and e.has_interface},
            # Of a node that leaves, the last pod has kept all announcements.
            is_bgp=self.inputs.is_leaving or not self.inputs.borrowed.keys().isdisjoint(touched),
        )

    def _listed(self, message: Listed) -> Dirty:
        dirty = Dirty(is_all=message.kind not in self.listed)
        self.listed.add(message.kind)
        known = self._objects.setdefault(message.kind, {})
        there = {resource_name(v): v for v in message.values}
        for name in known.keys() - there.keys():
            dirty.merge(self._changed(message.kind, name, None))
        for name, value in there.items():
            if known.get(name) != value:
                dirty.merge(self._changed(message.kind, name, value))
        return dirty

    def _changed(self, kind: type[Resource], name: str, value: Resource | None) -> Dirty:
        objects = self._objects.setdefault(kind, {})
        old = objects.pop(name, None)
        if value is not None:
            objects[name] = value
        if old == value:
            return Dirty()
        subject = value if value is not None else old
        match subject:
            case IPPool() | Node() | BGPPeer() | BGPFilter() | BGPConfiguration():
                set_configured(self.inputs, name, value, subject)
                return Dirty(is_all=True)
            case BlockAffinity():
                return self._affinity_changed(
                    subject.cidr, value if isinstance(value, BlockAffinity) else None, subject
                )
            case Block():
                return self._block_changed(value if isinstance(value, Block) else None, subject)
            case _:
                return Dirty()

    def _affinity_changed(
        self, cidr: IPNetwork, value: BlockAffinity | None, subject: BlockAffinity
    ) -> Dirty:
        # Two nodes may claim one block for a moment; only a confirmed claim says who has it.
        claims = self._claims.setdefault(cidr, {})
        set_or_drop(claims, subject.node, value)
        best = next((a for a in claims.values() if is_confirmed(a)), None)
        set_or_drop(self.inputs.affinities, cidr, best or next(iter(claims.values()), None))
        is_own = self.inputs.settings.node == subject.node
        is_all = self.inputs.concerns_end(cidr)
        self.inputs.look_at_ends(subject.node)
        return Dirty(keys={route_key(cidr)}, is_bgp=is_own, is_other=is_own, is_all=is_all)

    def _block_changed(self, value: Block | None, subject: Block) -> Dirty:
        """Find the addresses of a block that nodes other than its owner hold."""
        cidr = subject.cidr
        if value is not None and corruption_of(value):
            return Dirty()  # it says nothing: what was known goes on
        new = borrowed_in(value) if value is not None else {}
        old = self._borrowed_in.pop(cidr, {})
        if new:
            self._borrowed_in[cidr] = new
        if new == old:
            return Dirty()  # as with nearly every version of a block
        for prefix in old:
            del self.inputs.borrowed[prefix]
        self.inputs.borrowed.update(new)
        touched = old.keys() | new.keys()
        is_all = any(self.inputs.concerns_end(prefix) for prefix in touched)
        for name in set(new.values()):
            self.inputs.look_at_ends(name)
        return Dirty(keys={route_key(p) for p in touched}, is_bgp=True, is_all=is_all)

    def _endpoints_listed(self, message: EndpointsListed) -> Dirty:
        dirty = Dirty(is_all=not self.has_endpoints)
        self.has_endpoints = True
        there = {e.key: e for e in message.endpoints}
        for key in self.inputs.endpoints.keys() - there.keys():
            dirty.merge(self.feed(EndpointChanged(key, None), now=0.0))
        for key, endpoint in there.items():
            if self.inputs.endpoints.get(key) != endpoint:
                dirty.merge(self.feed(EndpointChanged(key, endpoint), now=0.0))
        return dirty

    def _kernel_told(self, message: KernelTold) -> Dirty:
        have, event = self.have, message.event
        if have is None:
            return Dirty()  # the first snapshot is still to come, and it knows better
        if isinstance(event, AddressChanged):
            return self._address_told(event, have)
        effect = apply_event(have, event)
        if effect is NOTHING:
            return Dirty()
        if isinstance(event, RouteChanged):
            is_awaited = event.is_present and self._is_in_the_making(event.route)
            return Dirty() if is_awaited else Dirty(keys={event.route.key})
        if effect.link is not None:
            return self._link_told(effect, effect.link)
        is_neighbour = isinstance(event, NeighbourChanged) and event.entry.ifname in _VXLAN
        return Dirty(is_other=effect.is_ruleset, is_neighbour=is_neighbour)

    def _is_in_the_making(self, route: Route) -> bool:
        """Tell whether a route leads to a pod that somebody is adding or deleting.

        No pass would touch it, and the record that ends their work brings us to it.
        """
        veths = self.inputs.host_veths
        there = (veths.get(hop.oif) for hop in route.next_hops)
        return any(e is not None and e.state is EndpointState.INTENT for e in there)

    def _link_told(self, effect: Effect, name: str) -> Dirty:
        inputs = self.inputs
        keys, links = set(effect.keys), set()
        if _is_ready(inputs.host_veths.get(name)):
            links.add(name)
            keys.update(map(route_key, inputs.prefixes_behind(name)))
        is_vxlan = name in _VXLAN
        is_tunnel = is_vxlan or name == inputs.settings.tunnel_name
        is_important = is_tunnel or inputs.is_underlay(name)
        has_lost = effect.lost_routes_by is not None or effect.returned is not None
        return Dirty(
            keys=keys,
            links=links,
            is_other=is_important,
            # Whether learned paths can be used hangs on its link, and on whose it is.
            is_all=is_vxlan or inputs.is_underlay(name),
            # Routes that were lost with an interface come back when it does.
            is_doubtful=is_important and has_lost,
        )

    def _address_told(self, event: AddressChanged, have: KernelState) -> Dirty:
        inputs = self.inputs
        underlays = (inputs.underlay(4), inputs.underlay(6))
        tunnels = {inputs.settings.tunnel_name, *_VXLAN}
        effect = apply_event(have, event)
        if effect is NOTHING:
            return Dirty()
        if effect.link is not None:  # a host end has lost its pod's gateway
            is_ready = _is_ready(inputs.host_veths.get(effect.link))
            return Dirty(links={effect.link} if is_ready else set())
        return Dirty(
            keys=_keys_judged_by(event.address),
            is_other=True,
            # Which learned paths can be used hangs on the underlay.
            is_all=underlays != (inputs.underlay(4), inputs.underlay(6)),
            is_doubtful=effect.lost_routes_by in {*tunnels, *underlays} - {None},
        )

    def _bgp_told(self, message: BgpTold, *, now: float) -> Dirty:
        self.news.note(message.event, now=now)
        dirty = self._touched(self.rib.feed(message.event, now=now))
        if isinstance(message.event, EndOfRib):
            dirty.is_gate = True  # what nobody announced any more may be deleted now
        return dirty

    def _touched(self, prefixes: set[IPNetwork]) -> Dirty:
        for prefix in prefixes:
            paths = self.rib.paths(prefix)
            if paths:
                self.inputs.paths[prefix] = paths
            else:
                self.inputs.paths.pop(prefix, None)
        return Dirty(keys={route_key(p) for p in prefixes})

    def _values_read(self, message: SysctlsRead | SecretsRead) -> Dirty:
        if isinstance(message, SecretsRead):
            self.inputs.secrets.update(message.passwords)
            return Dirty(is_bgp=True, is_gate=True)
        if self.have is None or message.values.items() <= self.have.sysctls.items():
            return Dirty()
        self.have.sysctls.update(message.values)
        return Dirty(is_other=True)


def _asked(message: LookAgain | Doubt) -> Dirty:
    if isinstance(message, Doubt):
        return Dirty(is_all=True, is_doubtful=True)
    return Dirty(keys=set(message.keys), links=set(message.links))


def _is_ready(endpoint: WorkloadEndpoint | None) -> bool:
    return endpoint is not None and endpoint.state is EndpointState.READY


def _keys_judged_by(address: Address) -> set[RouteKey]:
    """Return the prefixes that nobody else may announce while this address is ours."""
    return {route_key(host_prefix(address.interface.ip)), route_key(address.interface.network)}
