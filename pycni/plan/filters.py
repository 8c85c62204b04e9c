"""What BGPFilters keep back: from the peers whose BGPPeer names them, and from us.

A filter takes away only.  What it accepts has passed, or has still to pass, every other rule: of
what may come in (`imports`), and of what there is to announce (`exports`).
"""

from fnmatch import fnmatchcase
from typing import assert_never

from pycni.ipam.pools import holds
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources_bgp import BGPPeer, FilterAction, FilterRule, MatchOperator, PrefixMatch
from pycni.plan.inputs import Inputs
from pycni.plan.peering import peering_with, wanted_neighbours


def kept_in(
    inputs: Inputs, peering: BGPPeer, nlri: IPNetwork, *, interface: str | None
) -> str | None:
    """Return why a prefix of ours is not announced to a peering's peers, None when it is.

    `interface` is a pod's, where the prefix is that pod's address; a block has none.
    """
    return _kept_back(inputs, peering, nlri, interface=interface, is_learned=False)


def kept_out(
    inputs: Inputs, peering: BGPPeer, nlri: IPNetwork, *, interface: str | None
) -> str | None:
    """Return why a peering's peers may not tell us a prefix, None when they may.

    `interface` is the one that its packets would leave by.
    """
    return _kept_back(inputs, peering, nlri, interface=interface, is_learned=True)


def missing_filters(inputs: Inputs) -> list[tuple[IPAddress, str, str]]:
    """Return the peers with whom nothing is exchanged: address, BGPPeer and missing BGPFilter."""
    # Hardly ever is one missing, and there may be hundreds of neighbours.
    named = {name for peering in inputs.peers.values() for name in peering.filters}
    if named <= inputs.filters.keys():
        return []
    peerings = ((n.peer, peering_with(inputs, n.peer)) for n in wanted_neighbours(inputs))
    return [
        (address, peering.name, name)
        for address, peering in peerings
        if peering is not None
        for name in _missing(inputs, peering)
    ]


def _missing(inputs: Inputs, peering: BGPPeer) -> list[str]:
    return [name for name in peering.filters if name not in inputs.filters]


def _kept_back(
    inputs: Inputs, peering: BGPPeer, nlri: IPNetwork, *, interface: str | None, is_learned: bool
) -> str | None:
    # What a filter says that is not there, nobody knows: it may be what keeps a network apart.
    for name in _missing(inputs, peering):
        return f"BGPFilter {name}, which BGPPeer {peering.name} names, is not there"
    for name in peering.filters:
        field, rules = _rules(inputs, name, version=nlri.version, is_import=is_learned)
        for index, rule in enumerate(rules):
            if _applies(rule, nlri, interface=interface, is_learned=is_learned):
                if rule.action is FilterAction.ACCEPT:
                    return None
                return f"BGPFilter {name} rejects it ({field}[{index}])"
    return None


def _rules(
    inputs: Inputs, name: str, *, version: int, is_import: bool
) -> tuple[str, tuple[FilterRule, ...]]:
    """Return a filter's rules for a direction and IP version, and what they are called."""
    one = inputs.filters[name]
    if is_import:
        return ("importV4", one.import_v4) if version == 4 else ("importV6", one.import_v6)
    return ("exportV4", one.export_v4) if version == 4 else ("exportV6", one.export_v6)


def _applies(rule: FilterRule, nlri: IPNetwork, *, interface: str | None, is_learned: bool) -> bool:
    if rule.is_for_learned and not is_learned:
        return False
    if rule.interface is not None and not fnmatchcase(interface or "", rule.interface):
        return False
    return rule.prefixes is None or _means(rule.prefixes, nlri)


def _means(prefixes: PrefixMatch, nlri: IPNetwork) -> bool:
    is_inside = holds(prefixes.cidr, nlri) and nlri.prefixlen in prefixes.lengths
    match prefixes.operator:
        case MatchOperator.EQUAL:
            return nlri == prefixes.cidr
        case MatchOperator.NOT_EQUAL:
            return nlri != prefixes.cidr
        case MatchOperator.IN:
            return is_inside
        case MatchOperator.NOT_IN:
            return not is_inside
        case _:
            assert_never(prefixes.operator)
