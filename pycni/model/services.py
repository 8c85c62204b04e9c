"""Kubernetes's Services as far as BGP announces them, and the ranges that their addresses lie in.

What Services and EndpointSlices say is written by whoever may make one: `model.schema_service`
reads it, and leaves out what says nothing.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field

from pycni.model.network import IPAddress, IPNetwork


@dataclass(frozen=True, slots=True)
class ServiceRanges:
    """Which addresses of Services are announced (`serviceClusterIPs` and its like).

    `is_aggregating` (`serviceLoadBalancerAggregation`): every node announces the ranges of
    `load_balancer` whole; else it announces each address of a Service in them by itself.
    """

    cluster: tuple[IPNetwork, ...] = ()
    external: tuple[IPNetwork, ...] = ()
    load_balancer: tuple[IPNetwork, ...] = ()
    is_aggregating: bool = True

    @property
    def all(self) -> tuple[IPNetwork, ...]:
        """Return the ranges of all kinds."""
        return (*self.cluster, *self.external, *self.load_balancer)


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
class EndpointSlice:
    """Some endpoints of a Service, of one IP version.

    `name` is "namespace/name", and so is `service`; `nodes` are those that have a ready endpoint,
    `is_ready` says that there is one, wherever it is.
    """

    name: str
    service: str
    version: int
    nodes: frozenset[str] = field(default_factory=frozenset)
    is_ready: bool = False


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
