"""Whatever somebody breaks on a node is as it was a second later; what is a stranger's stays."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from pycni.model.network import (
    Address,
    AddRoute,
    NextHop,
    Route,
    RouteKey,
    RouteType,
    Scope,
    SetLink,
    SetRuleset,
)
from pycni.model.resources import IPPool, TunnelMode
from tests.agent.cluster import POOL, Cluster, NodeAgent, cluster, with_mode
from tests.virtual_time import run

EXERCISE = ("10.10.7.20/20", "10.10.24.89/20", "10.10.43.25/20")
VETH = "cali0d7c3b01b81"  # sha1("default.web-node-0")[:11]
NODE_0 = """\
default via 10.10.0.1 dev eth0
10.10.0.0/20 dev eth0 proto kernel scope link src 10.10.7.20
blackhole 192.168.39.192/26 proto bird
192.168.39.193 dev cali0d7c3b01b81 scope link
192.168.84.128/26 via 10.10.24.89 dev tunl0 proto bird onlink
192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink""".splitlines()


async def exercise(made: Cluster) -> NodeAgent:
    """Add a pod to each node; return the first node."""
    for node in made.nodes.values():
        await node.add(f"default/web-{node.name}")
    await made.settle()
    return made.nodes["node-0"]


def route(text: str, *, dev: str, protocol: int = 4, via: str | None = None) -> Route:
    gateway = ip_address(via) if via else None
    scope = Scope.UNIVERSE if via else Scope.LINK
    hops = frozenset({NextHop(dev, gateway=gateway)})
    return Route(RouteKey(ip_network(text)), scope=scope, next_hops=hops, protocol=protocol)


# --- each breakage heals ------------------------------------------------------------------------


def set_tunnel_down(node: NodeAgent) -> None:
    node.kernel.change_link("tunl0", is_up=False)


def delete_tunnel(node: NodeAgent) -> None:
    node.kernel.delete_link("tunl0")


def shrink_tunnel(node: NodeAgent) -> None:
    node.kernel.change_link("tunl0", mtu=1280)


def remove_tunnel_address(node: NodeAgent) -> None:
    node.kernel.delete_address(Address("tunl0", ip_interface("192.168.39.192/32")))


def flush_bird(node: NodeAgent) -> None:
    node.kernel.flush_routes(protocol=12)


def set_pod_interface_down(node: NodeAgent) -> None:
    node.kernel.change_link(VETH, is_up=False)


def delete_pod_route(node: NodeAgent) -> None:
    (there,) = (r for r in node.kernel.routes() if VETH in r.oifs)
    node.kernel.delete_route(there)


def set_underlay_down_and_up(node: NodeAgent) -> None:
    node.kernel.change_link("eth0", is_up=False)
    node.kernel.change_link("eth0", is_up=True)
    node.kernel.create_route(route("0.0.0.0/0", dev="eth0", via="10.10.0.1", protocol=3))


def renew_underlay_address(node: NodeAgent) -> None:
    node.kernel.delete_address(Address("eth0", node.address))
    node.kernel.add_address(Address("eth0", node.address))
    node.kernel.create_route(route("0.0.0.0/0", dev="eth0", via="10.10.0.1", protocol=3))


def forbid_forwarding(node: NodeAgent) -> None:
    node.kernel.write_sysctl("net.ipv4.ip_forward", "0")


def loosen_pod_source_check(node: NodeAgent) -> None:
    node.kernel.write_sysctl(f"net.ipv4.conf.{VETH}.rp_filter", "0")


def replace_ruleset(node: NodeAgent) -> None:
    node.kernel.write_ruleset("something else")


def delete_ruleset(node: NodeAgent) -> None:
    node.kernel.write_ruleset(None)


def change_learned_route(node: NodeAgent) -> None:
    node.kernel.overwrite_route(route("192.168.247.0/26", dev="eth0", via="10.10.0.1", protocol=12))


BREAKAGES = [
    set_tunnel_down,
    delete_tunnel,
    shrink_tunnel,
    remove_tunnel_address,
    flush_bird,
    set_pod_interface_down,
    delete_pod_route,
    set_underlay_down_and_up,
    renew_underlay_address,
    forbid_forwarding,
    loosen_pod_source_check,
    replace_ruleset,
    delete_ruleset,
    change_learned_route,
]


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda b: b.__name__)
@pytest.mark.parametrize("is_told", [True, False], ids=["told", "events-lost"])
def test_a_breakage_heals_within_a_second(
    tmp_path: Path, breakage: Callable[[NodeAgent], None], *, is_told: bool
) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
            before = await node.kernel.snapshot(list(_want(node)))

            breakage(node)
            if not is_told:
                node.kernel.lose_events()
            await made.settle()

            after = await node.kernel.snapshot(list(_want(node)))
            assert await node.ip_route() == NODE_0
            assert after.sysctls == before.sysctls
            assert after.addresses == before.addresses
            assert after.ruleset == before.ruleset
            assert {n: (i.is_up, i.mtu) for n, i in after.links.items()} == {
                n: (i.is_up, i.mtu) for n, i in before.links.items()
            }

    run(story())


def _want(node: NodeAgent) -> dict[str, str]:
    assert node.reconciler is not None
    return node.reconciler.want.sysctls


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda b: b.__name__)
def test_a_breakage_while_the_agent_is_away_heals_at_its_start(
    tmp_path: Path, breakage: Callable[[NodeAgent], None]
) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
            await node.stop()

            breakage(node)
            node.start()
            await made.settle()

            assert await node.ip_route() == NODE_0

    run(story())


def test_an_underlay_route_returns_with_its_link(tmp_path: Path) -> None:
    async def story() -> None:
        pool = with_mode(POOL, TunnelMode.NEVER)
        async with cluster(tmp_path, ("10.0.0.1/24", "10.0.0.2/24"), pools=[pool]) as made:
            node = made.nodes["node-0"]
            await made.nodes["node-1"].add("default/web-node-1")
            await made.settle()
            before = await node.routes()

            node.kernel.change_link("eth0", is_up=False)
            await made.settle(300)
            node.kernel.change_link("eth0", is_up=True)
            await made.settle()

            assert before == ["192.168.84.128/26 via 10.0.0.2 dev eth0 proto bird"]
            assert await node.routes() == before

    run(story())


def test_a_renewed_underlay_address_brings_learned_routes_back(tmp_path: Path) -> None:
    async def story() -> None:
        pool = with_mode(POOL, TunnelMode.NEVER)
        async with cluster(tmp_path, ("10.0.0.1/24", "10.0.0.2/24"), pools=[pool]) as made:
            node = made.nodes["node-0"]
            await made.nodes["node-1"].add("default/web-node-1")
            await made.settle()

            node.kernel.delete_address(Address("eth0", node.address))
            await made.settle(5)
            node.kernel.add_address(Address("eth0", node.address))
            await made.settle()

            assert await node.routes() == ["192.168.84.128/26 via 10.0.0.2 dev eth0 proto bird"]

    run(story())


def test_a_tunnel_survives_the_loss_of_the_underlay_address(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
            index = node.kernel.link("tunl0")

            node.kernel.delete_address(Address("eth0", node.address))
            await made.settle(5)

            assert node.kernel.link("tunl0") == index

    run(story())


def test_the_tunnel_follows_the_mtu_of_the_underlay(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)

            node.kernel.change_link("eth0", mtu=9000)
            await made.settle()

            tunnel = node.kernel.link("tunl0")
            assert tunnel is not None
            assert tunnel.mtu == 8980

    run(story())


# --- strangers ----------------------------------------------------------------------------------


def test_foreign_routes_stay_whatever_happens(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
            foreign = [
                route("172.16.0.0/16", dev="eth0", via="10.10.0.1"),
                route("172.17.0.0/16", dev="eth0", via="10.10.0.1", protocol=12),
                route("192.168.200.0/26", dev="eth0", via="10.10.0.1"),
                replace(
                    route("192.168.39.0/26", dev="eth0", protocol=12),
                    key=RouteKey(ip_network("192.168.39.0/26"), table=100),
                ),
            ]
            for one in foreign:
                node.kernel.create_route(one)
            before = [r for r in node.kernel.routes() if r in foreign]

            flush_bird(node)
            node.kernel.create_route(foreign[1])
            node.kernel.create_route(foreign[3])
            delete_tunnel(node)
            await made.settle()
            node.post_doubt()
            await made.settle(130)

            assert [r for r in node.kernel.routes() if r in foreign] != []
            assert {r for r in node.kernel.routes() if r in foreign} == set(before)

    run(story())


def test_the_kernels_own_link_local_routes_stay(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
            key = RouteKey(ip_network("fe80::/64"), priority=256)
            own = Route(key, next_hops=frozenset({NextHop(VETH)}), protocol=2)

            node.kernel.append_route(own)
            await made.settle()
            node.kernel.lose_events()
            await made.settle()

            assert own in node.kernel.routes()

    run(story())


def test_a_strangers_route_under_our_key_is_reported_and_not_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
            ours = next(r for r in node.kernel.routes() if str(r.key.dst) == "192.168.247.0/26")
            node.kernel.delete_route(ours)
            node.kernel.create_route(route("192.168.247.0/26", dev="eth0", via="10.10.0.1"))
            await made.settle()
            assert node.reconciler is not None
            conflicts = list(node.reconciler.health.conflicts.values())

            stranger = next(r for r in node.kernel.routes() if str(r.key.dst) == "192.168.247.0/26")
            node.kernel.delete_route(stranger)
            await made.settle()

            assert [c.wanted for c in conflicts] == [ours]
            assert stranger.protocol == 4
            assert node.reconciler.health.conflicts == {}
            assert await node.ip_route() == NODE_0

    run(story())


# --- operations that fail -----------------------------------------------------------------------


def test_a_refused_operation_is_tried_again_while_the_others_go_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
            node.kernel.fail_next(AddRoute, 12)

            flush_bird(node)
            await made.settle(0.05)
            first = await node.ip_route()
            await made.settle()

            assert len(first) == len(NODE_0) - 1
            assert await node.ip_route() == NODE_0
            assert node.reconciler is not None
            assert node.reconciler.health.failures == []

    run(story())


def test_retries_of_what_keeps_failing_become_rare(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as made:
            node = made.nodes["node-0"]
            node.kernel.fail_next(SetRuleset, 5, times=1000)
            node.kernel.write_ruleset(None)
            await made.settle(5)
            before = len(node.kernel.applied)
            assert node.reconciler is not None
            named = [f.message for f in node.reconciler.health.failures]

            await made.settle(300)

            assert 5 <= len(node.kernel.applied) - before <= 15
            assert "SetRuleset" in named[0]

    run(story())


def test_frequent_failures_do_not_put_off_the_retry_of_another(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
            node.kernel.fail_next(SetRuleset, 5, times=100)
            node.kernel.fail_next(AddRoute, 12, times=18)

            flush_bird(node)
            for _ in range(24):
                delete_ruleset(node)
                await made.settle(0.8)

            assert await node.ip_route() == NODE_0

    run(story())


def test_a_fight_backs_off_and_is_named(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
            assert node.reconciler is not None
            deletions = 0
            named = False
            for _ in range(6000):  # Another BIRD deletes what it doesn't know, every 10 ms.
                mine = [r for r in node.kernel.routes() if r.type is RouteType.BLACKHOLE]
                for one in mine:
                    node.kernel.delete_route(one)
                deletions += len(mine)
                named |= bool(node.reconciler.health.fights)
                await made.settle(0.01)

            await made.settle(60)

            assert deletions < 150
            assert named
            assert await node.ip_route() == NODE_0
            assert node.reconciler.health.fights == []

    run(story())


def test_a_machine_without_nftables_is_a_lasting_state_and_no_failure(tmp_path: Path) -> None:
    from pycni.model.network import NatUnavailable

    async def story() -> None:
        async with cluster(tmp_path) as made:
            node = made.nodes["node-0"]
            await node.stop()
            node.kernel.write_ruleset(None)
            node.kernel.nat_unavailable = NatUnavailable("no nf_tables")
            node.start()
            await made.settle(10)

            assert node.reconciler is not None
            assert node.reconciler.health.failures == []
            assert not [op for op in node.kernel.applied[-20:] if isinstance(op, SetRuleset)] or (
                (await node.state()).ruleset is None
            )

    run(story())


def test_an_unreadable_kernel_is_asked_again_without_haste(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as made:
            node = made.nodes["node-0"]
            assert node.reconciler is not None
            node.kernel.is_unreadable = True

            node.post_doubt()
            await made.settle(60)
            node.kernel.is_unreadable = False
            await made.settle(60)

            assert 5 <= node.kernel.refused_reads <= 15
            assert node.reconciler.health.has_converged

    run(story())


# --- pools --------------------------------------------------------------------------------------


def test_a_pools_new_mode_replaces_routes_under_the_same_key(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, ("10.0.0.1/24", "10.0.0.2/24")) as made:
            node = made.nodes["node-0"]
            await made.nodes["node-1"].add("default/web-node-1")
            await made.settle()
            node.kernel.applied.clear()

            await made.put(with_mode(POOL, TunnelMode.CROSS_SUBNET))
            await made.settle()

            done = [type(op).__name__ for op in node.kernel.applied if "Route" in type(op).__name__]
            assert done == ["ReplaceRoute"]
            assert "192.168.84.128/26 via 10.0.0.2 dev eth0 proto bird" in await node.routes()

            await made.put(POOL)
            await made.settle()

            line = "192.168.84.128/26 via 10.0.0.2 dev tunl0 proto bird onlink"
            assert line in await node.routes()

    run(story())


def test_a_deleted_pool_leaves_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = made.nodes["node-1"]

            await made.remove(IPPool, "pool")
            await made.settle(2)

            assert await node.routes() == ["blackhole 192.168.84.128/26 proto bird"]
            assert node.kernel.link("tunl0") is None
            assert (await node.state()).ruleset is None

    run(story())


def test_repairs_are_no_link_operations_when_links_are_fine(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
            node.kernel.applied.clear()

            await made.settle(600)

            assert [op for op in node.kernel.applied if isinstance(op, SetLink)] == []
            assert node.kernel.applied == []

    run(story())
