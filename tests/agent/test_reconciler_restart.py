"""What an agent that starts may delete, and when: nothing before its source has been heard."""

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path

from pycni.model.bgp import EndOfRib, Family, PeerOpened, PeerUp
from pycni.model.network import (
    DeleteAddress,
    DeleteLink,
    DeleteRoute,
    DeleteRuleset,
    Op,
)
from pycni.model.resources import BlockAffinity, affinity_name
from pycni.model.resources_bgp import BGPPeer
from tests.agent.cluster import Cluster, NodeAgent, cluster
from tests.agent.exercise import NODE_0, VETH, exercise
from tests.unit.plan.samples import by_tunnel
from tests.virtual_time import run

LEFTOVER = "192.168.99.0/26 via 10.10.24.89 dev tunl0 proto bird onlink"
DELETIONS = (DeleteRoute, DeleteLink, DeleteAddress, DeleteRuleset)


def deletions(ops: Iterable[Op]) -> list[Op]:
    return [op for op in ops if isinstance(op, DELETIONS)]


def leave_behind(node: NodeAgent) -> None:
    """Put a learned route into the kernel that nobody announces any more."""
    node.kernel.create_route(by_tunnel("192.168.99.0/26", "10.10.24.89"))


async def others_stop(made: Cluster) -> None:
    for name in ("node-1", "node-2"):
        await made.nodes[name].stop()


def test_a_restart_touches_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            await node.stop()
            stopped = await node.ip_route()
            node.kernel.applied.clear()

            node.start()
            await made.settle(130)

            assert stopped == NODE_0
            assert node.kernel.applied == []
            assert await node.ip_route() == NODE_0

    run(story())


def test_learned_routes_stay_until_every_peer_has_told_all(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            await node.stop()
            leave_behind(node)
            await made.nodes["node-2"].stop()

            node.start()
            await made.settle(100)
            before = await node.ip_route()
            made.nodes["node-2"].start()
            await made.settle(0.2)

            assert LEFTOVER in before
            assert await node.ip_route() == NODE_0

    run(story())


def test_learned_routes_do_not_wait_for_ever(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            await node.stop()
            await others_stop(made)
            leave_behind(node)

            node.start()
            await made.settle(119.5)
            before = await node.ip_route()
            await made.settle(1)

            assert before == sorted([*NODE_0, LEFTOVER], key=_by_address)
            assert await node.routes() == [
                "blackhole 192.168.39.192/26 proto bird",
                f"192.168.39.193 dev {VETH} scope link",
            ]

    run(story())


def _by_address(line: str) -> tuple[int, ...]:
    word = line.removeprefix("blackhole ").partition(" ")[0].partition("/")[0]
    return tuple(map(int, word.replace("default", "0.0.0.0").split(".")))


def test_end_of_rib_of_one_family_does_not_open_the_gate(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, ("10.10.7.20/20",), addresses6=("fd10::20/64",)) as made:
            node = made.nodes["node-0"]
            routers = (ip_address("10.10.0.1"), ip_address("fd10::1"))
            for number, router in enumerate(routers):
                await made.create(BGPPeer(f"router-{number}", router, as_number=64512))
            await node.stop()
            leave_behind(node)
            node.start()
            assert node.speaker is not None
            families = frozenset(Family)
            for router in routers:
                node.speaker.tell(
                    PeerOpened(router, 120, preserved=families, families=families), PeerUp(router)
                )
            node.speaker.tell(EndOfRib(routers[0], Family.IPV4))
            await made.settle(0.2)
            before = await node.routes()

            node.speaker.tell(EndOfRib(routers[1], Family.IPV6))
            await made.settle(0.2)

            assert LEFTOVER in before
            assert LEFTOVER not in await node.routes()

    run(story())


def test_nothing_is_deleted_while_the_datastore_is_away(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            await node.stop()
            leave_behind(node)
            node.kernel.applied.clear()
            node.switch.is_away = True

            node.start()
            await made.settle(600)
            passes = node.reconciler.health.passes if node.reconciler else 0
            away = list(node.kernel.applied)
            node.switch.is_away = False
            await made.settle(15)

            assert deletions(away) == []
            assert passes < 100, "it turned without rest"
            assert await node.ip_route() == NODE_0

    run(story())


def test_peers_hear_of_no_session_before_all_our_routes_are_known(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            await node.stop()
            node.switch.is_away = True
            node.start()
            await made.settle(5)
            assert node.speaker is not None
            before = node.speaker.neighbours

            node.switch.is_away = False
            await made.settle(15)

            assert before == ()
            assert len(node.speaker.neighbours) == 2
            assert [str(a.nlri) for a in node.speaker.advertisements.common] == [
                "192.168.39.192/26"
            ]
            assert await made.nodes["node-1"].routes() == [
                "192.168.39.192/26 via 10.10.7.20 dev tunl0 proto bird onlink",
                "blackhole 192.168.84.128/26 proto bird",
                "192.168.84.129 dev cali3c044a03a1c scope link",
                "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink",
            ]

    run(story())


def test_a_pod_route_waits_until_the_records_are_read(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            await node.stop()
            (damaged,) = node.endpoints.directory.glob("*.json")
            good = damaged.read_text()
            damaged.write_text("{")

            node.start()
            await made.settle(300)
            before = await node.ip_route()
            why = node.troubles["endpoint records"]
            damaged.write_text(good)
            await made.settle(15)

            assert before == NODE_0
            assert str(damaged) in why
            assert await node.ip_route() == NODE_0
            assert node.troubles["endpoint records"] == ""

    run(story())


def test_leftovers_of_a_pool_deleted_meanwhile_are_recognised(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            history = set(node.facts.inputs.pool_history)
            block = ip_network("192.168.39.192/26")
            await node.stop()
            await made.remove(type(next(iter(node.facts.inputs.pools.values()))), "pool")
            await made.remove(BlockAffinity, affinity_name("node-0", cidr=block))

            node.pool_history = history
            node.start()
            await made.settle(130)

            assert await node.routes() == [f"192.168.39.193 dev {VETH} scope link"]

    run(story())
