"""Where one address stands: in which pool and block, whose, and how others learn the way to it.

Pure: reads what is written, and decides nothing that is stored.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from pycni.ipam import block as arithmetic
from pycni.ipam.block import Given
from pycni.ipam.books import Books, corruption_of, is_tunnels, node_of
from pycni.ipam.pools import holds, pool_of
from pycni.ipam.reserved import Reserved
from pycni.model.network import IPAddress
from pycni.model.resources import AffinityState, Block, IPPool

_STAMP = "%Y-%m-%dT%H:%M:%SZ"


class Standing(Enum):
    """What may be said of an address."""

    HELD = "in use"
    RESTING = "resting"
    RESERVED = "reserved"
    FREE = "free"
    OUTSIDE = "in no pool"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where an address stands; `given` is who has it, `released_at` since when it rests."""

    address: IPAddress
    standing: Standing
    pool: IPPool | None = None
    block: Block | None = None
    given: Given | None = None
    released_at: str | None = None

    @property
    def node(self) -> str | None:
        """The node that has the address in use."""
        return None if self.given is None else node_of(self.given.attribute)

    @property
    def is_borrowed(self) -> bool:
        """Whether a node other than the owner of its block has it."""
        if self.block is None or self.node is None:
            return False
        return self.block.affinity != self.node


def locate(address: IPAddress, *, books: Books, reserved: Reserved) -> Whereabouts:
    """Find an address in the books."""
    pool = pool_of(books.pools, address)
    block = next((one for one in books.blocks if holds(one.cidr, address)), None)
    if block is not None and corruption_of(block):
        return Whereabouts(address, Standing.UNKNOWN, pool, block)
    if block is not None:
        for one in arithmetic.given(block):
            if one.address == address:
                return Whereabouts(address, Standing.HELD, pool, block, one)
        for resting, since in arithmetic.resting(block):
            if resting == address:
                return Whereabouts(address, Standing.RESTING, pool, block, released_at=since)
    if pool is None and block is None:
        return Whereabouts(address, Standing.OUTSIDE)
    standing = Standing.RESERVED if address in reserved else Standing.FREE
    return Whereabouts(address, standing, pool, block)


def rests_until(released_at: str, *, cooldown_s: int) -> str:
    """Return when an address may be given again; as it was written where that is no time."""
    try:
        since = datetime.strptime(released_at, _STAMP)  # noqa: DTZ007  # both ends are in UTC
    except ValueError:
        return released_at
    return (since + timedelta(seconds=cooldown_s)).strftime(_STAMP)


def borrowed(blocks: Iterable[Block]) -> list[tuple[Block, Given]]:
    """Return the addresses that nodes have in others' blocks, each with its block."""
    return [
        (block, one)
        for block in blocks
        if not corruption_of(block)
        for one in arithmetic.given(block)
        if node_of(one.attribute) not in (None, block.affinity)
    ]


def advertised(where: Whereabouts, *, books: Books) -> str:
    """Return how other nodes learn the way to an address, as a phrase."""
    if where.pool is None:
        return "not at all: it lies in no pool"
    if where.pool.disable_bgp_export:
        return f"not at all: pool {where.pool.name} has disableBGPExport"
    ways = []
    if where.is_borrowed and not _is_tunnels(where):
        ways.append(
            f"{where.address}/{where.address.max_prefixlen} by {where.node}, which borrows it"
        )
    if where.block is not None and _is_confirmed(where.block, books):
        ways.append(f"{where.block.cidr} by {where.block.affinity}, whose block it is")
    return "; ".join(ways) or "not at all: no node owns its block for certain"


def _is_tunnels(where: Whereabouts) -> bool:
    # Nodes advertise what their pods have; a tunnel's address goes with its block alone.
    return where.given is not None and is_tunnels(where.given.attribute)


def _is_confirmed(block: Block, books: Books) -> bool:
    return any(
        (affinity.node, affinity.cidr) == (block.affinity, block.cidr)
        and affinity.state is AffinityState.CONFIRMED
        and not affinity.is_deleted
        for affinity in books.affinities
    )
