"""From what peers were told to what they are to be told: the changes, each with those it is for.

Pure.  Peers that are told the same are looked at once, however many they are.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from pycni.model.bgp import AdjRibsOut, Advertisement, Family, Neighbour
from pycni.model.network import IPAddress, IPNetwork


@dataclass(frozen=True, slots=True)
class Change:
    """One prefix to announce, perhaps anew with other attributes, or to withdraw."""

    advertisement: Advertisement
    peers: tuple[IPAddress, ...]
    is_withdrawal: bool


@dataclass(frozen=True, slots=True)
class _Alike:
    """What peers have in common that are told the same."""

    told: frozenset[Advertisement]
    wanted: frozenset[Advertisement]
    families: frozenset[Family]
    is_staying: bool


def changes(
    told: AdjRibsOut,
    wanted: AdjRibsOut,
    *,
    configured: Sequence[Neighbour],
    staying: AbstractSet[IPAddress],
) -> list[Change]:
    """Return what to tell the configured neighbours, withdrawals first.

    One that is not to stay hears nothing new: what it may hear is known of no more.
    """
    alike: dict[_Alike, list[IPAddress]] = {}
    for one in configured:
        peer = one.peer
        group = _Alike(told.to(peer), wanted.to(peer), one.families, peer in staying)
        alike.setdefault(group, []).append(peer)
    takers: dict[tuple[bool, Advertisement], list[IPAddress]] = {}
    for group, peers in alike.items():
        for advertisement in _withdrawn(group):
            takers.setdefault((True, advertisement), []).extend(peers)
        for advertisement in _announced(group):
            takers.setdefault((False, advertisement), []).extend(peers)
    ordered = sorted(takers, key=lambda one: (not one[0], str(one[1])))
    return [Change(one[1], tuple(takers[one]), is_withdrawal=one[0]) for one in ordered]


def _withdrawn(group: _Alike) -> Iterable[Advertisement]:
    # Announced anew it takes its own place (RFC 4271, 3.1): a withdrawal would cut it off first.
    stays = prefixes(group.wanted)
    gone = group.told - group.wanted
    return (a for a in gone if a.family in group.families and a.nlri not in stays)


def _announced(group: _Alike) -> Iterable[Advertisement]:
    new = group.wanted - group.told if group.is_staying else ()
    return (a for a in new if a.family in group.families)


def prefixes(advertisements: Iterable[Advertisement]) -> set[IPNetwork]:
    """Return the prefixes of advertisements, whatever their attributes."""
    return {a.nlri for a in advertisements}
