"""The exercise with IPv6 beside IPv4: the same tables for IPv4, and all of it for IPv6 as well."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from lab_driver import CLONE, CURL, Lab, fresh, is_possible, wait_until
from pycni.lab import tables
from test_lab import GOLDEN, NGINX

pytestmark = [*is_possible, pytest.mark.long, pytest.mark.timeout(240)]

GOLDEN6 = {
    "node-0": """\
fd00:10:10::/64 dev eth0 proto kernel metric 256 pref medium
fd00:192:168::27c0 dev cali12b0eb5c038 metric 1024 pref medium
fd00:192:168::27c1 dev calibe752d56965 metric 1024 pref medium
blackhole fd00:192:168::27c0/122 dev lo proto bird metric 1024 pref medium
fd00:192:168::f700/122 via fd00:10:10::4325 dev eth0 proto bird metric 1024 pref medium
default via fd00:10:10::1 dev eth0 metric 1024 pref medium
""",
    "node-1": """\
fd00:10:10::/64 dev eth0 proto kernel metric 256 pref medium
fd00:192:168::27c0/122 via fd00:10:10::720 dev eth0 proto bird metric 1024 pref medium
fd00:192:168::f700/122 via fd00:10:10::4325 dev eth0 proto bird metric 1024 pref medium
default via fd00:10:10::1 dev eth0 metric 1024 pref medium
""",
    "node-2": """\
