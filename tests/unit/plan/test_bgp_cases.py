"""Cases of Calico's tests of BGP, in situations of ours: docs/bgp-cases.md says which is whose."""

from typing import Any

import pytest

from pycni.errors import InvalidInput
from pycni.model.schema_yaml import parse_document
from tests.unit.plan.bgp_stories import (
    Case,
    document,
    expected_tells,
    facts,
    hears,
    refusals,
    sessions,
    stories,
    tells,
)


def play(case: Case) -> None:
    """Compare what each node of a case sees with what it is to see."""
    for node, then in case.then.items():
        made = facts(case.given, node=node)

        assert sessions(made) == then["sessions"], node
        assert tells(made) == expected_tells(made, then.get("tells", {})), node
        heard = then.get("hears", {})
        assert {peer: hears(made, peer) for peer in heard} == heard, node


def named(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", stories("mesh"), ids=named)
def test_the_mesh(case: Case) -> None:
    play(case)


@pytest.mark.parametrize("case", stories("peers"), ids=named)
def test_peers(case: Case) -> None:
    play(case)


@pytest.mark.parametrize("case", stories("filters"), ids=named)
def test_filters(case: Case) -> None:
    play(case)


@pytest.mark.parametrize("one", refusals(), ids=lambda one: str(one["name"]))
def test_what_is_refused_by_name(one: dict[str, Any]) -> None:
    name = one.get("object", "default")

    with pytest.raises(InvalidInput) as refused:
        parse_document(document(one["kind"], name, one["spec"]))

    assert one["says"] in str(refused.value)


@pytest.mark.parametrize(
    ("text", "session"),
    [
        ("192.0.2.7", "192.0.2.7 port 179 as 64701"),
        ("192.0.2.7:1790", "192.0.2.7 port 1790 as 64701"),
        ("2001:0db8:0000:0000:0000:0000:00a0:0007", "2001:db8::a0:7 port 179 as 64701"),
        ("2001:db8::a0:7", "2001:db8::a0:7 port 179 as 64701"),
        ("[2001:0db8:0:0:0:0:a0:7]:1790", "2001:db8::a0:7 port 1790 as 64701"),
    ],
)
def test_ways_to_write_a_peer(text: str, session: str) -> None:
    given = {
        "nodes": {"ash": {"bgp": {"ipv4Address": "172.20.0.2/16", "ipv6Address": "fd20::2/64"}}},
        "peers": {"router": {"peerIP": text, "asNumber": 64701}},
    }

    assert sessions(facts(given, node="ash")) == [session]


@pytest.mark.parametrize(
    "text", ["192.0.2.300", "192.0.2.300:179", "2001:0db8:0000:0000:0000:0000:00a0:0007:1790"]
)
def test_what_is_no_peer(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"spec\.peerIP: .* is no IP address"):
        parse_document(document("BGPPeer", "router", {"peerIP": text, "asNumber": 64701}))
