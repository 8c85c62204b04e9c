"""`pycnictl check` on the lab's nodes: each thing that a first day may break, broken for real."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import DNSUTILS, Cluster, lab, wait_for_answer, wait_until_steady

pytestmark = [pytest.mark.netns, pytest.mark.timeout(300)]

NODE_0, NODE_1, NODE_2 = "node-0", "node-1", "node-2"
WEB_ADDRESS = "192.168.247.10"
ROUTER = "nft add table ip broken && nft add chain ip broken f '{ type filter hook forward priority 0; }'"  # noqa: E501


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("check") as running:
        yield running


@pytest.fixture(autouse=True)
def steady(cluster: Cluster) -> None:
    """Begin with sessions that are up: what the test before has cut off may have ended some."""
    wait_until_steady(cluster)


def check(cluster: Cluster, node: str = NODE_0, *words: str) -> list[dict[str, Any]]:
    """Return what a node's check finds; its exit status must say the same."""
    command = " ".join(("pycnictl check -o json", *words))
    said = cluster.run(node, f"{command}; echo status $?")
    document, _, status = said.rpartition("status ")
    (report,) = json.loads(document)["nodes"]
    assert report["node"] == node
    assert report["unchecked"] == []
    found: list[dict[str, Any]] = report["findings"]
    assert int(status) == (3 if found else 0)
    return found


def kinds(found: list[dict[str, Any]]) -> list[str]:
    return [one["check"] for one in found]


def answers(cluster: Cluster) -> bool:
    said = cluster.run(DNSUTILS, f"ping -c 2 -i 0.2 -W 1 {WEB_ADDRESS}", check=False)
    return " 0 received" not in said


@contextlib.contextmanager
def broken(cluster: Cluster, place: str, command: str, undo: str) -> Iterator[None]:
    cluster.run(place, command)
    try:
        yield
    finally:
        cluster.run(place, undo)


@contextlib.contextmanager
def router_drops(cluster: Cluster, match: str) -> Iterator[None]:
    """Have what is between the nodes drop packets without a word, as a cloud does."""
    rule = f"{ROUTER} && nft add rule ip broken f {match} drop"
    with broken(cluster, "router", rule, "nft delete table ip broken"):
        yield


def test_nothing_is_found_on_healthy_nodes(cluster: Cluster) -> None:
    for node in (NODE_0, NODE_1, NODE_2):
        assert check(cluster, node) == []
    assert cluster.run(NODE_0, "pycnictl check") == "findings: 0 (nodes: node-0)\n"


@pytest.mark.parametrize("program", ["iptables-nft", "iptables-legacy"])
def test_a_forward_policy_that_drops_is_found_and_its_command_mends_it(
    cluster: Cluster, program: str
) -> None:
    policy = f"{program} -P FORWARD"
    with broken(cluster, NODE_0, f"{policy} DROP", f"{policy} ACCEPT; {program} -F FORWARD"):
        assert not answers(cluster)
        (found,) = check(cluster)
        assert found["check"] == "forward-policy"
        assert found["severity"] == "error"

        cluster.run(NODE_0, found["repair"])

        wait_for_answer(cluster, DNSUTILS, WEB_ADDRESS)
        assert check(cluster) == []


def test_a_firewall_of_nftables_is_found_and_its_command_mends_it(cluster: Cluster) -> None:
    make = (
        "nft add table inet fire && nft add chain inet fire across"
        " '{ type filter hook forward priority 5; policy drop; }'"
    )
    with broken(cluster, NODE_0, make, "nft delete table inet fire"):
        assert not answers(cluster)
        (found,) = check(cluster)
        assert "chain inet fire across" in found["what"]

        cluster.run(NODE_0, found["repair"])

        wait_for_answer(cluster, DNSUTILS, WEB_ADDRESS)
        assert check(cluster) == []


def test_a_last_rule_that_rejects_is_found_and_its_command_mends_it(cluster: Cluster) -> None:
    make = "iptables-nft -A FORWARD -j REJECT"
    with broken(cluster, NODE_0, make, "iptables-nft -F FORWARD"):
        assert not answers(cluster)
        (found,) = check(cluster)
        assert found["check"] == "forward-policy"

        cluster.run(NODE_0, found["repair"])

        wait_for_answer(cluster, DNSUTILS, WEB_ADDRESS)
        assert check(cluster) == []


