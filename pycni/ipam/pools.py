"""Which pools may serve a request: pure rules over values, no datastore.

Calico's: a disabled pool serves nothing; a pool that is named, by name or CIDR, serves whatever
its mode and node selector say; others must be Automatic and select the node; all must allow the
use that the address is wanted for.
"""

from collections.abc import Callable, Iterable, Sequence

from pycni.errors import InvalidInput
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources import AssignmentMode, IPPool, PoolUse

Selects = Callable[[IPPool, str], bool]


def selects_all_or_none(pool: IPPool, node: str) -> bool:
    """Return whether a pool's node selector includes a node; `apply` admits only two of them."""
    del node
    return pool.node_selector != "!all()"


def eligible(
    pools: Iterable[IPPool],
    *,
    node: str,
    use: PoolUse,
    requested: Sequence[str] = (),
    selects: Selects = selects_all_or_none,
) -> tuple[IPPool, ...]:
    """Return the pools that may serve, in the order of their names.

    Raises `InvalidInput` when a requested pool does not exist or is disabled.
    """
    enabled = sorted((pool for pool in pools if not pool.is_disabled), key=lambda pool: pool.name)
    if requested:
        chosen = [_named(enabled, text) for text in requested]
    else:
        chosen = [
            pool
            for pool in enabled
            if pool.assignment_mode is AssignmentMode.AUTOMATIC and selects(pool, node)
        ]
    return tuple(pool for pool in dict.fromkeys(chosen) if use in pool.allowed_uses)


def _named(pools: Sequence[IPPool], text: str) -> IPPool:
    for pool in pools:
        if text in (pool.name, str(pool.cidr)):
            return pool
    known = ", ".join(describe(pool) for pool in pools) or "none"
    raise InvalidInput(
        f"cannot assign from pool {text}: it does not exist or is disabled; enabled are {known}"
    )


def holds(network: IPNetwork, inner: IPNetwork | IPAddress) -> bool:
    """Return whether a network holds another one, or an address, of its own family."""
    if network.version != inner.version:
        return False
    if isinstance(inner, IPAddress):
        return inner in network
    # Both are of one family, which the checker can't see.
    return inner.subnet_of(network)  # type: ignore[arg-type]


def pool_of(pools: Iterable[IPPool], inner: IPNetwork | IPAddress) -> IPPool | None:
    """Return the pool that holds an address or block, if there is one (pools never overlap)."""
    return next((pool for pool in pools if holds(pool.cidr, inner)), None)


def describe(pool: IPPool) -> str:
    """Return a pool's name and range, for a sentence."""
    return f"{pool.name} ({pool.cidr})"
