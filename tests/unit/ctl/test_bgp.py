"""`pycnictl bgp`: sessions, routes and news of an agent, as tables and lines."""

import json
import re
import threading
import time
from typing import Any

import pytest

from pycni.ctl.main import main
from tests.unit.ctl.conftest import Machine

UP = {
    "peer": "10.10.43.25", "node": "node-2", "by": "mesh", "as": 64512, "local_as": 64512,
    "port": 179, "families": ["ipv4 unicast"], "state": "up", "since_s": 7300.0, "received": 2,
    "used": 1, "announced": 3, "stale": 0, "restart_time_s": 120.0, "last_error": "",
}  # fmt: skip
DOWN = UP | {
    "peer": "10.10.0.1", "node": None, "by": "BGPPeer router", "state": "down", "since_s": None,
    "stale": 2, "announced": 0, "last_error": "the peer sent Cease (6,0)",
}  # fmt: skip
LEARNED = {
    "prefix": "192.168.247.0/26", "peer": "10.10.43.25", "node": "node-2",
    "next_hop": "10.10.43.25", "as_path": [65000, 65001], "local_pref": 100, "med": 0,
    "origin": "igp", "communities": [], "is_stale": True, "is_used": True, "reason": "",
}  # fmt: skip
REJECTED = LEARNED | {
    "prefix": "10.0.0.0/8", "peer": "10.10.0.1", "node": None, "as_path": [], "is_stale": False,
    "is_used": False, "reason": "it lies in no pool",
}  # fmt: skip
ANNOUNCED = {
    "prefix": "192.168.39.192/26", "next_hop": "10.10.7.20", "communities": ["1:2", "1:3"],
    "to": ["10.10.43.25"], "withheld": [{"peer": "10.10.0.1", "why": "BGPFilter x rejects it"}],
    "for": "",
}  # fmt: skip
ROUTES = {"learned": [LEARNED, REJECTED], "announced": [ANNOUNCED]}


def item(number: int, what: str = "is up", *, peer: str | None = "10.10.43.25") -> dict[str, Any]:
    return {
        "number": number, "age_s": 1.0, "peer": peer, "node": "node-2" if peer else None,
        "what": what,
    }  # fmt: skip


def news(*items: dict[str, Any], life: float = 1) -> dict[str, Any]:
    return {"life": life, "items": list(items)}


def said(agent: Machine, *words: str, status: int = 0) -> list[str]:
    agent.capsys.readouterr()
    assert main(["bgp", *words, "--run-dir", str(agent.run_dir)]) == status
    return [" ".join(line.split()) for line in agent.capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("since_s", "text"),
    [(0.4, "0 s"), (119.0, "119 s"), (150.0, "2 min"), (7300.0, "2 h"), (180000.0, "2 d")],
)
def test_a_session_is_a_row(agent: Machine, since_s: float, text: str) -> None:
    agent.answers["bgp_peers"] = {"peers": [UP | {"since_s": since_s}]}

    assert said(agent, "peers") == [
        "PEER NODE BY AS STATE SINCE IN USED OUT LAST ERROR",
        f"10.10.43.25 node-2 mesh 64512 up {text} 2 1 3 -",
    ]


def test_a_session_that_is_down_is_a_problem(agent: Machine) -> None:
    agent.answers["bgp_peers"] = {"peers": [UP, DOWN]}

    *_, last = said(agent, "peers", status=3)

    assert last == (
        "10.10.0.1 - BGPPeer router 64512 down, 2 stale - 2 1 0 the peer sent Cease (6,0)"
    )


def test_programs_get_the_whole_answer(agent: Machine) -> None:
    agent.answers |= {"bgp_peers": {"peers": [UP]}, "bgp_routes": ROUTES}

    assert json.loads("".join(said(agent, "peers", "-o", "json"))) == {"peers": [UP]}
    assert json.loads("".join(said(agent, "routes", "-o", "json"))) == ROUTES