def test_rules_of_an_older_iptables_that_can_not_be_read_are_told(cluster: Cluster) -> None:
    policy = "iptables-legacy -P FORWARD"
    with broken(cluster, NODE_0, f"{policy} DROP", f"{policy} ACCEPT"):
        # As in a container, whose image has no such program: just what the check needs otherwise.
        look = (
            "d=$(mktemp -d); ln -s $(command -v nft) $d/nft; p=$(command -v pycnictl);"
            " PATH=$d /bin/sh $p check; echo status $?; rm -r $d"
        )
        said = cluster.run(NODE_0, look)

    assert "there are tables of the older iptables, and no iptables-legacy on PATH" in said
    assert "status 1" in said


def test_protocol_4_that_the_network_drops_is_found_for_each_peer(cluster: Cluster) -> None:
    with router_drops(cluster, "ip protocol 4"):
        assert not answers(cluster)
        found = check(cluster)

    assert kinds(found) == ["protocol-4", "protocol-4"]
    assert [re.search(r"node-\d", one["what"])[0] for one in found] == [NODE_1, NODE_2]  # type: ignore[index]


def test_tunnelled_packets_that_are_too_large_for_the_network_are_found(cluster: Cluster) -> None:
    with router_drops(cluster, "ip protocol 4 meta length gt 1400"):
        wait_for_answer(cluster, DNSUTILS, WEB_ADDRESS)
        found = check(cluster)

    assert kinds(found) == ["packet-size", "packet-size"]
    assert "tunnelled packets of 1480 bytes" in found[0]["what"]


def test_a_network_narrower_than_its_interfaces_say_is_found(cluster: Cluster) -> None:
    with router_drops(cluster, "meta length gt 1400"):
        found = check(cluster)

    assert kinds(found) == ["packet-size", "packet-size"]
    assert "packets of 1500 bytes don't reach node-1" in found[0]["what"]


def test_a_router_that_says_it_is_narrow_is_found(cluster: Cluster) -> None:
    narrow = "ip link set to0 mtu 1400"
    with broken(cluster, "router", narrow, "ip link set to0 mtu 1500"):
        found = check(cluster, NODE_1)

    assert kinds(found) == ["packet-size"]
    # Plain ones, which a router would cut to size if we let it.
    assert found[0]["what"].startswith("packets of 1500 bytes don't reach node-0 ")


def test_a_node_that_is_away_is_found_and_the_others_are_not(cluster: Cluster) -> None:
    with router_drops(cluster, "ip daddr 10.10.24.89"):
        found = check(cluster)

    assert kinds(found) == ["node-answers"]
    assert "node-1 (10.10.24.89) answers nothing" in found[0]["what"]


def test_a_node_that_answers_bgp_but_no_probe_is_not_called_away(cluster: Cluster) -> None:
    fire = "iptables-nft -A INPUT -p udp -j DROP"
    with broken(cluster, NODE_1, fire, "iptables-nft -F INPUT"):
        found = check(cluster)

    assert kinds(found) == ["probes"]
    assert found[0]["severity"] == "warning"


def test_a_strict_reverse_path_filter_is_found_and_its_command_mends_it(cluster: Cluster) -> None:
    name = "net.ipv4.conf.all.rp_filter"
    with broken(cluster, NODE_0, f"sysctl -qw {name}=1", f"sysctl -qw {name}=0"):
        (found,) = check(cluster)
        assert found["check"] == "rp-filter"

        cluster.run(NODE_0, found["repair"].partition(",")[0])

        assert check(cluster) == []


def test_leftovers_of_another_network_are_found_and_the_commands_mend_it(cluster: Cluster) -> None:
    make = "ip link add flannel.1 type bridge && echo '{}' > $NETCONFPATH/05-flannel.conflist"
    undo = "ip link del flannel.1; rm -f $NETCONFPATH/05-flannel.conflist*; true"
    with broken(cluster, NODE_0, make, undo):
        found = check(cluster)
        assert kinds(found) == ["other-networks", "cni-configuration"]

        for one in found:
            cluster.run(NODE_0, one["repair"].rpartition("then: ")[2])

        assert check(cluster) == []


def test_all_nodes_can_be_asked_in_a_cluster_only(cluster: Cluster) -> None:
    said = cluster.run(NODE_0, "pycnictl check --all 2>&1; echo status $?")

    assert "error: --all reads what agents have written to a cluster" in said
    assert "run `pycnictl check` on each node\nstatus 2" in said
