"""Topologies with others' routers: what was predicted is what comes of real BIRDs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab_driver import CLONE, Lab, fresh, is_possible, wait_until

pytestmark = [*is_possible, pytest.mark.peers, pytest.mark.timeout(300)]


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    for lab in fresh("bpf", "routers"):
        ran = lab.up("--topology", str(CLONE / "examples" / f"{request.param}.yaml"))
        assert ran.returncode == 0, ran.stdout + ran.stderr
        yield lab


def routes(lab: Lab, node: str) -> list[str]:
    return [line.strip() for line in lab.execute(node, "ip", "route").splitlines()]


@pytest.mark.parametrize("lab", ["route-reflectors", "tor"], indirect=True)
def test_nodes_route_as_predicted_and_all_pods_answer(lab: Lab) -> None:
    ran = lab.run("test")

    assert ran.returncode == 0, ran.stdout
    assert " 0 FAIL" in ran.stdout


@pytest.mark.parametrize("lab", ["tor"], indirect=True)
def test_a_rack_goes_on_with_one_router_of_two(lab: Lab) -> None:
    both = ["nexthop via 10.40.1.2 dev eth0 weight 1", "nexthop via 10.40.1.3 dev eth0 weight 1"]
    before = routes(lab, "left-0")
    at = before.index("172.25.31.192/26 proto bird")
    assert before[at + 1 : at + 3] == both
    pod = "172.25.31.192"

    lab.execute("tor-left-a", "sh", "-c", "kill $(cat /run/pycni-lab/*/tor-left-a/bird.pid)")

    one = "172.25.31.192/26 via 10.40.1.3 dev eth0 proto bird"
    wait_until(lambda: one in routes(lab, "left-0"))
    # Those at the other end hear of it in their own time.
    lab.wait_for_answer("default/one", pod)
