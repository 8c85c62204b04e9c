"""BGPFilters as people write them, and as they are stored."""

from ipaddress import ip_network
from typing import Any

import pytest

from pycni.errors import InvalidInput
from pycni.model.resources_bgp import (
    BGPFilter,
    FilterAction,
    FilterRule,
    MatchOperator,
    PrefixMatch,
)
from pycni.model.schema import from_stored, to_stored
from pycni.model.schema_yaml import parse_document, to_document

ACCEPT, REJECT = FilterAction.ACCEPT, FilterAction.REJECT
SPEC = {
    "exportV4": [
        {
            "action": "Accept",
            "matchOperator": "In",
            "cidr": "10.0.0.0/8",
            "prefixLength": {"min": 16, "max": 24},
            "interface": "cali*",
        },
        {"action": "Reject", "source": "RemotePeers"},
    ],
    "importV4": [
        {
            "action": "Reject",
            "matchOperator": "NotIn",
            "cidr": "10.0.0.0/8",
            "prefixLength": {"max": 26},
        }
    ],
    "exportV6": [{"action": "Reject", "matchOperator": "NotEqual", "cidr": "fd00::/48"}],
    "importV6": [{"action": "Accept", "matchOperator": "Equal", "cidr": "fd00::/48"}],
}
VALUE = BGPFilter(
    "x",
    export_v4=(
        FilterRule(
            ACCEPT,
            PrefixMatch(ip_network("10.0.0.0/8"), MatchOperator.IN, 16, 24),
            interface="cali*",
        ),
        FilterRule(REJECT, is_for_learned=True),
    ),
    import_v4=(
        FilterRule(
            REJECT, PrefixMatch(ip_network("10.0.0.0/8"), MatchOperator.NOT_IN, max_length=26)
        ),
    ),
    export_v6=(FilterRule(REJECT, PrefixMatch(ip_network("fd00::/48"), MatchOperator.NOT_EQUAL)),),
    import_v6=(FilterRule(ACCEPT, PrefixMatch(ip_network("fd00::/48"), MatchOperator.EQUAL)),),
)


def document(**spec: object) -> dict[str, Any]:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "BGPFilter",
        "metadata": {"name": "x"},
        "spec": spec,
    }


def test_what_is_written_becomes_a_filter_and_is_shown_as_it_was_written() -> None:
    assert parse_document(document(**SPEC)) == VALUE
    assert to_document(VALUE) == document(**SPEC)


def test_what_is_stored_is_calicos_document() -> None:
    stored = to_stored(VALUE)

    assert stored == document(**SPEC) | {"apiVersion": "crd.projectcalico.org/v1"}
    assert from_stored(BGPFilter, stored) == VALUE


def test_a_filter_may_say_nothing_and_empty_fields_mean_nothing() -> None:
    rule = {"action": "Accept", "cidr": "", "matchOperator": "", "source": "", "interface": ""}

    assert parse_document(document()) == BGPFilter("x")
    assert parse_document(document(exportV4=[rule | {"prefixLength": {}}])) == BGPFilter(
        "x", export_v4=(FilterRule(ACCEPT),)
    )


IN = {"action": "Accept", "matchOperator": "In", "cidr": "10.0.0.0/16"}


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({}, r"spec.importV4\[0\].action: is missing"),
        ({"action": "Drop"}, "action: 'Drop' is none of Accept, Reject"),
        ([], r"spec.importV4\[0\]: must be a mapping"),
        (IN | {"cidr": None}, r"importV4\[0\].cidr: is missing; the rule says how it matches one"),
        ({"action": "Accept", "prefixLength": {"min": 8}}, "cidr: is missing"),
        (IN | {"matchOperator": None}, r"importV4\[0\].matchOperator: is missing"),
        (IN | {"matchOperator": "Has"}, "'Has' is none of Equal, NotEqual, In, NotIn"),
        (IN | {"cidr": "10.0.0.1/16"}, "cidr: '10.0.0.1/16' is no CIDR"),
        (IN | {"cidr": "fd00::/16"}, "cidr: fd00::/16 is no IPv4 prefix"),
        (IN | {"prefixLength": {"min": 33}}, "prefixLength.min: 33 is outside 0 to 32"),
        (IN | {"prefixLength": {"mid": 3}}, "prefixLength.mid: unknown or unsupported field"),
        (IN | {"prefixLength": {"min": 24, "max": 20}}, "leaves no prefix of 10.0.0.0/16: widen"),
        (IN | {"prefixLength": {"max": 8}}, r"importV4\[0\]: prefixLength leaves no prefix"),
        (
            IN | {"matchOperator": "Equal", "prefixLength": {"min": 20}},
            "prefixLength belongs to In and NotIn, not Equal",
        ),
        (IN | {"source": "Nodes"}, "source: 'Nodes' is not known; write RemotePeers"),
        (IN | {"interface": "a b"}, "interface: 'a b' is no name of an interface"),
        (IN | {"peerType": "eBGP"}, r"importV4\[0\].peerType: unknown or unsupported field"),
    ],
)
def test_mistakes_in_a_rule_are_refused_with_the_path_of_the_field(
    rule: object, words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        parse_document(document(importV4=[rule]))
