"""What is configured of BGP, as values with Calico's meanings: peerings, filters, settings.

As in `pycni.model.resources`, a value that exists is valid.
"""

from dataclasses import dataclass, field, replace
from enum import Enum
from fnmatch import fnmatchcase

from pycni.errors import InvalidInput
from pycni.model.bgp import parse_community
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.service_ranges import ServiceRanges

DEFAULT_AS_NUMBER = 64512
_OF_NODE = "node."


@dataclass(frozen=True, slots=True, order=True)
class SecretKey:
    """Where a cluster keeps a password: a Secret beside the agents, and a key of its data."""

    secret: str
    key: str

    def __str__(self) -> str:
        return f"{self.secret}/{self.key}"


Password = str | SecretKey


@dataclass(frozen=True, slots=True)
class BGPPeer:
    """A peering beside the mesh.

    `node` or `node_selector` name the nodes that have it (neither: every node); `peer_ip` names
    with whom, or `peer_selector` does: nodes, each with an AS number of its own.  `restart_time_s`
    (`maxRestartTime`) is the one of RFC 4724; `allowed_own_as` (`numAllowedLocalASNumbers`) is how
    often the own AS number may stand in an AS path that comes from there; `hops` (`ttlSecurity`)
    is how far away the peer may be (RFC 5082), None any distance; `filters` names BGPFilters.
    `port` None is the usual one, or where our nodes listen; `is_called_back` (`reversePeering`
    Auto): nodes that are called by it call back.
    """

    name: str
    peer_ip: IPAddress | None = None
    as_number: int | None = None
    node: str | None = None
    port: int | None = None
    password: Password | None = None
    node_selector: str | None = None
    peer_selector: str | None = None
    local_as: int | None = None
    restart_time_s: int | None = None
    allowed_own_as: int = 0
    hops: int | None = None
    filters: tuple[str, ...] = ()
    is_called_back: bool = True

    def __post_init__(self) -> None:
        if self.node is not None and self.node_selector is not None:
            raise InvalidInput(f"peer {self.name}: node and nodeSelector exclude each other")
        if (self.peer_ip is None) == (self.peer_selector is None):
            raise InvalidInput(f"peer {self.name}: needs either peerIP or peerSelector")
        if (self.peer_ip is None) != (self.as_number is None):
            raise InvalidInput(
                f"peer {self.name}: asNumber belongs to peerIP; nodes have their own"
            )


class MatchOperator(Enum):
    """How a prefix stands to the CIDR of a filter's rule."""

    EQUAL = "Equal"
    NOT_EQUAL = "NotEqual"
    IN = "In"
    NOT_IN = "NotIn"


class FilterAction(Enum):
    """What becomes of a prefix to which a filter's rule applies."""

    ACCEPT = "Accept"
    REJECT = "Reject"


@dataclass(frozen=True, slots=True)
class PrefixMatch:
    """The prefixes that a filter's rule means: `cidr`, `matchOperator`, `prefixLength`.

    Those of length `min_length` to `max_length` alone lie in the CIDR (In), and all others don't
    (NotIn); None is the CIDR's own length, and that of an address.
    """

    cidr: IPNetwork
    operator: MatchOperator
    min_length: int | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        if (self.min_length, self.max_length) == (None, None):
            return
        if self.operator in (MatchOperator.EQUAL, MatchOperator.NOT_EQUAL):
            raise InvalidInput(f"prefixLength belongs to In and NotIn, not {self.operator.value}")
        if not self.lengths:
            raise InvalidInput(f"prefixLength leaves no prefix of {self.cidr}: widen it")

    @property
    def lengths(self) -> range:
        """Return the lengths of the prefixes in the CIDR that count."""
        low, high = self.min_length or 0, self.max_length
        longest: int = self.cidr.max_prefixlen
        high = longest if high is None else min(high, longest)
        return range(max(low, self.cidr.prefixlen), high + 1)


@dataclass(frozen=True, slots=True)
class FilterRule:
    """One rule of a BGPFilter; it applies where all does that it names.

    `is_for_learned` (`source: RemotePeers`): to what came by BGP; `interface`: to what leaves by an
    interface of such a name, in which `*` stands for anything.
    """

    action: FilterAction
    prefixes: PrefixMatch | None = None
    interface: str | None = None
    is_for_learned: bool = False


