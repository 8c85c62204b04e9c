"""What is predicted on paper is what agents then make of fake kernels, for any topology."""

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_network
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis.strategies as st
from hypothesis import assume, given, reject, settings

from pycni.errors import PycniError
from pycni.model.resources import IPPool, Resource, TunnelMode
from pycni.model.resources_bgp import (
    BGPConfiguration,
    BGPFilter,
    BGPPeer,
    FilterAction,
    FilterRule,
    MatchOperator,
    PrefixMatch,
)
from pycni.topology.model import Topology, TopologyNode, TopologyPod
from pycni.topology.predict import predict
from tests.agent.cluster import Cluster
from tests.virtual_time import run

SIX = IPv6Network("fd00:192:168::/120")
SUBNETS6 = [IPv6Network("fd00:10::/64"), IPv6Network("fd00:11::/64")]
SUBNETS = [IPv4Network(f"10.{n}.0.0/20") for n in range(3)]


@dataclass(frozen=True)
class PodPlan:
    """A pod: where, under which name, and (perhaps) with which addresses of the pools."""

    node: int
    name: str
    ordinal: int | None
    ordinal6: int | None
    host_veth: str | None


rules = st.lists(
    st.builds(
        FilterRule,
        action=st.sampled_from(FilterAction),
        prefixes=st.none()
        | st.builds(
            PrefixMatch,
            cidr=st.sampled_from([ip_network("192.168.0.0/25"), ip_network("192.168.0.64/26")]),
            operator=st.sampled_from(MatchOperator),
        ),
        interface=st.sampled_from([None, None, "cali*", "eth0", "tunl*"]),
        is_for_learned=st.booleans(),
    ),
    max_size=2,
).map(tuple)
pods = st.lists(
    st.builds(
        PodPlan,
        node=st.integers(0, 3),
        name=st.from_regex(r"[a-z][a-z0-9]{0,4}", fullmatch=True),
        ordinal=st.none() | st.integers(0, 255),
        ordinal6=st.none() | st.integers(0, 255),
        host_veth=st.none() | st.from_regex(r"cali[a-z]{1,4}", fullmatch=True),
    ),
    max_size=6,
    unique_by=(lambda p: p.name, lambda p: p.host_veth or p.name),
)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """Make up nodes near and far from each other, pools of every kind, and pods anywhere.

    A node may lack IPv6, and so may the pools.
    """
    count = draw(st.integers(1, 4))
    places = draw(
        st.lists(
            st.tuples(st.sampled_from(SUBNETS), st.integers(2, 4000)),
            min_size=count,
            max_size=count,
            unique=True,
        )
    )
    subnets6 = [draw(st.sampled_from([*SUBNETS6, None])) for _ in places]
    nodes = tuple(
        TopologyNode(
            name=f"node-{number}",
            address=IPv4Interface(f"{subnet[host]}/20"),
            gateway=subnet[1],
            mtu=draw(st.sampled_from([1500, 9000])),
            address6=IPv6Interface(f"{subnet6[number + 2]}/64") if subnet6 else None,
            gateway6=subnet6[1] if subnet6 else None,
        )
        for number, ((subnet, host), subnet6) in enumerate(zip(places, subnets6, strict=True))
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
    has_six = draw(st.booleans())
    if has_six:
        size = draw(st.integers(122, 126))
        is_secret = draw(st.sampled_from([False, False, False, True]))
        resources.append(IPPool("six", SIX, block_size=size, disable_bgp_export=is_secret))
    if draw(st.booleans()):
        is_mesh = draw(st.booleans())
        number = draw(st.sampled_from([64512, 65001]))
        resources.append(BGPConfiguration(as_number=number, is_node_mesh_enabled=is_mesh))
        if not is_mesh:
            peers = [a.ip for n in nodes[:2] for a in (n.address, n.address6) if a is not None]
            resources += [
                BGPPeer(f"peer-{index}", address, as_number=number)
                for index, address in enumerate(peers)
            ]
    if draw(st.booleans()):
        resources.append(BGPFilter("filter", export_v4=draw(rules), import_v4=draw(rules)))
        names = draw(st.sampled_from([("filter",), ("filter", "missing")]))
        resources.append(
            BGPPeer("filtered", node=nodes[0].name, peer_selector="all()", filters=names)
        )
    planned = draw(pods)
    for asked in ([p.ordinal for p in planned], [p.ordinal6 for p in planned if has_six]):
        taken = [ordinal for ordinal in asked if ordinal is not None]
        assume(len(set(taken)) == len(taken))
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
                address6=SIX[p.ordinal6] if has_six and p.ordinal6 is not None else None,
            )
            for p in planned
        ),
    )


async def made_by_agents(topology: Topology, directory: Path) -> dict[tuple[str, int], list[str]]:
    """Run an agent for each node, and add the pods in their order."""
    cluster = Cluster(directory)
    await cluster.create(*topology.resources)
    for node in topology.nodes:
        address6 = str(node.address6) if node.address6 is not None else ""
        await cluster.node(node.name, str(node.address), address6=address6, mtu=node.mtu).register()
    for agent in cluster.nodes.values():
        agent.start(watches_records=False)
    try:
        await cluster.settle()
        for pod in topology.pods:
            args = [f"IP={','.join(map(str, pod.addresses))}"] if pod.addresses else []
            args += [f"HOST_VETH={pod.host_veth}"] if pod.host_veth is not None else []
            await cluster.nodes[pod.node].add(
                pod.full_name,
                args=";".join(args),
                config={"ipam": {"assign_ipv6": 6 in topology.pod_versions}},
            )
        await cluster.settle()
        return {
            (name, family): await agent.ip_route(family)
            for name, agent in cluster.nodes.items()
            for family in (4, 6)
        }
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
        with TemporaryDirectory(dir="/dev/shm") as directory:
            actual = await made_by_agents(topology, Path(directory))

        assert actual == {
            (n.name, family): prediction.lines(n.name, family=family)
            for n in topology.nodes
            for family in (4, 6)
        }

    run(story())
