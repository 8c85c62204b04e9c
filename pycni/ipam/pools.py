"""Which pools may serve a request: pure rules over values, no datastore.

Calico's: a disabled pool serves nothing; a pool that is named, by name or CIDR, serves whatever
its mode and node selector say; others must be Automatic and select the node; all must allow the
use that the address is wanted for.
"""

from collections.abc import Iterable, Sequence

from pycni.errors import InvalidInput
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources import AssignmentMode, IPPool, PoolUse
from pycni.model.selector import Labels, selector

_FOR_EVERYONE = ("", "all()")


def selects(pool: IPPool, labels: Labels) -> bool:
    """Return whether a pool's node selector means a node with these labels."""
    return pool.node_selector in _FOR_EVERYONE or selector(pool.node_selector)(labels)


def turned_away(pool: IPPool, labels: Labels) -> bool:
    """Return whether a pool would serve, and means other nodes."""
    return not pool.is_disabled and not selects(pool, labels)


def need_labels(pools: Iterable[IPPool]) -> bool:
    """Return whether a node's labels make any difference to these pools."""
    return any(pool.node_selector not in _FOR_EVERYONE for pool in pools)


def eligible(
    pools: Iterable[IPPool],
    *,
    labels: Labels,
    use: PoolUse,
    version: int,
    requested: Sequence[str] = (),
) -> tuple[IPPool, ...]:
    """Return the pools of a family that may serve a node with these labels.

    They come in the order in which they are requested, or of their names.  Raises `InvalidInput`
    when one cannot be used, as `named` does.
    """
    if requested:
        chosen = named(pools, requested, version=version)
    else:
        chosen = [
            pool
            for pool in _enabled(pools)
            if pool.cidr.version == version
            and pool.assignment_mode is AssignmentMode.AUTOMATIC
            and selects(pool, labels)
        ]
    return tuple(pool for pool in chosen if use in pool.allowed_uses)


def named(pools: Iterable[IPPool], texts: Sequence[str], *, version: int) -> Sequence[IPPool]:
    """Return the pools of these names or CIDRs, each once, in this order.

    Raises `InvalidInput` when one does not exist, is disabled or is of the other family.
    """
    enabled = _enabled(pools)
    return list(dict.fromkeys(_named(enabled, text, version=version) for text in texts))


def _named(pools: Sequence[IPPool], text: str, *, version: int) -> IPPool:
    pool = next((pool for pool in pools if text in (pool.name, str(pool.cidr))), None)
    if pool is None:
        known = ", ".join(describe(pool) for pool in pools) or "none"
        raise InvalidInput(
            f"cannot assign from pool {text}: it does not exist or is disabled; enabled are {known}"
        )
    if pool.cidr.version != version:
        raise InvalidInput(
            f"cannot assign an IPv{version} address from pool {describe(pool)}:"
            f" name it in ipv{pool.cidr.version}_pools"
        )
    return pool


def _enabled(pools: Iterable[IPPool]) -> list[IPPool]:
    return sorted((pool for pool in pools if not pool.is_disabled), key=lambda pool: pool.name)


def holds(network: IPNetwork, inner: IPNetwork | IPAddress) -> bool:
    """Return whether a network holds another one, or an address, of its own family."""
    if network.version != inner.version:
        return False
    if isinstance(inner, IPAddress):
        return inner in network
    # As `subnet_of`, which first works out a whole network's last address.
    return inner.prefixlen >= network.prefixlen and inner.network_address in network


def overlapping(cidr: IPNetwork, blocks: Iterable[IPNetwork]) -> IPNetwork | None:
    """Return another block with addresses of this one: made when its pool had other blocks."""
    return next((block for block in blocks if block != cidr and block.overlaps(cidr)), None)


def pool_of(pools: Iterable[IPPool], inner: IPNetwork | IPAddress) -> IPPool | None:
    """Return the pool that holds an address or block, if there is one (pools never overlap)."""
    return next((pool for pool in pools if holds(pool.cidr, inner)), None)


def describe(pool: IPPool) -> str:
    """Return a pool's name and range, for a sentence."""
    return f"{pool.name} ({pool.cidr})"
