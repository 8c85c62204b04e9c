"""What is asked of the allocator, and what it answers: values and the door to remembered facts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pycni.errors import InvalidInput
from pycni.ipam.books import key_of
from pycni.ipam.reserved import NOTHING, Reserved
from pycni.model.endpoints import AssignedAddress, EndpointKey, Subnet
from pycni.model.network import IPAddress
from pycni.model.resources import (
    AllocationAttribute,
    BlockAffinity,
    IPAMConfig,
    IPPool,
    IPReservation,
    Node,
    PoolUse,
)
from pycni.model.selector import Labels
from pycni.ports import Datastore

FAMILIES = (4, 6)


@dataclass(frozen=True, slots=True)
class AssignRequest:
    """One address of each family in `versions` (4, 6), held by a handle.

    `addresses` asks for particular ones, each of which serves its family; `ipv4_pools` and
    `ipv6_pools` restrict their family to pools of these names or CIDRs, while a family without
    any takes what serves the node; `attributes` are kept beside the address for people and garbage
    collectors (Calico's `namespace`, `pod`, `node`, `timestamp`).  `is_first`: the handle is to
    hold nothing yet, so what a crash left under it is released before; where the attributes name
    an attachment, not what another one has under a handle of the same text.

    An address that shares its `subnet` with others is none that means all of it, unless it is asked
    for in particular.  `beside`: a handle that has an address in the same block, or must find one.
    """

    handle_id: str
    attributes: tuple[tuple[str, str], ...] = ()
    versions: tuple[int, ...] = (4,)
    ipv4_pools: tuple[str, ...] = ()
    ipv6_pools: tuple[str, ...] = ()
    addresses: tuple[IPAddress, ...] = ()
    use: PoolUse = PoolUse.WORKLOAD
    is_first: bool = False
    subnet: Subnet = Subnet.NONE
    beside: str = ""

    def __post_init__(self) -> None:
        if not self.handle_id:
            raise InvalidInput("cannot assign an address without a handle")
        if not self.versions and not self.addresses:
            raise InvalidInput(f"cannot assign nothing to {self.handle_id}: name 4, 6 or both")
        if not set(self.versions) <= set(FAMILIES):
            raise InvalidInput(f"cannot assign IP versions {self.versions}: 4 and 6 exist")

    def pools_for(self, version: int) -> tuple[str, ...]:
        """Return the pools named for a family; none: any that serves the node."""
        return self.ipv4_pools if version == 4 else self.ipv6_pools

    @property
    def key(self) -> EndpointKey | None:
        """Return the attachment that the attributes name; None when they name none."""
        return key_of(AllocationAttribute(self.handle_id, self.attributes))

    @property
    def wants(self) -> tuple[IPAddress | int, ...]:
        """The particular addresses, then the families that none of them serves."""
        if not self.addresses:
            return self.versions
        served = {address.version for address in self.addresses}
        return (*self.addresses, *(one for one in self.versions if one not in served))


@dataclass(frozen=True, slots=True)
class Assignment:
    """The addresses given; `borrowed` are those that lie in another node's block."""

    addresses: tuple[AssignedAddress, ...]
    borrowed: frozenset[IPAddress] = frozenset()


@dataclass(frozen=True, slots=True)
class Released:
    """What a release came to; `refused` were given to somebody else meanwhile."""

    released: tuple[IPAddress, ...] = ()
    refused: tuple[IPAddress, ...] = ()


class View(Protocol):
    """Pools, affinities and the like as somebody remembers them, perhaps a little behind.

    Watches can serve these without asking the datastore.  Of pools and affinities what is behind
    costs a detour, never a wrong assignment: every decision is made on the block itself.  A change
    of reservations, labels or settings counts from the moment at which the view has it.  One that
    hands out the very same object again says that nothing has changed.
    """

    async def pools(self) -> Sequence[IPPool]:
        """Return all pools."""
        ...

    async def affinities(self, node: str) -> Sequence[BlockAffinity]:
        """Return a node's affinities."""
        ...

    async def reserved(self) -> Reserved:
        """Return what is given to those only who ask for it in particular."""
        ...

    async def config(self) -> IPAMConfig:
        """Return the settings for all nodes."""
        ...

    async def labels(self, node: str) -> Labels:
        """Return a node's labels; one that is not known has none."""
        ...

    async def nodes(self) -> frozenset[str]:
        """Return the names of all nodes that have an object."""
        ...


class DatastoreView:
    """The view of someone who remembers nothing: ask each time."""

    __slots__ = ("_datastore",)

    def __init__(self, datastore: Datastore) -> None:
        self._datastore = datastore

    async def pools(self) -> Sequence[IPPool]:
        """Return all pools."""
        return [stored.value for stored in (await self._datastore.list(IPPool)).items]

    async def affinities(self, node: str) -> Sequence[BlockAffinity]:
        """Return a node's affinities."""
        listing = await self._datastore.list(BlockAffinity)
        return [stored.value for stored in listing.items if stored.value.node == node]

    async def config(self) -> IPAMConfig:
        """Return the settings for all nodes."""
        stored = await self._datastore.get(IPAMConfig, "default")
        return IPAMConfig() if stored is None else stored.value

    async def reserved(self) -> Reserved:
        """Return what is given to those only who ask for it in particular."""
        listing = await self._datastore.list(IPReservation)
        return Reserved(stored.value for stored in listing.items) if listing.items else NOTHING

    async def labels(self, node: str) -> Labels:
        """Return a node's labels."""
        stored = await self._datastore.get(Node, node)
        return {} if stored is None else dict(stored.value.labels)

    async def nodes(self) -> frozenset[str]:
        """Return the names of all nodes that have an object."""
        return frozenset([stored.value.name for stored in (await self._datastore.list(Node)).items])
