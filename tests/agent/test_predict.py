"""What is predicted on paper is what agents then make of fake kernels, for any topology."""

from dataclasses import dataclass
from ipaddress import IPv4Network, ip_interface, ip_network
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
from hypothesis import assume, given, reject, settings

from pycni.errors import PycniError
from pycni.model.resources import BGPConfiguration, BGPPeer, IPPool, Resource, TunnelMode
from pycni.topology.model import Topology, TopologyNode, TopologyPod
from pycni.topology.predict import predict
from tests.agent.cluster import Cluster
from tests.virtual_time import run

SUBNETS = [IPv4Network(f"10.{n}.0.0/20") for n in range(3)]


@dataclass(frozen=True)
class PodPlan:
    """A pod: where, under which name, and (perhaps) with which address of the pool."""

    node: int
    name: str
    ordinal: int | None
    host_veth: str | None


pods = st.lists(
    st.builds(
        PodPlan,
        node=st.integers(0, 3),
        name=st.from_regex(r"[a-z][a-z0-9]{0,4}", fullmatch=True),
        ordinal=st.none() | st.integers(0, 255),
        host_veth=st.none() | st.from_regex(r"cali[a-z]{1,4}", fullmatch=True),
    ),
    max_size=6,
    unique_by=(lambda p: p.name, lambda p: p.host_veth or p.name),
)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Make up nodes near and far from each other, pools of every kind, and pods anywhere."""
    count = draw(st.integers(1, 4))
    places = draw(
        st.lists(
            st.tuples(st.sampled_from(SUBNETS), st.integers(2, 4000)),
            min_size=count,
            max_size=count,
            unique=True,
        )
    )
    nodes = tuple(
        TopologyNode(
            name=f"node-{number}",
            address=ip_interface(f"{subnet[host]}/20"),  # type: ignore[arg-type]  # IPv4
            gateway=subnet[1],
            mtu=draw(st.sampled_from([1500, 9000])),
        )
        for number, (subnet, host) in enumerate(places)
    )
    size = draw(st.integers(26, 30))
    modes = st.sampled_from(TunnelMode)
    first = IPPool(
        "first",
        ip_network("192.168.0.0/24"),
        block_size=size,
        ipip_mode=draw(modes),
        nat_outgoing=draw(st.booleans()),
        disable_bgp_export=draw(st.sampled_from([False, False, False, True])),
    )
    resources: list[Resource] = [first]
    if draw(st.booleans()):
        resources.append(
            IPPool("second", ip_network("172.16.0.0/28"), block_size=30, ipip_mode=draw(modes))
        )
    if draw(st.booleans()):
        is_mesh = draw(st.booleans())
        number = draw(st.sampled_from([64512, 65001]))
        resources.append(BGPConfiguration(as_number=number, is_node_mesh_enabled=is_mesh))
        if not is_mesh:
            resources += [
                BGPPeer(f"peer-{n.name}", n.address.ip, as_number=number) for n in nodes[:2]
            ]
    planned = draw(pods)
    taken = {p.ordinal for p in planned if p.ordinal is not None}
    assume(len(taken) == sum(p.ordinal is not None for p in planned))
    return Topology(
        name="random",
        nodes=nodes,
        resources=tuple(resources),
        pods=tuple(
            TopologyPod(
                namespace="default",
                name=p.name,
                node=f"node-{p.node % count}",
                address=first.cidr[p.ordinal] if p.ordinal is not None else None,
                host_veth=p.host_veth,
            )
            for p in planned
        ),
    )


async def made_by_agents(topology: Topology, directory: Path) -> dict[str, list[str]]:
    """Run an agent for each node, and add the pods in their order."""
    cluster = Cluster(directory)
    await cluster.create(*topology.resources)
    for node in topology.nodes:
        await cluster.node(node.name, str(node.address), mtu=node.mtu).register()
    for agent in cluster.nodes.values():
        agent.start(watches_records=False)
    try:
        await cluster.settle()
        for pod in topology.pods:
            args = [f"IP={pod.address}"] if pod.address is not None else []
            args += [f"HOST_VETH={pod.host_veth}"] if pod.host_veth is not None else []
            await cluster.nodes[pod.node].add(pod.full_name, args=";".join(args))
        await cluster.settle()
        return {name: await agent.ip_route() for name, agent in cluster.nodes.items()}
    finally:
        for agent in cluster.nodes.values():
            await agent.stop()


@given(topologies())
@settings(max_examples=220)
def test_agents_make_what_was_predicted(topology: Topology) -> None:
    async def story() -> None:
        try:
            prediction = await predict(topology)
        except PycniError:
            reject()  # an address given twice, or a pool that is too small
        with TemporaryDirectory() as directory:
            actual = await made_by_agents(topology, Path(directory))

        assert {n.name: prediction.lines(n.name) for n in topology.nodes} == actual

    run(story())
