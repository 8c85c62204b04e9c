"""What nodes that are gone have left, and when they count as gone.  Pure.

A node is known by its Node object, which its agent writes.  That there is none proves little: on a
host without an agent, where every request is served in process, there never is one.  So a node
counts as gone only where

* it had an object: somebody has seen it, or the node has an address for its tunnel, which agents
  take before they write the object, and nobody else takes;
* there was none at two looks at everything, `GONE_AFTER_S` apart, nor at any look in between;
* nothing was given to it in that time.  Whoever gives addresses for a node that has no object
  serves pods there, whatever became of its object: it is left alone until it has one again;
* the one who looks has an object itself.  Where even that is missing, the datastore is not what it
  was, and nothing follows from it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from pycni.ipam import block as arithmetic
from pycni.ipam.block import Given
from pycni.ipam.books import (
    handle_name,
    held_by_name,
    is_tunnels,
    node_of,
    sound,
)
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.prefix import network_order
from pycni.model.resources import Block, BlockAffinity

GONE_AFTER_S = 900.0
"""How long a node has to be away: as long as Calico waits before it takes an address for leaked."""


class Turn(NamedTuple):
    """An address as it was given once: the next time it has another sequence number."""

    block: IPNetwork
    address: IPAddress
    sequence_number: int | None


@dataclass(frozen=True, slots=True)
class Estate:
    """All that the books have under a node's name: its blocks, and addresses in any block."""

    node: str
    blocks: frozenset[IPNetwork] = frozenset()
    turns: frozenset[Turn] = frozenset()
    tunnels: frozenset[IPNetwork] = frozenset()

    def is_within(self, other: "Estate") -> bool:
        """Return whether all of this was there in another look, too."""
        return self.blocks <= other.blocks and self.turns <= other.turns

    @property
    def cidrs(self) -> list[IPNetwork]:
        """The blocks that it concerns; last the tunnel's, which proves that there was a node."""
        concerned = self.blocks | {turn.block for turn in self.turns}
        return sorted(concerned, key=lambda cidr: (cidr in self.tunnels, *network_order(cidr)))


def estates(blocks: Iterable[Block], affinities: Iterable[BlockAffinity]) -> dict[str, Estate]:
    """Return what each node has; a block that contradicts itself says nothing."""
    listed = list(blocks)
    certain = sound(listed)
    corrupt = {block.cidr for block in listed} - {block.cidr for block in certain}
    owned = {(one.node, one.cidr) for one in affinities if one.cidr not in corrupt}
    owned |= {(block.affinity, block.cidr) for block in certain if block.affinity is not None}
    result: dict[str, Estate] = {}
    for node, cidr in owned:
        one = result.get(node, Estate(node))
        result[node] = replace(one, blocks=one.blocks | {cidr})
    for block in certain:
        for node, given in _by_node(block).items():
            one = result.get(node, Estate(node))
            is_tunnel = any(is_tunnels(address.attribute) for address in given)
            result[node] = replace(
                one,
                turns=one.turns.union(_turn(block, address) for address in given),
                tunnels=one.tunnels | ({block.cidr} if is_tunnel else set()),
            )
    return result


def _by_node(block: Block) -> dict[str, list[Given]]:
    result: dict[str, list[Given]] = {}
    for one in arithmetic.given(block):
        node = node_of(one.attribute)
        if node is not None:
            result.setdefault(node, []).append(one)
    return result


def _turn(block: Block, one: Given) -> Turn:
    return Turn(block.cidr, one.address, one.sequence_number)


class Absences:
    """Remembers which nodes have had an object, and since when which have had none."""

    __slots__ = ("_absent", "_had_object", "_living", "_node", "_nodes")

    def __init__(self, node: str) -> None:
        self._node = node
        self._nodes: frozenset[str] = frozenset()
        self._had_object: set[str] = set()
        self._living: set[str] = set()
        self._absent: dict[str, tuple[float, Estate]] = {}

    def note(self, nodes: frozenset[str]) -> None:
        """Note which Node objects there are now."""
        self._nodes = nodes
        self._had_object |= nodes
        self._living -= nodes
        if self._node not in nodes:
            self._absent.clear()
        self._absent = {node: one for node, one in self._absent.items() if node not in nodes}

    def gone(self, found: Mapping[str, Estate], *, now: float) -> list[Estate]:
        """Return what nodes that count as gone have; `found` was read before the latest `note`."""
        if self._node not in self._nodes:
            return []
        self._had_object |= {node for node, estate in found.items() if estate.tunnels}
        candidates = found.keys() & self._had_object - self._nodes - {self._node}
        for node in candidates:
            since, before = self._absent.setdefault(node, (now, found[node]))
            if not found[node].is_within(before):
                self._living.add(node)
            self._absent[node] = (since, found[node])
        self._absent = {node: one for node, one in self._absent.items() if node in candidates}
        return [
            estate
            for node, (since, estate) in sorted(self._absent.items())
            if node not in self._living and now - since >= GONE_AFTER_S
        ]


@dataclass(frozen=True, slots=True)
class Taking:
    """One block without what a node that is gone had there.

    `block` is None where nothing is left of it.  `handles` are the names of those that held
    something, with how many addresses of this block each holds now.
    """

    block: Block | None
    handles: Mapping[str, int]


def take_from(block: Block, estate: Estate, *, resting_since: str | None) -> Taking | None:
    """Take a node's addresses, and its ownership, from a block as it is now.

    None: the node has something there that it did not have when it was looked at, so that it lives.
    Addresses of others stay; then the block has no owner any more, and goes with the last of them.
    """
    own = _by_node(block).get(estate.node, [])
    is_owner = block.affinity == estate.node
    if not estate.turns.issuperset(_turn(block, one) for one in own) or (
        is_owner and block.cidr not in estate.blocks
    ):
        return None
    wanted = {one.address: one.sequence_number for one in own}
    # What was the owner's own goes with its block, and has rested long enough by now.
    after = arithmetic.release(
        block, wanted, resting_since=None if is_owner else resting_since
    ).block
    handles = _left_to({handle_name(one.attribute.handle_id or "") for one in own}, after)
    if is_owner and arithmetic.is_held(after):
        return Taking(arithmetic.without_affinity(after), handles)
    is_over = is_owner or (after.affinity is None and arithmetic.is_empty(after))
    return Taking(None if is_over else after, handles)


def _left_to(names: Iterable[str], block: Block) -> dict[str, int]:
    held = held_by_name([block])
    return {name: len(held.get(name, {}).get(block.cidr, ())) for name in sorted(names) if name}
