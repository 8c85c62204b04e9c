"""The MTU of pods.  Pure."""

from collections.abc import Iterable

from pycni.model.resources import IPPool, TunnelMode
from pycni.plan.inputs import IPIP_OVERHEAD


def pod_mtu(pools: Iterable[IPPool], *, underlay_mtu: int) -> int:
    """Return the largest MTU that fits through whatever a pod's packets may travel in.

    Any pool with a tunnel costs every pod its overhead: a pod talks to all pools, and a packet
    that fits here but not there is worse than a slightly smaller one everywhere.
    """
    if any(pool.ipip_mode is not TunnelMode.NEVER for pool in pools):
        return underlay_mtu - IPIP_OVERHEAD
    return underlay_mtu
