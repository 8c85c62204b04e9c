"""The doors: what the deciding parts need from the world, as Protocols.

Shells implement these without inheriting from them; each door has one contract suite in
`tests/contract`, which every implementation passes, the fakes included.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from pycni.model.bgp import AdjRibsOut, BgpEvent, Neighbour
from pycni.model.endpoints import EndpointKey, PendingRelease, WorkloadEndpoint
from pycni.model.network import (
    Failure,
    IPAddress,
    IPInterface,
    IPNetwork,
    KernelEvent,
    KernelState,
    Op,
)
from pycni.model.resources import Resource

T = TypeVar("T", bound=Resource)

# --- datastore ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Revision:
    """A version of one stored object; only equality means anything."""

    token: str


@dataclass(frozen=True, slots=True)
class Cursor:
    """A point in the history of changes, from which a watch can go on."""

    token: str


@dataclass(frozen=True, slots=True)
class Stored(Generic[T]):
    """A value with the revision that it had when it was read or written."""

    value: T
    revision: Revision


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """All values of one kind, and the cursor that continues from just this state."""

    items: tuple[Stored[T], ...]
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One change of one object; `stored` is None when it was deleted."""

    name: str
    stored: Stored[T] | None
    cursor: Cursor


class Creation(NamedTuple):
    """What `Datastore.create` does."""

    value: Resource


class Replacement(NamedTuple):
    """What `Datastore.update` does."""

    value: Resource
    if_revision: Revision


class Deletion(NamedTuple):
    """What `Datastore.delete` does."""

    kind: type[Resource]
    name: str
    if_revision: Revision


Write = Creation | Replacement | Deletion


class Datastore(Protocol):
    """Named objects with compare-and-swap; an unconditional write cannot be expressed.

    Every method raises `TryAgain` when the store can't be reached now and `DatastoreUnusable`
    when it is corrupt or of a newer version.  Names are those of `resource_name`.
    """

    async def get(self, kind: type[T], name: str) -> Stored[T] | None:
        """Return the object, or None."""
        ...

    async def list(self, kind: type[T]) -> Listing[T]:
        """Return all objects of a kind, in the order of their names."""
        ...

    async def create(self, value: T) -> Stored[T]:
        """Create an object; raise `AlreadyExists` when one of that name is there."""
        ...

    async def update(self, value: T, *, if_revision: Revision) -> Stored[T]:
        """Replace an object; raise `Conflict` when its revision differs, `NotFound` when gone."""
        ...

    async def delete(self, kind: type[T], name: str, *, if_revision: Revision) -> None:
        """Delete an object; raise `Conflict` when its revision differs, `NotFound` when gone."""
        ...

    async def write(self, writes: Sequence[Write]) -> Sequence[Stored[Any] | None]:
        """Do several writes in order; raise the error of the first that is refused.

        A store that can do so then has done none of them; another may have done those before it,
        and of writes that are alike (creations of one kind in a row, or deletions) any.  So the
        order has to be one in which a crash between two of them does no harm.
        """
        ...

    def watch(self, kind: type[T], *, after: Cursor) -> AsyncIterator[Change[T]]:
        """Yield what changed after the cursor, in order; raise `EventsLost` when it is too old.

        Each name's last change is yielded, earlier ones need not be: who writes twice, or deletes
        and makes again, before anybody looks, shows the final state only.
        """
        ...

    async def close(self) -> None:
        """Release what the implementation holds; the object is of no use afterwards."""
        ...


# --- kernel -------------------------------------------------------------------------------------


class Kernel(Protocol):
    """One network namespace: read it whole, change it, hear of changes."""

    async def snapshot(self, sysctls: Sequence[str]) -> KernelState:
        """Read links, addresses, routes of all tables but `local`, the named sysctls, our nftables.

        A sysctl that does not exist is left out.  An interrupted dump is repeated.
        """
        ...

    def read_sysctls(self, names: Sequence[str]) -> dict[str, str]:
        """Read some sysctls now; those that don't exist are left out."""
        ...

    def source_to(self, destination: IPAddress) -> IPAddress | None:
        """Return our address from which packets to a destination would go now; None: no way there.

        The kernel's own answer, with rules and all tables, and nothing is sent.
        """
        ...

    async def apply(self, ops: Sequence[Op]) -> Sequence[Failure]:
        """Perform the operations in order and go on after a failing one; return the failures.

        Runs of route operations are sent in bulk.  "Absent" is success for deletions.
        """
        ...

    def events(self) -> AsyncIterator[KernelEvent]:
        """Subscribe now and yield changes; raise `EventsLost` after an overrun (call again then).

        Subscription happens when the iterator is made, so "events, then snapshot" misses nothing.
        Not told: IPv4 routes vanish silently with their link's state and with its last address,
        and sysctls change silently; after an event of that link, take a snapshot.
        Nor are the routes that `apply` writes: its answer says what became of them.
        """
        ...

    def close(self) -> None:
        """Release the sockets; a running iterator of `events` ends with `EventsLost`."""
        ...


