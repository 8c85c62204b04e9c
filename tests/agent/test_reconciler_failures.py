"""Operations that fail, or that somebody undoes: tried again, less and less often."""

from pathlib import Path

from pycni.model.network import AddRoute, NatUnavailable, RouteType, SetRuleset
from pycni.model.resources import TunnelMode
from tests.agent.breakages import delete_ruleset, flush_bird
from tests.agent.cluster import POOL, cluster, with_mode
from tests.agent.exercise import NODE_0, exercise, neighbours
from tests.virtual_time import run


def test_a_refused_operation_is_tried_again_while_the_others_go_on(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
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
        async with exercise(tmp_path) as (made, node):
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
        async with exercise(tmp_path) as (made, node):
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


def test_what_others_make_us_change_again_and_again_is_no_fight(tmp_path: Path) -> None:
    async def story() -> None:
        async with neighbours(tmp_path) as (made, node):
            assert node.reconciler is not None
            for number in range(60):
                mode = TunnelMode.ALWAYS if number % 2 else TunnelMode.CROSS_SUBNET
                await made.put(with_mode(POOL, mode))
                await made.settle(0.05)
                learned = [one for one in await node.ip_route() if " via 10.0.0.2" in one]

                assert len(learned) == 1
                assert ("tunl0" in learned[0]) == (mode is TunnelMode.ALWAYS), number
                assert node.reconciler.health.fights == []

    run(story())


def test_a_machine_without_nftables_is_a_lasting_state_and_no_failure(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as made:
            node = made.nodes["node-0"]
            await node.stop()
            node.kernel.write_ruleset(None)
            node.kernel.nat_unavailable = NatUnavailable("no nf_tables")
            node.kernel.applied.clear()
            node.start()
            await made.settle(10)
            tried = [op for op in node.kernel.applied if isinstance(op, SetRuleset)]
            node.kernel.applied.clear()
            await made.settle(300)

            assert node.reconciler is not None
            assert node.reconciler.want.ruleset is not None
            assert tried == []
            assert node.kernel.applied == []
            assert node.reconciler.health.failures == []
            assert node.reconciler.health.has_converged

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