@dataclass(frozen=True, slots=True)
class BGPFilter:
    """What may go to the peers whose BGPPeer names this, and what may come from them.

    The first rule that applies decides; where none does, the prefix passes.
    """

    name: str
    export_v4: tuple[FilterRule, ...] = ()
    import_v4: tuple[FilterRule, ...] = ()
    export_v6: tuple[FilterRule, ...] = ()
    import_v6: tuple[FilterRule, ...] = ()


@dataclass(frozen=True, slots=True)
class PrefixAdvertisement:
    """The communities with which prefixes in a CIDR are announced: values, or names of such."""

    cidr: IPNetwork
    communities: tuple[str, ...]


class LogSeverity(Enum):
    """From which severity on the part that speaks BGP logs (`logSeverityScreen`)."""

    TRACE = "Trace"
    DEBUG = "Debug"
    INFO = "Info"
    WARNING = "Warning"
    ERROR = "Error"
    FATAL = "Fatal"


@dataclass(frozen=True, slots=True)
class BGPConfiguration:
    """Settings of BGP, for all nodes (Calico's object named `default`) or one (`node.NAME`).

    One node's say `communities`, `prefix_advertisements`, `listen_port` and `log_severity` alone,
    and go before those of all nodes.  `communities` are names and values, for
    `prefix_advertisements`.  Of the mesh's sessions alone are `mesh_password` (`nodeMeshPassword`)
    and `mesh_restart_time_s` (`nodeMeshMaxRestartTime`).  `ignored_interfaces` are names in which
    `*` stands for anything.  `is_bound_to_node_ip` (`bindMode`): sessions are accepted at the
    node's own addresses alone.
    """

    name: str = "default"
    as_number: int = DEFAULT_AS_NUMBER
    is_node_mesh_enabled: bool = True
    listen_port: int | None = None
    communities: tuple[tuple[str, str], ...] = ()
    prefix_advertisements: tuple[PrefixAdvertisement, ...] = ()
    mesh_password: Password | None = None
    mesh_restart_time_s: int | None = None
    services: ServiceRanges = field(default_factory=ServiceRanges)
    ignored_interfaces: tuple[str, ...] = ()
    log_severity: LogSeverity | None = None
    is_bound_to_node_ip: bool = True

    def __post_init__(self) -> None:
        names = [name for name, _ in self.communities]
        for name, value in self.communities:
            if names.count(name) > 1:
                raise InvalidInput(f"spec.communities: {name} is there twice")
            parse_community(value)
        for one in self.prefix_advertisements:
            for text in one.communities:
                if text not in names:
                    _check_named(text, one.cidr)

    @property
    def node(self) -> str | None:
        """Return the node whose settings these are, None where they are all nodes'."""
        return node_of(self.name)

    def with_own(self, own: "BGPConfiguration | None") -> "BGPConfiguration":
        """Return what a node goes by that has settings of its own, as Calico puts them together.

        Its prefix advertisements take the place of all nodes', with the communities named there.
        """
        if own is None:
            return self
        tagging = own if own.prefix_advertisements else self
        return replace(
            self,
            listen_port=own.listen_port or self.listen_port,
            log_severity=own.log_severity or self.log_severity,
            communities=tagging.communities,
            prefix_advertisements=tagging.prefix_advertisements,
        )

    def ignores(self, ifname: str) -> bool:
        """Tell whether an interface of a host is none for BGP."""
        return any(fnmatchcase(ifname, pattern) for pattern in self.ignored_interfaces)

    def communities_of(self, one: PrefixAdvertisement) -> frozenset[str]:
        """Return the values of a prefix advertisement's communities."""
        known = dict(self.communities)
        return frozenset(parse_community(known.get(text, text)) for text in one.communities)


def node_of(name: str) -> str | None:
    """Return the node whose settings an object of this name has, None where they are all nodes'."""
    return name.removeprefix(_OF_NODE) if name.startswith(_OF_NODE) else None


def _check_named(text: str, cidr: IPNetwork) -> None:
    try:
        parse_community(text)
    except InvalidInput as exc:
        where = f"spec.prefixAdvertisements: of {cidr}"
        raise InvalidInput(f"{where}: {exc}, or a name of spec.communities") from None
