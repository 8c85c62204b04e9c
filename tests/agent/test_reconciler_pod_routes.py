"""A pod's route stays while its record, or the other engine's lock, says so."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

from pycni.model.endpoints import AssignedAddress, EndpointKey, EndpointState, WorkloadEndpoint
from pycni.plan.ownership import alias_of
from pycni.plan.podroute import pod_route
from tests.agent.cluster import NETWORK, NodeAgent, cluster
from tests.agent.exercise import VETH
from tests.virtual_time import run

KEY = EndpointKey(NETWORK, "other", "eth0")
OTHER = "192.168.39.200"


def other_pod(state: EndpointState = EndpointState.READY) -> WorkloadEndpoint:
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