@dataclass(frozen=True, slots=True)
class PlugRequest:
    """What to build for one pod interface.

    `netns_fd` is an open descriptor of the pod's network namespace; `alias` is written to the host
    end's ifalias so that it can be recognised as ours; without a `pod_mac` one is drawn for the
    pod's end, and `check` compares none; `has_default_route` False leaves the pod
    with the link-local gateway route only.
    """

    netns_fd: int
    ifname: str
    host_veth: str
    alias: str
    addresses: tuple[IPInterface, ...]
    mtu: int
    route_protocol: int
    pod_mac: str = ""
    routes: tuple[IPNetwork, ...] = ()
    has_default_route: bool = True
    allow_ip_forwarding: bool = False


@dataclass(frozen=True, slots=True)
class PlugResult:
    """What was built: the MAC addresses of both ends."""

    host_mac: str
    pod_mac: str


class PodNet(Protocol):
    """The two ends of pods' veth pairs, and the pod's own routes."""

    def plug(self, request: PlugRequest) -> PlugResult:
        """Make the pair and everything on it; on failure leave nothing behind and raise.

        Raises `WrongNamespace` when that is the host's own or none, `InvalidInput` when `ifname`
        exists there, `AlreadyExists` when an interface that isn't ours has the host end's name.
        """
        ...

    async def unplug(self, *, host_veth: str, alias: str) -> bool:
        """Delete the pair whose ifalias is `alias`; return whether there was one.

        Its host end is called `host_veth`, or whatever somebody has renamed it to.

        Concurrent calls share one kernel transaction.  Returns when the interface is gone.
        """
        ...

    def aliases(self) -> frozenset[str]:
        """Return the ifaliases of all interfaces of the host."""
        ...

    def leads_to_pod(self, address: IPAddress) -> bool:
        """Tell whether the host has a route to just this address by a pod's interface."""
        ...

    def has_address(self, address: IPAddress) -> bool:
        """Tell whether an interface of the host has an address."""
        ...

    def check(self, request: PlugRequest) -> Sequence[str]:
        """Compare what is there with what `plug` builds; return each difference as a sentence."""
        ...


# --- BGP ----------------------------------------------------------------------------------------


class Speaker(Protocol):
    """A BGP engine: told the whole wanted state, it reports what the peers say."""

    def configure(self, *, neighbours: Sequence[Neighbour], advertisements: AdjRibsOut) -> None:
        """State which sessions and which advertisements are wanted from now on; returns at once.

        Calling it again with the same values changes nothing.  Who is to hear a prefix with other
        attributes hears these: it is not withdrawn in between.
        """
        ...

    def has_told(self, peer: IPAddress) -> bool:
        """Tell whether a peer is up and was sent the withdrawal of all that is wanted no more."""
        ...

    def events(self) -> AsyncIterator[BgpEvent]:
        """Yield what happens on the sessions, in order, from start to stop."""
        ...


# --- endpoint records ---------------------------------------------------------------------------


class Endpoints(Protocol):
    """The records of pod interfaces and the journal of unfinished releases, on disk."""

    def get(self, key: EndpointKey) -> WorkloadEndpoint | None:
        """Return the record, or None."""
        ...

    def list(self) -> Sequence[WorkloadEndpoint]:
        """Return all records, in the order of their keys; `DatastoreUnusable` if one is damaged."""
        ...

    def readable(self) -> tuple[Sequence[WorkloadEndpoint], Sequence[str]]:
        """Return the records that can be read, as `list` does, and what is wrong with others."""
        ...

    def put(self, endpoint: WorkloadEndpoint) -> None:
        """Write or replace a record, atomically; the caller holds the lock of its key."""
        ...

    def remove(self, key: EndpointKey) -> None:
        """Remove a record; absent is success."""
        ...

    def sweep(self) -> Sequence[str]:
        """Remove what crashes left of files that were being written; return what could not be."""
        ...

    def lock(self, key: EndpointKey, *, timeout_s: float) -> AbstractAsyncContextManager[None]:
        """Hold the lock of one key across processes; raise `TryAgain` after `timeout_s`."""
        ...

    def journal(self, pending: PendingRelease) -> None:
        """Keep a release that could not be done, durably; the caller holds the key's lock."""
        ...

    def pending(self) -> Sequence[PendingRelease]:
        """Return the journalled releases."""
        ...

    def get_pending(self, key: EndpointKey) -> PendingRelease | None:
        """Return the journalled release of one key, or None."""
        ...

    def settle(self, pending: PendingRelease) -> None:
        """Forget a journalled release that has been done; absent is success."""
        ...
