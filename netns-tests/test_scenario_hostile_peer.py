"""A peer that says what it must not: nobody is hurt, neither the node nor its other sessions."""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

import hostile_peer
from cluster import DNSUTILS, Cluster, eventually, lab

pytestmark = [
    pytest.mark.netns, pytest.mark.peers, pytest.mark.long, pytest.mark.timeout(300),
]  # fmt: skip

SCRIPT = Path(hostile_peer.__file__).read_text(encoding="utf-8")
STRANGER, STRANGERS_AS = "203.0.113.10", "65000"
NODE = "10.10.7.20"
MOST_KB = 64_000
"""By which agent and ExaBGP together may grow; 10,000 paths are 8 MB."""
CEASES = {
    "unknown type": [1, 3],
    "prefix of 33 bits": [3, 10],
    "prefix that ends early": [3, 10],
    "attributes longer than the message": [3, 1],
    "withdrawn longer than the message": [3, 1],
    "open again": [2, 1],
}
"""Error codes of RFC 4271; at other messages ExaBGP hangs up, or goes on without the path."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with lab("hostile-peer") as running:
        peering = {"node": "node-0", "peerIP": STRANGER, "asNumber": int(STRANGERS_AS)}
        document = {
            "apiVersion": "projectcalico.org/v3",
            "kind": "BGPPeer",
            "metadata": {"name": "stranger"},
            "spec": peering,
        }
        running.run("node-0", f"pycnictl apply -f - <<'X'\n{yaml.safe_dump(document)}\nX")
        yield running


@contextlib.contextmanager
def unhurt(cluster: Cluster, *, seconds: float) -> Iterator[None]:
    """Whatever is done meanwhile: the same processes, sessions and routes, hardly more memory."""
    before = state(cluster)
    with cluster.stream(DNSUTILS, "192.168.247.10", seconds=seconds) as losses:
        yield
    after = state(cluster)
    grown = after.pop("memory") - before.pop("memory")
    assert after == before
    assert grown < MOST_KB
    assert losses[0].lost == 0


def state(cluster: Cluster) -> dict[str, Any]:
    status = cluster.status("node-0")
    # Not by a pattern that the shell with this very command has in its own line.
    agent = cluster.run("node-0", "pgrep -f '[p]ycni.agent --config .*/node-0/'").split()
    others = [p for p in status["peers"] if p["peer"] != STRANGER]
    resident = f"grep -h VmRSS /proc/{status['bgp_pid']}/status /proc/{agent[0]}/status"
    sizes = [int(line.split()[1]) for line in cluster.run("node-0", resident).splitlines()]
    return {
        "agent": agent,
        "exabgp": status["bgp_pid"],
        "others": others,
        "problems": [one for one in status["problems"] if STRANGER not in one],
        "routes": cluster.routes("node-0"),
        "operations": status["operations"],
        "memory": sum(sizes),
    }


def attack(cluster: Cluster, *words: str) -> dict[str, Any]:
    said = cluster.lab(
        "exec", "outside", "--", "python3", "-c", SCRIPT, STRANGER, NODE, STRANGERS_AS, *words,
        timeout=180,
    )  # fmt: skip
    result: dict[str, Any] = json.loads(said.splitlines()[-1])
    return result


def paths_of_stranger(cluster: Cluster) -> int:
    (found,) = [p["paths"] for p in cluster.status("node-0")["peers"] if p["peer"] == STRANGER]
    return int(found)


def reasons(cluster: Cluster) -> dict[str, str]:
    """What the node says of each of the stranger's paths."""
    said = json.loads(cluster.run("node-0", "pycnictl routes -o json"))
    return {one["prefix"]: one["used"] for one in said["paths"] if one["peer"] == STRANGER}


def test_nothing_that_it_announces_gets_into_the_kernel(cluster: Cluster, tmp_path: Path) -> None:
    wanted = len(hostile_peer.FOREIGN) + len(hostile_peer.HURTFUL)
    enough = tmp_path / "enough"
    with unhurt(cluster, seconds=31), ThreadPoolExecutor(1) as pool:
        # Until the reasons of ten thousand paths were asked for while they are there.
        ending = pool.submit(attack, cluster, "announce", "120", str(enough))
        try:
            eventually(
                lambda: paths_of_stranger(cluster) == wanted,
                within_s=60,
                what=lambda: paths_of_stranger(cluster),
            )
            why = reasons(cluster)
        finally:
            enough.touch()
        assert ending.result() == {"up": True, "notification": [], "closed": False}

    assert "yes" not in why.values()
    assert why["192.168.39.192/26"] == "192.168.39.192/26 is a block of this node"
    assert why["10.10.7.20/32"] == "10.10.7.20/32 is an address or subnet of this node (eth0)"
    assert why["127.0.0.1/32"] == "127.0.0.1/32 is an address or subnet of this node (lo)"
    assert why["0.0.0.0/0"] == why["224.0.0.0/4"] == "it lies in no pool"
    eventually(lambda: paths_of_stranger(cluster) == 0, within_s=30)


def test_a_message_that_is_none_ends_at_most_its_own_session(cluster: Cluster) -> None:
    names = list(hostile_peer.bad_messages(b""))
    with unhurt(cluster, seconds=30):
        # What it answers is waited for; what it doesn't answer has a moment to do harm.
        answers = {
            name: attack(cluster, "send", name, "30" if name in CEASES else "1.5") for name in names
        }

    assert [name for name, answer in answers.items() if not answer["up"]] == []
    assert {name: said for name in names if (said := answers[name]["notification"])} == CEASES


def test_a_hundred_flaps_a_second_change_nothing(cluster: Cluster) -> None:
    with unhurt(cluster, seconds=32):
        answer = attack(cluster, "flap", "30")

    assert answer == {"up": True, "notification": [], "closed": False}


def test_sessions_that_come_and_go_without_end_keep_nobody_else_out(cluster: Cluster) -> None:
    with unhurt(cluster, seconds=10):
        assert attack(cluster, "rush", "8")["sessions"] > 3