fd00:10:10::/64 dev eth0 proto kernel metric 256 pref medium
fd00:192:168::27c0/122 via fd00:10:10::720 dev eth0 proto bird metric 1024 pref medium
fd00:192:168::f70a dev calia5daa4e7a1d metric 1024 pref medium
fd00:192:168::f70b dev cali9ff153fb143 metric 1024 pref medium
blackhole fd00:192:168::f700/122 dev lo proto bird metric 1024 pref medium
default via fd00:10:10::1 dev eth0 metric 1024 pref medium
""",
}
TOPOLOGY = str(CLONE / "examples" / "dual-stack.yaml")
OWN6 = {
    "node-0": "fd00:10:10::720",
    "node-1": "fd00:10:10::2489",
    "node-2": "fd00:10:10::4325",
}
FAR6 = "fd00:192:168::f70a"
"""The address of NGINX, on node-2."""


def differences(lab: Lab, *, golden: dict[str, str], family: int) -> dict[str, str]:
    """Set the kernels' tables against these; empty: equal to the letter, blanks collapsed.

    Link-local lines, one for each interface, are the kernel's own.
    """
    compared = [
        tables.compare(
            node,
            output=lab.execute(node, "ip", f"-{family}", "route"),
            predicted=lines.splitlines(),
            family=family,
        )
        for node, lines in golden.items()
    ]
    return {c.node: "\n".join(tables.side_by_side(c, width=0)) for c in compared if not c.is_equal}


@pytest.fixture(scope="module", params=["bpf", "uml"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    for made in fresh(request.param, "dual"):
        ran = made.up("--topology", TOPOLOGY)
        assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
        made.extra["said"] = ran.stdout
        yield made


def test_ipv4_tables_are_the_exercises_to_the_letter(lab: Lab) -> None:
    assert differences(lab, golden=GOLDEN, family=4) == {}


def test_ipv6_tables_are_these_to_the_letter(lab: Lab) -> None:
    assert differences(lab, golden=GOLDEN6, family=6) == {}


def test_up_shows_both_ip_versions(lab: Lab) -> None:
    said = lab.extra["said"]

    for node in GOLDEN:
        assert f"{node}: ip route equals the prediction" in said
        assert f"{node}: ip -6 route equals the prediction" in said
    assert "ping: 12 of 12 pairs of pods answer" in said
    assert "ping -6: 12 of 12 pairs of pods answer" in said
    assert re.search(r"http://192\.168\.247\.10/ .* sees it come from 192\.168\.84\.128 ", said)
    assert re.search(r"http://\[fd00:192:168::f70a\]/ .* come from fd00:10:10::2489 ", said)


def test_test_verb_asks_everything_of_ipv6_too(lab: Lab) -> None:
    ran = lab.run("test", timeout=120)

    assert ran.returncode == 0, ran.stdout
    assert re.search(
        r"PASS +protocol 4 on the underlay .*10\.10\.7\.20 > 10\.10\.43\.25", ran.stdout
    )
    assert re.search(
        r"PASS +plain IPv6 on the underlay .*IP6 fd00:192:168::27c0 > fd00:192:168::f70a",
        ran.stdout,
    )
    for node in ("node-0", "node-1"):
        assert re.search(
            rf"PASS +{node} asks {NGINX} .*\(IPv6\) +it sees {OWN6[node]}\n", ran.stdout
        )
    assert len(re.findall(r"PASS +node-\d: BGP sessions +4 of 4 up", ran.stdout)) == 3
    assert re.search(r"PASS +1432 bytes over IPv6 pass", ran.stdout)
    assert re.search(r"PASS +1433 bytes over IPv6 do not pass", ran.stdout)
    nat = re.findall(r"(PASS|SKIP) +\S+ asks outside \(NAT, IPv6\) +(.*)", ran.stdout)
    assert len(nat) == 2
    if lab.tunnel == "uml":
        assert {verdict for verdict, _ in nat} == {"SKIP"}
    else:
        assert {verdict for verdict, _ in nat} == {"PASS"}
        assert {seen.split(",")[0] for _, seen in nat} == {
            f"it sees {OWN6['node-0']}",
            f"it sees {OWN6['node-2']}",
        }


def test_every_pair_of_pods_fetches_pages_by_the_pods_own_addresses(lab: Lab) -> None:
    """Nothing rewrites a source between pods, whatever NAT does towards outside."""
    pods = {
        "default/dnsutils": "fd00:192:168::27c0",
        "default/busybox": "fd00:192:168::27c1",
        NGINX: FAR6,
        "default/web": "fd00:192:168::f70b",
    }
    urls = " ".join(f"http://[{address}]/" for address in pods.values())

    for pod, own in pods.items():
        pages = lab.execute(pod, "sh", "-c", f"curl -g -s -m5 {urls}").splitlines()
        assert len(pages) == 4
        assert {page.rpartition(" ")[2] for page in pages} == {own}


def test_show_draws_and_tells_both(lab: Lab) -> None:
    drawn = lab.run("show")
    told = json.loads(lab.run("show", "-o", "json").stdout)

    assert drawn.returncode == 0, drawn.stdout
    assert "calia5daa4e7a1d ----- eth0 192.168.247.10, fd00:192:168::f70a" in drawn.stdout
    assert (
        "10.10.16.1, fd00:10:10::1 ----- eth0 10.10.24.89/20, fd00:10:10::2489/64" in drawn.stdout
    )
    assert drawn.stdout.count("equals the prediction") == 6
    assert [node["address6"] for node in told["nodes"]] == [f"{a}/64" for a in OWN6.values()]
    assert told["nodes"][2]["routes6"] == GOLDEN6["node-2"].splitlines()
    assert told["pods"][3]["address6"] == "fd00:192:168::f70b"


def test_pod_comes_and_goes(lab: Lab) -> None:
    added = lab.run("pod", "add", "default/extra", "--node", "node-2")
    assert added.returncode == 0, added.stderr
    four, six = added.stdout.split()

    reached = lab.run("exec", "default/dnsutils", "--", *CURL, f"http://[{six}]/")
    shown = lab.run("show")
    deleted = lab.run("pod", "del", "default/extra")

    assert (four, six) == ("192.168.247.1", "fd00:192:168::f700")
    assert reached.stdout == "default/extra was asked by fd00:192:168::27c0\n"
    assert shown.returncode == 0, shown.stdout
    assert deleted.returncode == 0, deleted.stderr
    assert differences(lab, golden=GOLDEN6, family=6) == {}


def test_forwarding_goes_on_without_the_agent_and_what_broke_is_mended(lab: Lab) -> None:
    killed = lab.run("agent", "kill", "node-1")
    reached = lab.run(
        "exec", "node-1", "--", "curl", "-g", "-s", "-m5", "http://[fd00:192:168::f70a]/"
    )
    # The gateway of a pod of node-0, gone while no agent looks.
    assert lab.run("agent", "kill", "node-0").returncode == 0
    lab.execute("node-0", "ip", "-6", "address", "flush", "dev", "cali12b0eb5c038")
    lab.execute("default/dnsutils", "ip", "-6", "neigh", "flush", "all")
    cut_off = lab.run("exec", "default/dnsutils", "--", "ping", "-c1", "-W1", FAR6)
    started = [lab.run("agent", "start", node).returncode for node in ("node-0", "node-1")]

    assert cut_off.returncode != 0
    assert (killed.returncode, started) == (0, [0, 0])
    assert OWN6["node-1"] in reached.stdout
    wait_until(lambda: lab.run("show").returncode == 0, seconds=60)
    assert differences(lab, golden=GOLDEN6, family=6) == {}
    lab.wait_for_answer("default/dnsutils", FAR6)


def test_gateway_of_a_pod_that_somebody_removes_is_back_at_once(lab: Lab) -> None:
    gateway = "fe80::ecee:eeff:feee:eeee"
    show = ("ip", "-6", "address", "show", "dev", "cali12b0eb5c038")

    lab.execute("node-0", "ip", "-6", "address", "flush", "dev", "cali12b0eb5c038")

    wait_until(lambda: gateway in lab.execute("node-0", *show), seconds=60)
    lab.execute("default/dnsutils", "ip", "-6", "neigh", "flush", "all")
    lab.wait_for_answer("default/dnsutils", FAR6)


def test_cable_is_pulled_and_plugged_in(lab: Lab) -> None:
    assert lab.run("node", "down", "node-2").returncode == 0
    wait_until(
        lambda: "fd00:192:168::f700/122" not in lab.execute("node-0", "ip", "-6", "route"),
        seconds=60,
    )
    assert lab.run("node", "up", "node-2").returncode == 0

    wait_until(lambda: lab.run("show").returncode == 0, seconds=60)
    lab.wait_for_answer("default/dnsutils", FAR6)


def test_pod_can_not_speak_for_another(lab: Lab) -> None:
    if lab.tunnel == "uml":  # whose kernel has no nftables for IP: the lab has to say so
        assert "no anti-spoofing" in lab.run("show").stdout
        return
    before = counted(lab)
    spoof = "ip -6 addr add fd00:192:168::f70b dev eth0 nodad && "
    spoof += "ping -c2 -W1 -I fd00:192:168::f70b fd00:10:10::1; "
    spoof += "ip -6 addr del fd00:192:168::f70b dev eth0"

    said = lab.run("exec", "default/dnsutils", "--", "sh", "-c", spoof).stdout

    assert "100% packet loss" in said
    assert counted(lab) > before


def counted(lab: Lab) -> int:
    """Return how many spoofed packets node-0 has dropped."""
    status = json.loads(lab.execute("node-0", "pycnictl", "status", "-o", "json"))
    return int(status["drops"]["spoofed"])
