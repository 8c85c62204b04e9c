"""Open the datastore that a setting names; what is not used is not loaded."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from pycni.config import KUBERNETES
from pycni.errors import DatastoreUnusable
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.services import BalancedService, ServiceSources
from pycni.ports import Datastore
from pycni.ports_cluster import Cluster, Pods

Identity = tuple[int | str, ...]
"""Tells one store from others; only equality means anything."""


class OpenDatastore(Datastore, Protocol):
    """A datastore that two processes can tell for the same."""

    @property
    def identity(self) -> Identity:
        """Return which one was opened."""
        ...


class WatchedPods(Pods, Protocol):
    """The cluster's pods, and what keeps them known."""

    on_change: Callable[[], None]

    async def run(self) -> None:
        """Follow them until cancelled."""
        ...


def pods_of(datastore: Datastore, *, node: str) -> WatchedPods | None:
    """Return the pods of the cluster that a datastore is in; None: it is in none."""
    pods: Callable[[str], WatchedPods] | None = getattr(datastore, "pods", None)
    return None if pods is None else pods(node)


PodSubnets = Callable[[], Awaitable[Sequence[IPNetwork]]]
"""Asks a cluster which addresses its pods are to have."""


def pod_subnets_of(datastore: Datastore) -> PodSubnets | None:
    """Return what asks the cluster that a datastore is in; None: it is in none."""
    ask: PodSubnets | None = getattr(datastore, "pod_subnets", None)
    return ask


def cluster_of(datastore: Datastore) -> Cluster | None:
    """Return the cluster that a datastore is in; None: it is in none."""
    cluster: Callable[[], Cluster] | None = getattr(datastore, "cluster", None)
    return None if cluster is None else cluster()


def service_sources_of(datastore: Datastore, *, services_file: str) -> ServiceSources:
    """Return what tells of Services: the cluster, or a file; nothing where there is neither."""
    sources: Callable[[], ServiceSources] | None = getattr(datastore, "service_sources", None)
    if sources is not None:
        return sources()
    if not services_file:
        return {}
    from pycni.datastore.services_file import follow_file

    return {"services_file": lambda: follow_file(Path(services_file))}


class LoadBalancing(Protocol):
    """What whoever gives LoadBalancer addresses asks of a cluster, and tells it.

    Methods raise `TryAgain` when the cluster can't be asked now.
    """

    async def lead(self, holder: str) -> bool:
        """Take the Lease of who does it, or renew it; return whether it is the holder's now."""
        ...

    def services(self) -> AsyncIterator[Sequence[BalancedService]]:
        """Yield all Services now, and again when one that is ours, or was, differs in what matters.

        Raises `EventsLost` when changes may have been missed.
        """
        ...

    async def service(self, name: str) -> BalancedService | None:
        """Return a Service as it is now."""
        ...

    async def set_ingress(self, service: BalancedService, addresses: Sequence[IPAddress]) -> None:
        """Have the status say which addresses a Service has, if it is as it was read.

        Raises `Conflict` when it is not, or gone: read it again, and decide again.
        """
        ...

    async def warn(self, service: BalancedService, *, reason: str, message: str) -> None:
        """Make a warning Event about a Service."""
        ...


def load_balancing_of(datastore: Datastore) -> LoadBalancing | None:
    """Return what serves Services of the cluster that a datastore is in; None: it is in none."""
    balancing: Callable[[], LoadBalancing] | None = getattr(datastore, "load_balancing", None)
    return None if balancing is None else balancing()


class Documents(Protocol):
    """Objects of a cluster as they are, whosever they are."""

    async def list(self, path: str) -> Sequence[dict[str, Any]]:
        """Return all objects below a path; none where such are not defined."""
        ...

    async def set_condition(self, node: str, *, kind: str, status: str, reason: str) -> None:
        """Write one condition of a Node; the others stay."""
        ...


def documents_of(datastore: Datastore) -> Documents | None:
    """Return what lists the objects of the cluster that a datastore is in; None: it is in none."""
    documents: Callable[[], Documents] | None = getattr(datastore, "documents", None)
    return None if documents is None else documents()


async def open_datastore(
    place: str, *, kubeconfig: str = "", is_read_only: bool = False
) -> OpenDatastore:
    """Open a file, or the cluster's objects by a kubeconfig, "" for a pod's service account."""
    if place != KUBERNETES:
        from pycni.datastore.sqlite import open_sqlite

        return await open_sqlite(Path(place), is_read_only=is_read_only)
    with needing_client():
        from pycni.datastore.kubernetes import open_kubernetes
        from pycni.datastore.kubernetes_api import Access
    return await open_kubernetes(Access(Path(kubeconfig) if kubeconfig else None))


@contextlib.contextmanager
def needing_client() -> Iterator[None]:
    """Raise `DatastoreUnusable` where Kubernetes's client can't be imported within."""
    try:
        yield
    except ImportError as exc:
        raise DatastoreUnusable(
            f"cannot use Kubernetes: its client is not installed ({exc}): run"
            " ./install.sh --datastore kubernetes, or pip install 'pycni[kubernetes]'"
        ) from exc
