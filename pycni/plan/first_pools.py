"""Which pools to make in a cluster that has none.  Pure."""

from collections.abc import Iterable

from pycni.model.network import IPNetwork
from pycni.model.resources import DEFAULT_BLOCK_SIZE, IPPool, PoolUse, TunnelMode

NAMES = {4: "default-ipv4-ippool", 6: "default-ipv6-ippool"}
"""Fixed, so that of several nodes that start at once one makes it; Calico's own."""


def first_pools(subnets: Iterable[IPNetwork], *, existing: Iterable[IPPool]) -> list[IPPool]:
    """Return a pool for the first subnet of each IP version of which pods have none."""
    have = {pool.cidr.version for pool in of_pods(existing)}
    made: dict[int, IPPool] = {}
    for subnet in subnets:
        if subnet.version not in have:
            made.setdefault(subnet.version, _pool(subnet))
    return list(made.values())


def of_pods(pools: Iterable[IPPool]) -> list[IPPool]:
    """Return the pools that pods get addresses from; others are for LoadBalancers, say."""
    return [pool for pool in pools if PoolUse.WORKLOAD in pool.allowed_uses]


def _pool(subnet: IPNetwork) -> IPPool:
    """Return a pool as `install.sh --pool` makes one; IPv6 is not tunnelled."""
    return IPPool(
        NAMES[subnet.version],
        subnet,
        block_size=DEFAULT_BLOCK_SIZE[subnet.version],
        ipip_mode=TunnelMode.ALWAYS if subnet.version == 4 else TunnelMode.NEVER,
        nat_outgoing=True,
    )
