"""The doors to a Kubernetes cluster: its pods, and what else is asked and told there.

As with those of `pycni.ports`, shells implement them without inheriting from them.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pycni.check.findings import Report

# --- pods ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the cluster says of one pod of this node; `uid` tells it from others of its name."""

    namespace: str
    name: str
    uid: str
    annotations: Mapping[str, str]


class Pods(Protocol):
    """The cluster's pods, as far as a network has to do with them.

    Methods raise `TryAgain` when the cluster can't be asked now.
    """

    async def get(self, namespace: str, name: str, *, uid: str = "") -> PodFacts | None:
        """Return what is known of a pod, or None; with a `uid`, of no earlier one."""
        ...

    async def annotations_of_namespace(self, name: str) -> Mapping[str, str]:
        """Return a namespace's annotations; none, where there is no such namespace."""
        ...

    def on_node(self) -> Sequence[PodFacts] | None:
        """Return the pods of this node; None while they are not known."""
        ...

    async def annotate(self, pod: PodFacts, annotations: Mapping[str, str]) -> None:
        """Write annotations of just this pod, beside others; raise `NotFound` when it is gone."""
        ...


# --- cluster ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Greeting:
    """How an API server answered: `date` is its own time in HTTP's spelling, `ours_s` our own."""

    ours_s: float
    latency_s: float
    date: str


class Cluster(Protocol):
    """The Kubernetes cluster that a datastore is in, beside the objects that it keeps there.

    Methods raise `TryAgain` when the cluster can't be asked now.
    """

    async def greet(self) -> Greeting:
        """Ask the API server for its version."""
        ...

    async def missing_kinds(self) -> Sequence[str]:
        """Return the kinds of ours that the cluster has no definition of."""
        ...

    async def publish(self, node: str, report: Report | None) -> None:
        """Have a Node say what its agent has found, unless it does; None takes it back."""
        ...

    async def reports(self) -> Mapping[str, Report]:
        """Return what the agents of all nodes have published, by node."""
        ...

    def policies(self) -> AsyncIterator[frozenset[str]]:
        """Yield the NetworkPolicy objects ("namespace/name") now, and again when these change.

        Raises `EventsLost` when changes may have been missed.
        """
        ...

    def secret(self, name: str) -> AsyncIterator[Mapping[str, bytes] | None]:
        """Yield what a Secret beside the agents holds, now and whenever that changes.

        None where there is none.  Raises `EventsLost` when changes may have been missed.
        """
        ...

    async def warn(self, node: str, *, reason: str, message: str) -> None:
        """Make a warning Event about a node."""
        ...
