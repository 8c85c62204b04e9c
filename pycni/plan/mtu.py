"""The MTU of pods.  Pure."""

from collections.abc import Iterable

from pycni.model.resources import IPPool
from pycni.model.tunnels import OVERHEADS, tunnel_of


def pod_mtu(pools: Iterable[IPPool], *, underlay_mtu: int) -> int:
    """Return the largest MTU that fits through whatever a pod's packets may travel in.

    The pool whose tunnel adds most costs every pod its overhead: a pod talks to all pools, and a
    packet that fits here but not there is worse than a slightly smaller one everywhere.
    """
    kinds = {tunnel_of(pool) for pool in pools}
    return underlay_mtu - max((OVERHEADS[kind] for kind in kinds if kind is not None), default=0)
