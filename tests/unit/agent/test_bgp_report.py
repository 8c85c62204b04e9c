"""What an agent answers about BGP: sessions, routes in and out, news."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pycni.agent import bgp_report
from pycni.agent.facts import Facts
from pycni.agent.messages import BgpTold
from pycni.model.bgp import BgpEvent, Family, Path, PathsChanged, PeerDown, PeerOpened, PeerUp
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer, FilterAction, FilterRule
from pycni.model.service_ranges import ServiceRanges
from tests.unit.plan.samples import OWN, THEIRS, inputs, path

NODE_2 = ip_address("10.10.43.25")
ROUTER = ip_address("10.10.0.1")
NOW = 100.0


class Asked:
    """An agent of node-0, as far as these answers ask it."""

    def __init__(self) -> None:
        self.facts = Facts(inputs())
        self.facts.inputs.bgp = replace(self.facts.inputs.bgp, is_node_mesh_enabled=False)
        self.facts.inputs.peers = {
            "node": BGPPeer("node", NODE_2, 64512),
            "router": BGPPeer("router", ROUTER, 65000, filters=("none",)),
        }
        rule = FilterRule(FilterAction.REJECT)
        self.facts.inputs.filters = {"none": BGPFilter("none", export_v4=(rule,))}

    def tell(self, *events: BgpEvent, at: float = 90.0) -> None:
        for event in events:
            self.facts.feed(BgpTold(event), now=at)

    def come_up(self, *paths: Path) -> None:
        opened = PeerOpened(NODE_2, 120, frozenset({Family.IPV4}))
        self.tell(opened, PeerUp(NODE_2), PathsChanged(NODE_2, announced=paths))

    def answer(self, name: str) -> dict[str, Any]:
        agent = SimpleNamespace(
            facts=self.facts, clock=lambda: NOW, started=3.0, down_since={ROUTER: NOW - 5}
        )
        answer: dict[str, Any] = bgp_report.answers(cast("Any", agent))[name]()
        return answer


@pytest.fixture
def asked() -> Asked:
    return Asked()


def test_a_session_tells_since_when_it_is_and_what_goes_by_it(asked: Asked) -> None:
    asked.come_up(path(THEIRS), path("10.0.0.0/8", "10.10.43.25"))

    router, node = asked.answer("bgp_peers")["peers"]

    assert node == {
        "peer": "10.10.43.25", "node": "node-2", "by": "BGPPeer node", "as": 64512,
        "local_as": 64512, "port": 179, "families": ["ipv4 unicast"], "state": "up",
        "since_s": 10.0, "received": 2, "used": 1, "announced": 1, "stale": 0,
        "restart_time_s": 120.0, "last_error": "",
    }  # fmt: skip
    assert (router["state"], router["since_s"], router["announced"]) == ("down", 5.0, 0)


def test_the_mesh_is_named_as_such(asked: Asked) -> None:
    asked.facts.inputs.bgp = replace(asked.facts.inputs.bgp, is_node_mesh_enabled=True)
    asked.facts.inputs.peers = {}

    rows = asked.answer("bgp_peers")["peers"]

    assert {row["by"] for row in rows} == {"mesh"}
    assert {row["since_s"] for row in rows} == {None}


def test_the_last_error_is_in_words(asked: Asked) -> None:
    asked.come_up()
    asked.tell(PeerDown(NODE_2, "notification received (6,4)", is_graceful=False), at=95.0)

    _, node = asked.answer("bgp_peers")["peers"]

    assert node["last_error"] == "the peer sent Cease: Administrative Reset (6,4)"
    assert (node["state"], node["since_s"]) == ("down", 5.0)


def test_paths_that_are_kept_after_a_session_are_stale(asked: Asked) -> None:
    asked.come_up(path(THEIRS))
    asked.tell(PeerDown(NODE_2, "closing connection", is_graceful=True))

    _, node = asked.answer("bgp_peers")["peers"]

    assert (node["state"], node["received"], node["stale"]) == ("down", 1, 1)


def test_each_path_has_its_attributes_and_its_fate(asked: Asked) -> None:
    asked.come_up(
        path(THEIRS, communities=frozenset({"1:2"}), med=7), path("10.0.0.0/8", "10.10.43.25")
    )

    stranger, block = asked.answer("bgp_routes")["learned"]

    assert block == {
        "prefix": THEIRS, "peer": "10.10.43.25", "node": "node-2", "next_hop": "10.10.43.25",
        "as_path": [], "local_pref": 100, "med": 7, "origin": "igp", "communities": ["1:2"],
        "is_stale": False, "is_used": True, "reason": "",
    }  # fmt: skip
    assert (stranger["is_used"], stranger["reason"]) == (False, "it lies in no pool")


def test_what_goes_out_names_who_hears_it_and_who_does_not(asked: Asked) -> None:
    asked.come_up()

    assert asked.answer("bgp_routes")["announced"] == [
        {
            "prefix": OWN, "next_hop": "10.10.7.20", "communities": [], "to": ["10.10.43.25"],
            "withheld": [
                {"peer": "10.10.0.1", "why": "BGPFilter none rejects it (exportV4[0])"}
            ],
            "for": "",
        }
    ]  # fmt: skip


def test_a_prefix_of_services_says_for_what_it_is_announced(asked: Asked) -> None:
    cluster = ip_network("10.96.0.0/12")
    asked.facts.inputs.bgp = BGPConfiguration(services=ServiceRanges(cluster=(cluster,)))

    told = {row["prefix"]: row["for"] for row in asked.answer("bgp_routes")["announced"]}

    assert told == {OWN: "", "10.96.0.0/12": "serviceClusterIPs"}


def test_what_goes_out_is_in_the_order_of_addresses(asked: Asked) -> None:
    asked.facts.inputs.peers |= {"router": BGPPeer("router", ROUTER, 65000)}
    ranges = tuple(map(ip_network, ("100.96.0.0/16", "20.96.0.0/16", "9.96.0.0/16")))
    services = ServiceRanges(cluster=ranges)
    asked.facts.inputs.bgp = replace(asked.facts.inputs.bgp, services=services)

    prefixes = [row["prefix"] for row in asked.answer("bgp_routes")["announced"]]

    assert prefixes == ["9.96.0.0/16", "20.96.0.0/16", "100.96.0.0/16", OWN]


def test_what_nobody_may_hear_is_told_as_well(asked: Asked) -> None:
    del asked.facts.inputs.peers["node"]

    (row,) = asked.answer("bgp_routes")["announced"]

    assert (row["prefix"], row["to"], row["next_hop"]) == (OWN, [], None)
    assert [one["peer"] for one in row["withheld"]] == ["10.10.0.1"]


def test_news_have_an_age_and_the_node_behind_the_address(asked: Asked) -> None:
    asked.tell(PeerUp(NODE_2), PeerUp(ROUTER), at=98.5)

    assert asked.answer("bgp_news")["life"] == 3.0
    assert asked.answer("bgp_news")["items"] == [
        {"number": 1, "age_s": 1.5, "peer": "10.10.43.25", "node": "node-2", "what": "is up"},
        {"number": 2, "age_s": 1.5, "peer": "10.10.0.1", "node": None, "what": "is up"},
    ]
    assert ip_network(OWN) not in asked.facts.inputs.paths
