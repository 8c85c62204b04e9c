"""What the verbs work with: this node's datastore, records, kernel, and what is assumed."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from pycni.ipam.allocator import Allocator
from pycni.model.network import PROTOCOL_BOOT
from pycni.ports import Datastore, Endpoints, PodNet
from pycni.ports_cluster import Pods

LOCK_TIMEOUT_S = 30.0


@dataclass(slots=True)
class Engine:
    """The tools of the verbs; `default_mtu` is asked when the configuration names no MTU."""

    node: str
    datastore: Datastore
    allocator: Allocator
    endpoints: Endpoints
    podnet: PodNet
    default_mtu: Callable[[], Awaitable[int]]
    run_dir: Path
    pods: Pods | None = None
    """The cluster's; None: this is no node of a cluster."""
    route_protocol: int = PROTOCOL_BOOT
    clock: Callable[[], float] = time.time
    is_leaving: Callable[[], bool] = lambda: False
    """Whether the node is to leave the network for good."""
