"""What each node of a topology will route, before anything runs.

Addresses are given by the same allocator, over a datastore in memory, and routes computed by the
same pure functions as in the agent: what is printed here is what the agent will do.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_network

from pycni.datastore.memory import MemoryDatastore
from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import AssignRequest
from pycni.ipam.tunnel import ensure_tunnel_addresses
from pycni.model.endpoints import EndpointKey, EndpointState, WorkloadEndpoint
from pycni.model.network import (
    IPV6_CONNECTED_PRIORITY,
    PROTOCOL_KERNEL,
    Address,
    IPInterface,
    KernelState,
    Link,
    NextHop,
    Route,
    RouteKey,
    Scope,
)
from pycni.model.resources import (
    Node,
)
from pycni.model.tunnels import with_address
from pycni.plan.desired import compute
from pycni.plan.exports import wanted_adj_ribs_out
from pycni.plan.inputs import Inputs, Settings
from pycni.plan.iproute import ip_route_lines
from pycni.plan.mtu import pod_mtu
from pycni.plan.peering import wanted_neighbours
from pycni.plan.prefixes import route_key
from pycni.ports import Datastore
from pycni.topology import routers
from pycni.topology.model import UNDERLAY, Topology, TopologyNode, TopologyPod, addresses_of
from pycni.topology.paper import Cluster, exchange, read_cluster

NETWORK = "k8s-pod-network"


@dataclass(frozen=True, slots=True)
class Prediction:
    """The wanted facts of a whole cluster, by node."""

    inputs: dict[str, Inputs]
    states: dict[str, KernelState]

    def lines(self, node: str, *, family: int = 4) -> list[str]:
        """Return a node's table as `ip route` prints it, blanks collapsed."""
        return ip_route_lines(self.states[node], family=family)


async def predict(topology: Topology, *, departed: Iterable[TopologyPod] = ()) -> Prediction:
    """Give addresses and compute every node's routes.

    `departed` pods are no more, but the blocks of their addresses are still their nodes'.
    """
    datastore = MemoryDatastore()
    for resource in topology.resources:
        await datastore.create(resource)
    await _register_nodes(topology, datastore)
    for pod in departed:
        endpoint = await _add_pod(topology, pod, datastore)
        await Allocator(datastore, node=pod.node).release_by_handle(endpoint.handle_id)
    endpoints = [await _add_pod(topology, pod, datastore) for pod in topology.pods]
    cluster = await read_cluster(datastore)
    inputs = {n.name: _inputs(n, cluster, endpoints) for n in topology.nodes}
    exchange(inputs)
    _hear_routers(topology, inputs)
    return Prediction(
        inputs=inputs,
        states={n.name: _state(n, inputs[n.name]) for n in topology.nodes},
    )


async def _register_nodes(topology: Topology, datastore: Datastore) -> None:
    for node in topology.nodes:
        tunnels, lacking = await ensure_tunnel_addresses(
            Allocator(datastore, node=node.name), datastore, node=node.name
        )
        if lacking is not None:
            raise lacking
        known = await datastore.get(Node, node.name)
        stated = known.value if known is not None else Node(node.name)
        value = replace(stated, ipv4=node.address, ipv6=node.address6 or stated.ipv6)
        for kind, address in tunnels.items():
            value = with_address(value, kind, address)
        if known is None:
            await datastore.create(value)
        else:
            await datastore.update(value, if_revision=known.revision)


async def _add_pod(topology: Topology, pod: TopologyPod, datastore: Datastore) -> WorkloadEndpoint:
    key = EndpointKey(NETWORK, pod.full_name.replace("/", "."), "eth0")
    assignment = await Allocator(datastore, node=pod.node).assign(
        AssignRequest(
            handle_id=f"{NETWORK}.{key.container_id}",
            attributes=(("node", pod.node),),
            versions=tuple(a.version for a in pod.addresses) or topology.pod_versions,
            addresses=pod.addresses,
        )
    )
    node = next(n for n in topology.nodes if n.name == pod.node)
    return WorkloadEndpoint(
        key=key,
        node=pod.node,
        netns="",
        host_veth=pod.interface,
        handle_id=f"{NETWORK}.{key.container_id}",
        state=EndpointState.READY,
        addresses=assignment.addresses,
        mtu=pod_mtu(topology.pools, underlay_mtu=node.mtu),
        pod_namespace=pod.namespace,
        pod_name=pod.name,
    )


def _inputs(node: TopologyNode, cluster: Cluster, endpoints: Iterable[WorkloadEndpoint]) -> Inputs:
    inputs = cluster.inputs(Settings(node=node.name))
    for endpoint in endpoints:
        if endpoint.node == node.name:
            inputs.set_endpoint(endpoint.key, endpoint)
    inputs.addresses = {Address(UNDERLAY, address) for address, _ in addresses_of(node)}
    inputs.links = {UNDERLAY: Link(UNDERLAY, index=2, mtu=node.mtu, is_up=True)}
    return inputs


def _hear_routers(topology: Topology, inputs: dict[str, Inputs]) -> None:
    """Let every node know what others' routers pass on."""
    if not topology.routers:
        return
    neighbours = {name: wanted_neighbours(one) for name, one in inputs.items()}
    announced = {name: wanted_adj_ribs_out(one, neighbours[name]) for name, one in inputs.items()}
    heard = routers.tell(topology, neighbours=neighbours, announced=announced)
    for name, paths in heard.items():
        known = inputs[name].paths
        for path in paths:
            known[path.nlri] = (*known.get(path.nlri, ()), path)


def _state(node: TopologyNode, inputs: Inputs) -> KernelState:
    """Add what the underlay itself puts into the table."""
    routes: dict[RouteKey, tuple[Route, ...]] = {}
    for address, gateway in addresses_of(node):
        everything = ip_network("0.0.0.0/0" if address.version == 4 else "::/0")
        hop = NextHop(UNDERLAY, gateway=gateway)
        default = Route(route_key(everything), next_hops=frozenset({hop}))
        connected = _connected(address)
        routes |= {default.key: (default,), connected.key: (connected,)}
    wanted = compute(inputs)
    for own in wanted.addresses:
        if own.interface.version == 6:
            connected = _connected(own.interface, ifname=own.ifname)
            routes[connected.key] = (connected,)
    routes |= {key: (route,) for key, route in wanted.routes.items()}
    return KernelState(links=inputs.links, addresses=inputs.addresses, routes=routes)


def _connected(address: IPInterface, *, ifname: str = UNDERLAY) -> Route:
    """Return the route that the kernel makes for an address; to an IPv4 one alone it makes none."""
    hop = frozenset({NextHop(ifname)})
    if address.version == 6:
        key = RouteKey(address.network, priority=IPV6_CONNECTED_PRIORITY)
        return Route(key, next_hops=hop, protocol=PROTOCOL_KERNEL)
    return Route(
        RouteKey(address.network),
        scope=Scope.LINK,
        next_hops=hop,
        src=address.ip,
        protocol=PROTOCOL_KERNEL,
    )
