"""What the shells tell the reconciler: one value for each thing that can happen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pycni.model.bgp import BgpEvent
from pycni.model.endpoints import EndpointKey, WorkloadEndpoint
from pycni.model.network import KernelEvent, RouteKey
from pycni.model.resources import Resource
from pycni.model.resources_bgp import SecretKey
from pycni.model.services import ServiceNews


@dataclass(frozen=True, slots=True)
class Listed:
    """All objects of one kind, as they were at one moment: what is missing is gone."""

    kind: type[Resource]
    values: Sequence[Resource]


@dataclass(frozen=True, slots=True)
class Changed:
    """One object of the datastore is new, different, or (None) gone."""

    kind: type[Resource]
    name: str
    value: Resource | None


@dataclass(frozen=True, slots=True)
class EndpointChanged:
    """One endpoint record is new, different, or (None) gone."""

    key: EndpointKey
    endpoint: WorkloadEndpoint | None


@dataclass(frozen=True, slots=True)
class EndpointsListed:
    """All endpoint records."""

    endpoints: Sequence[WorkloadEndpoint]


@dataclass(frozen=True, slots=True)
class SecretsRead:
    """Passwords as a cluster keeps them now; those that aren't here stay what they were."""

    passwords: Mapping[SecretKey, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class KernelTold:
    """The kernel reported a change."""

    event: KernelEvent


@dataclass(frozen=True, slots=True)
class BgpTold:
    """The speaker reported something."""

    event: BgpEvent


@dataclass(frozen=True, slots=True)
class SysctlsRead:
    """The watched sysctls as they are now."""

    values: dict[str, str]


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Operations on these were put off, because an engine had the endpoint in hand."""

    keys: frozenset[RouteKey]
    links: frozenset[str]


@dataclass(frozen=True, slots=True)
class Leaving:
    """This node is to leave the network for good, or (False) is not."""

    is_wanted: bool


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something may have been missed: list everything again."""

    reason: str


Message = (
    Listed
    | Changed
    | EndpointChanged
    | EndpointsListed
    | KernelTold
    | BgpTold
    | SysctlsRead
    | SecretsRead
    | LookAgain
    | Leaving
    | ServiceNews
    | Doubt
)
