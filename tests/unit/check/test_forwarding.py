"""Firewalls whose forward chains drop: which of them keep pods' packets."""

from ipaddress import ip_network
from typing import Any

import pytest

from pycni.check import forwarding
from pycni.check.forwarding import Table

POOL = ip_network("192.168.0.0/16")
POOL6 = ip_network("fd00:192:168::/112")
HEAD = {"metainfo": {"version": "1.0.6"}}
COUNTER = {"counter": {"packets": 0, "bytes": 0}}
ACCEPT: dict[str, Any] = {"accept": None}


def chain(family: str = "ip", policy: str = "drop", hook: str = "forward") -> dict[str, Any]:
    about = {"family": family, "table": "filter", "name": "FORWARD", "type": "filter"}
    return {"chain": {**about, "hook": hook, "policy": policy}}


def rule(*expressions: dict[str, Any], of: str = "FORWARD") -> dict[str, Any]:
    return {"rule": {"family": "ip", "table": "filter", "chain": of, "expr": list(expressions)}}


def meta(key: str, right: object = "cali*", op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": {"meta": {"key": key}}, "right": right}}


def payload(field: str, prefix: object) -> dict[str, Any]:
    left = {"payload": {"protocol": "ip", "field": field}}
    return {"match": {"op": "==", "left": left, "right": prefix}}


def net(text: str) -> dict[str, Any]:
    address, length = text.split("/")
    return {"prefix": {"addr": address, "len": int(length)}}


def table(*rules: dict[str, Any], family: str = "ip") -> Table:
    listing = {"nftables": [HEAD, chain(family), *rules]}
    return forwarding.parse_nft(listing, family=family, name="filter")


def test_only_forward_chains_of_ip_are_looked_into() -> None:
    bare = {"chain": {"family": "inet", "table": "pycni", "name": "from_pod"}}
    others = [chain("inet", hook="input"), chain("bridge")]

    found = forwarding.forward_chains({"nftables": [HEAD, bare, *others, chain("ip")]})

    assert found == [("ip", "filter", "FORWARD")]


@pytest.mark.parametrize(
    ("rules", "dropping"),
    [
        ([], ()),
        ([rule(meta("iifname"), {"drop": None})], ()),
        ([rule({"drop": None}), rule(ACCEPT)], ()),
        ([rule(COUNTER, {"reject": {"type": "icmpx"}})], ("FORWARD",)),
        ([rule({"drop": None})], ("FORWARD",)),
        ([rule(COUNTER, {"xt": {"type": "target", "name": "REJECT"}})], ("FORWARD",)),
        ([rule({"xt": {"type": "match", "name": "comment"}}, {"drop": None})], ("FORWARD",)),
        ([rule({"xt": {"type": "match", "name": "mark"}}, {"drop": None})], ()),
    ],
)
def test_a_chain_that_accepts_may_drop_by_its_last_rule(
    rules: list[dict[str, Any]], dropping: tuple[str, ...]
) -> None:
    listing = {"nftables": [HEAD, chain("ip", "accept"), *rules]}

    assert forwarding.parse_nft(listing, family="ip", name="filter").dropping == dropping


def test_what_firewalld_drops_is_mended_by_its_own_means() -> None:
    listing = {"nftables": [HEAD, chain("inet")]}
    firewalld = forwarding.parse_nft(listing, family="inet", name="firewalld")

    (found,) = forwarding.judge([firewalld], [POOL])

    assert found.repair.startswith("systemctl disable --now firewalld")


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param([rule(COUNTER, ACCEPT)], id="all"),
        pytest.param([rule(meta("iifname"), ACCEPT), rule(meta("oifname"), ACCEPT)], id="names"),
        pytest.param([rule(meta("iifname", "c*"), ACCEPT), rule(meta("oifname", "*"), ACCEPT)],
                     id="beginnings-of-names"),
        pytest.param(
            [
                rule(payload("saddr", net("192.168.0.0/16")), ACCEPT),
                rule(payload("daddr", net("192.0.0.0/8")), ACCEPT),
            ],
            id="addresses",
        ),
        pytest.param(
            [
                rule({"jump": {"target": "A"}}),
                rule({"goto": {"target": "FORWARD"}}, of="A"),
                rule({"comment": "x"}, ACCEPT, of="A"),
            ],
            id="in-another-chain",
        ),
    ],
)  # fmt: skip
def test_rules_that_accept_all_of_pods_both_ways_are_enough(rules: list[dict[str, Any]]) -> None:
    assert forwarding.judge([table(*rules)], [POOL]) == []


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param([], id="none"),
        pytest.param([rule(meta("iifname"), ACCEPT)], id="one-way"),
        pytest.param([rule(meta("iifname", "docker0"), ACCEPT)], id="another-interface"),
        pytest.param([rule(meta("iifname", "cali", op="!="), ACCEPT)], id="not"),
        pytest.param([rule(meta("mark", 16), ACCEPT)], id="marked"),
        pytest.param([rule({"xt": None}, ACCEPT)], id="something-of-iptables"),
        pytest.param([rule(payload("saddr", net("10.0.0.0/8")), ACCEPT)], id="other-addresses"),
        pytest.param([rule(payload("saddr", "192.168.0.1"), ACCEPT)], id="one-address"),
        pytest.param([rule(payload("saddr", net("::/0")), ACCEPT)], id="another-version"),
        pytest.param([rule({"drop": None})], id="drop"),
        pytest.param(
            [rule({"jump": {"target": "A"}}), rule({"goto": {"target": "FORWARD"}}, of="A")],
            id="in-a-circle",
        ),
        pytest.param([rule(meta("iifname", {"set": ["a", "b"]}), ACCEPT)], id="set"),
    ],
)
def test_whatever_accepts_less_leaves_a_finding(rules: list[dict[str, Any]]) -> None:
    (found,) = forwarding.judge([table(*rules)], [POOL])

    assert found.check == "forward-policy"
    assert "chain ip filter FORWARD (nft)" in found.what
    assert "nft insert rule ip filter FORWARD iifname" in found.repair