def test_routes_in_and_out_have_their_reasons(agent: Machine) -> None:
    agent.answers["bgp_routes"] = ROUTES

    assert said(agent, "routes") == [
        "LEARNED FROM NEXT HOP AS PATH USED",
        "192.168.247.0/26 10.10.43.25 (node-2) 10.10.43.25 65000 65001 yes, stale",
        "10.0.0.0/8 10.10.0.1 10.10.43.25 - it lies in no pool",
        "",
        "ANNOUNCED NEXT HOP COMMUNITIES TO NOT TO, BECAUSE FOR",
        "192.168.39.192/26 10.10.7.20 1:2 1:3 10.10.43.25 10.10.0.1: BGPFilter x rejects it -",
    ]


@pytest.mark.parametrize("wanted", ["192.168.247.10", "192.168.247.0/26", "192.168.247.0/24"])
def test_one_prefix_is_shown_with_what_lies_in_it_or_around(agent: Machine, wanted: str) -> None:
    agent.answers["bgp_routes"] = ROUTES

    found = json.loads("".join(said(agent, "routes", wanted, "-o", "json")))

    assert found == {"learned": [LEARNED], "announced": []}


def test_a_prefix_that_nobody_knows_is_said_so(agent: Machine) -> None:
    agent.answers["bgp_routes"] = ROUTES

    assert main(["bgp", "routes", "fd00::/64", "--run-dir", str(agent.run_dir)]) == 1
    assert agent.capsys.readouterr().err == (
        "no peer announces fd00::/64, and this node announces it to none\n"
    )


def test_a_prefix_that_is_none_is_refused(agent: Machine) -> None:
    assert main(["bgp", "routes", "10.0.0", "--run-dir", str(agent.run_dir)]) == 2
    assert "say an address or a prefix such as" in agent.capsys.readouterr().err


def test_watching_begins_with_the_last_items(agent: Machine) -> None:
    agent.answers["bgp_news"] = news(*(item(number) for number in range(1, 13)))

    lines = said(agent, "watch", "--seconds", "0.1")

    assert len(lines) == 10
    assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d{3} 10\.10\.43\.25 \(node-2\) is up", lines[0])


def test_what_concerns_no_peer_names_none(agent: Machine) -> None:
    agent.answers["bgp_news"] = news(item(1, "ExaBGP begins", peer=None))

    (line,) = said(agent, "watch", "--seconds", "0.1")

    assert line.partition(" ")[2] == "ExaBGP begins"


def test_what_comes_later_is_told_once(agent: Machine) -> None:
    agent.answers["bgp_news"] = news(item(1))

    def go_on() -> None:
        time.sleep(0.3)
        agent.answers["bgp_news"] = news(item(4, "is down"), item(5))
        time.sleep(0.6)
        agent.answers["bgp_news"] = news(*(item(n, f"{n} again") for n in range(1, 8)), life=2)

    thread = threading.Thread(target=go_on)
    thread.start()
    lines = said(agent, "watch", "--seconds", "2", "-o", "json")
    thread.join()

    shown = [json.loads(line) for line in lines]
    assert [one.get("what", one.get("left_out")) for one in shown] == [
        "is up", 2, "is down", "is up", *(f"{n} again" for n in range(1, 8)),
    ]  # fmt: skip


def test_what_came_too_fast_is_counted(agent: Machine) -> None:
    agent.answers["bgp_news"] = news(*(item(number) for number in range(500, 503)))

    def go_on() -> None:
        time.sleep(0.3)
        agent.answers["bgp_news"] = news(item(600))

    thread = threading.Thread(target=go_on)
    thread.start()
    lines = said(agent, "watch", "--seconds", "1.2")
    thread.join()

    assert [line.partition(" ")[2] for line in lines] == [
        *["10.10.43.25 (node-2) is up"] * 3,
        "more came too fast)",
        "10.10.43.25 (node-2) is up",
    ]


def test_without_an_agent_there_is_nothing_to_watch(machine: Machine) -> None:
    assert main(["bgp", "watch", "--run-dir", str(machine.run_dir)]) == 1
    assert "start pycni-agent" in machine.capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "soon", "-1", "1e9", "nan"])
def test_a_time_that_is_none_is_refused(agent: Machine, text: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bgp", "watch", "--seconds", text])
    assert ended.value.code == 2
    assert "no number of seconds" in agent.capsys.readouterr().err
