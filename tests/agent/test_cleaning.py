"""What an agent leaves on a host is taken away when it won't come back, and nothing else."""

import asyncio
import json
import os
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from pycni.agent.claim import claim_run_dir
from pycni.agent.cleaning import Cleaned, clean
from pycni.config import AgentConfig
from pycni.endpoints import FileEndpoints
from pycni.errors import TryAgain
from pycni.kernel.fake import FakeKernel
from pycni.leaving import LeaveWish
from pycni.model.endpoints import EndpointKey, EndpointState, WorkloadEndpoint
from pycni.model.network import Address, NextHop, Route, RouteKey, RouteType, SetRuleset
from pycni.plan.iproute import ip_route_lines
from pycni.plan.nat import NatInputs, render

TUNNEL = Address("tunl0", ip_interface("192.168.39.192/32"))
POD = WorkloadEndpoint(
    key=EndpointKey("net", "c1", "eth0"),
    node="node-0",
    netns="/run/netns/c1",
    host_veth="cali1",
    handle_id="net.c1",
    state=EndpointState.READY,
    pod_namespace="default",
    pod_name="web",
)


def route(
    cidr: str, dev: str, *, via: str | None = None, protocol: int = 12, is_onlink: bool = False
) -> Route:
    hop = NextHop(dev, gateway=ip_address(via) if via else None, is_onlink=is_onlink)
    return Route(RouteKey(ip_network(cidr)), next_hops=frozenset({hop}), protocol=protocol)


def host() -> FakeKernel:
    """Return a host that an agent has left, with things of others beside."""
    kernel = FakeKernel()
    kernel.add_link("eth0")
    kernel.add_address(Address("eth0", ip_interface("10.10.7.20/20")))
    kernel.add_link("tunl0", kind="ipip")
    kernel.add_address(TUNNEL)
    kernel.add_link("cali1", kind="veth")
    for one in (
        Route(RouteKey(ip_network("192.168.39.192/26")), type=RouteType.BLACKHOLE, protocol=12),
        route("192.168.84.128/26", "tunl0", via="10.10.24.89", is_onlink=True),
        route("192.168.39.193/32", "cali1", protocol=3),
        route("172.16.0.0/16", "eth0", via="10.10.0.1"),  # another BIRD's
        route("192.168.7.0/24", "eth0", via="10.10.0.1", protocol=4),  # an operator's
    ):
        kernel.create_route(one)
    kernel.write_sysctl("net.ipv4.conf.tunl0.rp_filter", "0")
    kernel.write_sysctl("net.ipv4.conf.default.rp_filter", "2")
    rules = NatInputs(frozenset(), frozenset(), frozenset(), has_ipip=True)
    asyncio.run(kernel.apply([SetRuleset(render(rules))]))
    return kernel


def left_by_agent(tmp_path: Path) -> AgentConfig:
    run_dir, state_dir = tmp_path / "run", tmp_path / "state"
    run_dir.mkdir()
    state_dir.mkdir()
    (state_dir / "pools.json").write_text(json.dumps(["192.168.0.0/16"]))
    LeaveWish(state_dir).keep()
    conflist = tmp_path / "10-pycni.conflist"
    conflist.touch()
    return AgentConfig(
        run_dir=str(run_dir),
        state_dir=str(state_dir),
        cni_conflist=str(conflist),
        cni_template="/etc/pycni/10-pycni.conflist",
    )


def cleaned(config: AgentConfig, kernel: FakeKernel) -> Cleaned:
    return asyncio.run(clean(config, kernel))


def table(kernel: FakeKernel) -> list[str]:
    return ip_route_lines(asyncio.run(kernel.snapshot([])), family=4)


def test_what_is_ours_goes_and_what_is_not_stays(tmp_path: Path) -> None:
    kernel = host()
    config = left_by_agent(tmp_path)

    said = cleaned(config, kernel)

    assert said.removed == [
        config.cni_conflist,
        "route blackhole 192.168.39.192/26 proto bird",
        "route 192.168.84.128/26 via 10.10.24.89 dev tunl0 proto bird onlink",
        "address 192.168.39.192/32 of tunl0",
        "interface tunl0 (or set down, where the kernel keeps it)",
        "table inet pycni",
    ]
    assert (said.refused, said.pods) == ([], [])
    assert table(kernel) == [
        "10.10.0.0/20 dev eth0 proto kernel scope link src 10.10.7.20",
        "172.16.0.0/16 via 10.10.0.1 dev eth0 proto bird",
        "192.168.7.0/24 via 10.10.0.1 dev eth0 proto static",
        "192.168.39.193 dev cali1",
    ]
    assert asyncio.run(kernel.snapshot([])).ruleset is None
    assert not Path(config.cni_conflist).exists()
    assert not LeaveWish(Path(config.state_dir)).is_there()
    assert cleaned(config, kernel).removed == []


def test_pods_that_are_left_are_named(tmp_path: Path) -> None:
    config = left_by_agent(tmp_path)
    FileEndpoints(run_dir=tmp_path / "run", state_dir=tmp_path / "state").put(POD)

    assert cleaned(config, host()).pods == ["default/web"]


def test_nothing_is_removed_while_an_agent_runs(tmp_path: Path) -> None:
    kernel = host()
    config = left_by_agent(tmp_path)
    before = table(kernel)
    lock = claim_run_dir(tmp_path / "run")

    with pytest.raises(TryAgain, match="an agent runs in"):
        cleaned(config, kernel)

    os.close(lock)
    assert table(kernel) == before
    assert Path(config.cni_conflist).exists()


def test_a_host_that_never_had_an_agent_gets_no_directories(tmp_path: Path) -> None:
    config = AgentConfig(run_dir=str(tmp_path / "run"), state_dir=str(tmp_path / "state"))

    assert cleaned(config, FakeKernel()).removed == []

    assert list(tmp_path.iterdir()) == []