def test_a_match_without_a_left_side_by_name_is_another() -> None:
    odd = {"match": {"op": "==", "left": "x", "right": "cali*"}}

    assert forwarding.judge([table(rule(odd, ACCEPT))], [POOL])


def test_chains_of_a_version_without_pools_are_nobodys_business() -> None:
    assert forwarding.judge([table(family="ip6")], [POOL]) == []
    assert len(forwarding.judge([table(family="ip6"), table(family="inet")], [POOL6])) == 2


LEGACY = """\
-P INPUT ACCEPT
-P FORWARD DROP
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
"""


@pytest.mark.parametrize(
    "rules",
    [
        "-A DOCKER-USER -i cali+ -j ACCEPT\n-A FORWARD -o cali+ -m comment --comment 'a' -j ACCEPT",
        "-A FORWARD -s 192.0.0.0/8 -j ACCEPT\n-A DOCKER-USER -d 192.0.0.0/8 -g A\n-A A -j ACCEPT",
    ],
)
def test_rules_of_the_older_iptables_count(rules: str) -> None:
    parsed = forwarding.parse_iptables(LEGACY + rules, program="iptables-legacy", family="ip")

    assert forwarding.judge([parsed], [POOL]) == []


@pytest.mark.parametrize(
    "rules",
    [
        "",
        "-A FORWARD -i docker0 -j ACCEPT",
        "-A FORWARD ! -i cali+ -j ACCEPT",
        "-A FORWARD -s nonsense -j ACCEPT",
        "-A FORWARD -m conntrack --ctstate RELATED -j ACCEPT",
    ],
)
def test_an_older_iptables_that_drops_is_found_with_its_own_command(rules: str) -> None:
    parsed = forwarding.parse_iptables(LEGACY + rules, program="iptables-legacy", family="ip")

    (found,) = forwarding.judge([parsed], [POOL])

    assert found.repair.startswith("iptables-legacy -I FORWARD -i cali+ -j ACCEPT && ")


def test_an_older_iptables_that_rejects_at_the_end_is_found() -> None:
    text = "-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited"
    parsed = forwarding.parse_iptables(text, program="iptables-legacy", family="ip")

    assert len(forwarding.judge([parsed], [POOL])) == 1


def test_an_older_iptables_that_accepts_is_none() -> None:
    parsed = forwarding.parse_iptables("-P FORWARD ACCEPT", program="x", family="ip")

    assert forwarding.judge([parsed], [POOL]) == []
