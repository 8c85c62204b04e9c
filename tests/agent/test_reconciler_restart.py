"""What an agent that starts may delete, and when: nothing before its source has been heard."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

from pycni.model.bgp import EndOfRib, Family, PeerOpened, PeerUp
from pycni.model.endpoints import AssignedAddress, EndpointKey, EndpointState, WorkloadEndpoint
from pycni.model.network import (
    DeleteAddress,
    DeleteLink,
    DeleteRoute,
    DeleteRuleset,
    NextHop,
    Op,
    Route,
    RouteKey,
)
from pycni.model.resources import BGPPeer, BlockAffinity, Node, affinity_name
from pycni.plan.ownership import alias_of
from tests.agent.cluster import NETWORK, Cluster, NodeAgent, cluster
from tests.agent.test_reconciler_healing import EXERCISE, NODE_0, VETH, exercise
from tests.virtual_time import run

LEFTOVER = "192.168.99.0/26 via 10.10.24.89 dev tunl0 proto bird onlink"
DELETIONS = (DeleteRoute, DeleteLink, DeleteAddress, DeleteRuleset)


def deletions(ops: Iterable[Op]) -> list[Op]:
    return [op for op in ops if isinstance(op, DELETIONS)]


def leave_behind(node: NodeAgent) -> None:
    """Put a learned route into the kernel that nobody announces any more."""
    hop = NextHop("tunl0", gateway=ip_address("10.10.24.89"), is_onlink=True)
    key = RouteKey(ip_network("192.168.99.0/26"))
    node.kernel.create_route(Route(key, next_hops=frozenset({hop}), protocol=12))


async def others_stop(made: Cluster) -> None:
    for name in ("node-1", "node-2"):
        await made.nodes[name].stop()


def test_a_restart_touches_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
            await node.stop()
            stopped = await node.ip_route()
            node.kernel.applied.clear()

            node.start()
            await made.settle(130)

            assert stopped == NODE_0
            assert node.kernel.applied == []
            assert await node.ip_route() == NODE_0

    run(story())


def test_a_peers_restart_keeps_its_routes(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
            node.kernel.applied.clear()

            await made.nodes["node-1"].stop()
            await made.settle(60)
            made.nodes["node-1"].start()
            await made.settle()

            assert node.kernel.applied == []
            assert await node.ip_route() == NODE_0

    run(story())


def test_a_peer_that_stays_away_is_given_up_after_its_restart_time(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)

            await made.nodes["node-1"].stop()
            await made.settle(119)
            early = await node.ip_route()
            await made.settle(2)

            assert early == NODE_0
            assert await node.ip_route() == [line for line in NODE_0 if "10.10.24.89" not in line]

    run(story())


def test_a_peer_whose_hold_timer_ran_out_is_given_up_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)

            made.network.cut(ip_address("10.10.7.20"), ip_address("10.10.24.89"))
            await made.settle()

            assert await node.ip_route() == [line for line in NODE_0 if "10.10.24.89" not in line]

    run(story())


def test_learned_routes_stay_until_every_peer_has_told_all(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
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
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
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
        async with cluster(tmp_path, ("10.10.7.20/20",)) as made:
            node = made.nodes["node-0"]
            await made.create(BGPPeer("router", ip_address("10.10.0.1"), as_number=64512))
            await node.stop()
            leave_behind(node)
            node.start()
            router = ip_address("10.10.0.1")
            assert node.speaker is not None
            families = frozenset(Family)
            node.speaker.tell(
                PeerOpened(router, 120, preserved=families, families=families),
                PeerUp(router),
                EndOfRib(router, Family.IPV4),
            )
            await made.settle(0.2)
            before = await node.routes()

            node.speaker.tell(EndOfRib(router, Family.IPV6))
            await made.settle(0.2)

            assert LEFTOVER in before
            assert LEFTOVER not in await node.routes()

    run(story())


def test_nothing_is_deleted_while_the_datastore_is_away(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
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
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
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
            assert [str(a.nlri) for a in node.speaker.advertisements] == ["192.168.39.192/26"]
            assert await made.nodes["node-1"].routes() == [
                "192.168.39.192/26 via 10.10.7.20 dev tunl0 proto bird onlink",
                "blackhole 192.168.84.128/26 proto bird",
                "192.168.84.129 dev cali3c044a03a1c scope link",
                "192.168.247.0/26 via 10.10.43.25 dev tunl0 proto bird onlink",
            ]

    run(story())


def test_a_pod_route_waits_until_the_records_are_read(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
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
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
            history = set(node.facts.inputs.pool_history)
            await node.stop()
            await made.remove(type(next(iter(node.facts.inputs.pools.values()))), "pool")
            await made.remove(BlockAffinity, affinity_name("node-0", cidr=BLOCK))

            node.pool_history = history
            node.start()
            await made.settle(130)

            assert await node.routes() == [f"192.168.39.193 dev {VETH} scope link"]

    run(story())


BLOCK = ip_network("192.168.39.192/26")


# --- nodes and peers come and go ----------------------------------------------------------------


def test_a_node_that_is_removed_takes_its_routes_along(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)

            await made.remove(Node, "node-1")
            await made.settle()

            assert await node.ip_route() == [line for line in NODE_0 if "10.10.24.89" not in line]
            assert [str(p) for p in node.facts.rib.peers] == ["10.10.43.25"]

    run(story())


def test_a_node_that_is_renamed_keeps_its_routes(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
            old = node.facts.inputs.nodes["node-1"]

            await made.create(replace(old, name="node-one"))
            await made.settle()
            await made.remove(Node, "node-one")
            await made.settle()

            assert (
                node.facts.inputs.nodes_by_address[ip_address("10.10.24.89")]
                is (node.facts.inputs.nodes["node-1"])
            )
            assert await node.ip_route() == NODE_0

    run(story())


def test_an_affinity_that_comes_after_its_path_is_waited_for(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path, EXERCISE) as made:
            node = await exercise(made)
            theirs = node.facts.inputs.affinities[ip_network("192.168.84.128/26")]
            await made.remove(BlockAffinity, affinity_name("node-1", cidr=theirs.cidr))
            await made.nodes["node-1"].stop()
            await made.settle()
            before = await node.routes()

            await made.create(theirs)
            await made.settle()

            assert not [line for line in before if "192.168.84.128" in line]
            assert await node.ip_route() == NODE_0

    run(story())


# --- pod routes and the other engine ------------------------------------------------------------

KEY = EndpointKey(NETWORK, "other", "eth0")
OTHER = "192.168.39.200"


def other_pod(state: EndpointState = EndpointState.READY) -> WorkloadEndpoint:
    from ipaddress import ip_interface

    return WorkloadEndpoint(
        key=KEY,
        node="node-0",
        netns="/run/netns/other",
        host_veth="caliother",
        handle_id=f"{NETWORK}.other",
        state=state,
        addresses=(AssignedAddress(ip_interface(OTHER), 1),),
        mtu=1480,
    )


def plug_other(node: NodeAgent) -> None:
    """Make interface and route as the in-process engine does, before it completes the record."""
    node.kernel.add_link("caliother", mtu=1480, alias=alias_of(KEY))
    from pycni.plan.podroute import pod_route

    node.kernel.create_route(pod_route(ip_address(OTHER), host_veth="caliother"))


def other_line() -> str:
    return f"{OTHER} dev caliother scope link"


def test_a_pod_route_without_record_is_removed(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as made:
            node = made.nodes["node-0"]

            plug_other(node)
            await made.settle()

            assert other_line() not in await node.routes()

    run(story())


def test_a_pod_route_stays_while_the_other_engine_holds_the_lock(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as made:
            node = made.nodes["node-0"]
            async with node.endpoints.lock(KEY, timeout_s=1):
                plug_other(node)
                node.post_doubt()
                await made.settle(200)
                during = await node.routes()
                node.other_engine().put(other_pod())
            await made.settle(200)

            assert other_line() in during
            assert other_line() in await node.routes()

    run(story())


def test_a_pod_route_stays_while_its_record_is_an_intent(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as made:
            node = made.nodes["node-0"]
            node.other_engine().put(replace(other_pod(EndpointState.INTENT), addresses=()))
            plug_other(node)
            await made.settle(200)
            assert node.reconciler is not None
            passes = node.reconciler.health.passes

            assert other_line() in await node.routes()
            assert passes < 50, "it turned without rest"

    run(story())


def test_a_record_that_the_agent_has_not_heard_of_protects_its_route(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as made:
            node = made.nodes["node-0"]
            node.endpoints.put(other_pod())  # told as its own writing: no event reaches the agent
            plug_other(node)
            await made.settle()

            assert other_line() in await node.routes()

    run(story())


def test_a_pods_route_goes_with_its_record_when_the_interface_stays(tmp_path: Path) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as made:
            node = made.nodes["node-0"]
            engine = node.other_engine()
            engine.put(other_pod())
            plug_other(node)
            await made.settle()
            before = await node.routes()

            engine.remove(KEY)
            await made.settle()

            assert other_line() in before
            assert other_line() not in await node.routes()

    run(story())


def test_a_pod_interface_that_vanishes_with_its_record_at_once_is_no_trouble(
    tmp_path: Path,
) -> None:
    async def story() -> None:
        async with cluster(tmp_path) as made:
            node = made.nodes["node-0"]
            await node.add("default/web-node-0")
            await made.settle()

            node.kernel.change_link(VETH, is_up=False)
            await node.delete("default/web-node-0")
            await made.settle()

            assert await node.routes() == ["blackhole 192.168.39.192/26 proto bird"]

    run(story())
