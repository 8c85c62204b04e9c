"""BGPFilter ↔ the `spec` of Calico's documents."""

import re
from typing import Any

from pycni.errors import InvalidInput
from pycni.model.resources_bgp import (
    BGPFilter,
    FilterAction,
    FilterRule,
    MatchOperator,
    PrefixMatch,
)
from pycni.model.schema_fields import Fields, parse_choice

_LENGTHS = {4: range(33), 6: range(129)}
_INTERFACE = re.compile(r"[a-zA-Z0-9_.*-]{1,15}", re.ASCII)
_REMOTE_PEERS = "RemotePeers"


def parse_filter(name: str, spec: Fields) -> BGPFilter:
    """Read a BGPFilter."""
    return BGPFilter(
        name=name,
        export_v4=_rules(spec, "exportV4", version=4),
        import_v4=_rules(spec, "importV4", version=4),
        export_v6=_rules(spec, "exportV6", version=6),
        import_v6=_rules(spec, "importV6", version=6),
    )


def _rules(spec: Fields, name: str, *, version: int) -> tuple[FilterRule, ...]:
    readers = (
        Fields(item, path=f"{spec.at(name)}[{index}]")
        for index, item in enumerate(spec.items(name))
    )
    return tuple(_rule(reader, version) for reader in readers)


def _rule(spec: Fields, version: int) -> FilterRule:
    action = parse_choice(spec.need("action"), FilterAction, path=spec.at("action"))
    source = spec.text("source")
    if source and source != _REMOTE_PEERS:
        raise InvalidInput(f"{spec.at('source')}: {source!r} is not known; write {_REMOTE_PEERS}")
    rule = FilterRule(
        action=action,
        prefixes=_prefixes(spec, version),
        interface=_interface(spec),
        is_for_learned=bool(source),
    )
    spec.finish()
    return rule


def _interface(spec: Fields) -> str | None:
    text = spec.text("interface")
    if text and not _INTERFACE.fullmatch(text):
        raise InvalidInput(
            f"{spec.at('interface')}: {text!r} is no name of an interface: write up to 15 letters,"
            " digits, '_', '.', '-', and '*' for any of them"
        )
    return text or None


def _prefixes(spec: Fields, version: int) -> PrefixMatch | None:
    lengths = spec.child("prefixLength")
    shortest = lengths.integer("min", within=_LENGTHS[version])
    longest = lengths.integer("max", within=_LENGTHS[version])
    lengths.finish()
    operator = spec.text("matchOperator")
    if not spec.text("cidr"):
        if operator or (shortest, longest) != (None, None):
            raise InvalidInput(f"{spec.at('cidr')}: is missing; the rule says how it matches one")
        return None
    cidr = spec.network("cidr")
    if cidr.version != version:
        raise InvalidInput(f"{spec.at('cidr')}: {cidr} is no IPv{version} prefix")
    known = parse_choice(spec.need("matchOperator"), MatchOperator, path=spec.at("matchOperator"))
    try:
        return PrefixMatch(cidr, known, min_length=shortest, max_length=longest)
    except InvalidInput as exc:
        raise InvalidInput(f"{spec.path}: {exc}") from None


def filter_spec(value: BGPFilter) -> dict[str, Any]:
    """Return a BGPFilter's `spec`."""
    rules = {
        "exportV4": value.export_v4,
        "importV4": value.import_v4,
        "exportV6": value.export_v6,
        "importV6": value.import_v6,
    }
    return {name: [_rule_spec(rule) for rule in own] for name, own in rules.items() if own}


def _rule_spec(rule: FilterRule) -> dict[str, Any]:
    said: dict[str, Any] = {"action": rule.action.value}
    if rule.prefixes is not None:
        one = rule.prefixes
        said |= {"matchOperator": one.operator.value, "cidr": str(one.cidr)}
        lengths = {"min": one.min_length, "max": one.max_length}
        lengths = {key: length for key, length in lengths.items() if length is not None}
        if lengths:
            said["prefixLength"] = lengths
    if rule.is_for_learned:
        said["source"] = _REMOTE_PEERS
    if rule.interface is not None:
        said["interface"] = rule.interface
    return said
