"""Kubernetes's Services as far as BGP announces them, or they get addresses of a load balancer.

What Services and EndpointSlices say is written by whoever may make one: `model.schema_service`
reads it, and leaves out what says nothing.
"""

from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

from pycni.model.network import IPAddress

HANDLE_PREFIX = "lb-"
"""What the handles of Services begin with."""


@dataclass(frozen=True, slots=True)
class Service:
    """A Service that may be announced: it has an address of its own in the cluster.

    `name` is "namespace/name"; `is_local`: `externalTrafficPolicy: Local`.
    """

    name: str
    is_local: bool = False
    cluster_ips: tuple[IPAddress, ...] = ()
    external_ips: tuple[IPAddress, ...] = ()
    load_balancer_ips: tuple[IPAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class BalancedService:
    """A Service as far as it concerns who gives LoadBalancer addresses.

    `is_ours`: it is of type LoadBalancer, and of no other class than Calico's.  `versions` are the
    IP versions that it has (`ipFamilies`), `addresses` those that it asks for in particular,
    `ipv4_pools` and `ipv6_pools` names or CIDRs of pools; `ingress` is what its status says.
    `fault` is what can't be read of its wishes, `pool_faults` the same of pools, by IP version;
    `requires_all` (`ipFamilyPolicy: RequireDualStack`): of one IP version alone it is of no use.
    """

    name: str
    uid: str
    is_ours: bool = False
    versions: tuple[int, ...] = ()
    addresses: tuple[IPAddress, ...] = ()
    ipv4_pools: tuple[str, ...] = ()
    ipv6_pools: tuple[str, ...] = ()
    ingress: tuple[IPAddress, ...] = ()
    fault: str = ""
    pool_faults: tuple[tuple[int, str], ...] = ()
    requires_all: bool = False
    revision: str = field(default="", compare=False)

    @property
    def wanted_versions(self) -> frozenset[int]:
        """Return the IP versions of which it is to have an address."""
        return frozenset([one.version for one in self.addresses] or self.versions)

    @property
    def handle_id(self) -> str:
        """Return the handle that holds its addresses, as Calico makes it: not another Service's.

        A Service that is made again under its name has another uid, and so another handle.
        """
        namespace, _, name = self.name.partition("/")
        digest = sha256(f"{name}-{namespace}-{self.uid}".lower().encode()).digest()
        text = urlsafe_b64encode(digest).decode().rstrip("=")
        return HANDLE_PREFIX + text.replace("-", "").replace("_", "")


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """Some endpoints of a Service, of one IP version.

    `name` is "namespace/name", and so is `service`; `nodes` are those that have a ready endpoint,
    `is_ready` says that there is one, wherever it is.  `ending_nodes` and `is_ending` say the same
    of endpoints that are to end, and serve until then.
    """

    name: str
    service: str
    version: int
    nodes: frozenset[str] = frozenset()
    is_ready: bool = False
    ending_nodes: frozenset[str] = frozenset()
    is_ending: bool = False


@dataclass(frozen=True, slots=True)
class ServicesListed:
    """All Services, as they were at one moment: what is missing is gone."""

    values: tuple[Service, ...]


@dataclass(frozen=True, slots=True)
class ServiceChanged:
    """One Service is new, different, or (None) gone, or not to be announced."""

    name: str
    value: Service | None


@dataclass(frozen=True, slots=True)
class SlicesListed:
    """All EndpointSlices, as they were at one moment: what is missing is gone."""

    values: tuple[EndpointSlice, ...]


@dataclass(frozen=True, slots=True)
class SliceChanged:
    """One EndpointSlice is new, different, or (None) gone."""

    name: str
    value: EndpointSlice | None


ServiceNews = ServicesListed | ServiceChanged | SlicesListed | SliceChanged

ServiceSources = Mapping[str, Callable[[], AsyncIterator[ServiceNews]]]
"""What tells of Services, by what it reads: each lists everything of its kind, and follows it then.

An iterator raises `EventsLost` when changes may have been missed.
"""
