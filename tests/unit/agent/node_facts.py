"""What is known of node-0, its kernel and a pod, and what one more message makes dirty."""

from ipaddress import ip_interface, ip_network

from pycni.agent.dirty import Dirty
from pycni.agent.facts import Facts
from pycni.agent.messages import Changed, EndpointsListed, Message
from pycni.model.network import Address, KernelState, Link, RouteKey
from pycni.model.resources import Resource, resource_name
from pycni.plan.inputs import Inputs, Settings
from tests.unit.plan.samples import node, pod

ETH0 = Link("eth0", 2, is_up=True)
TUNNEL = Link("tunl0", 3, "ipip", mtu=1480, is_up=True)
VETH = Link("cali1", 4, "veth", mtu=1480, is_up=True)
UNDERLAY = Address("eth0", ip_interface("10.10.7.20/20"))
POD = pod("192.168.39.193")
ALL = Dirty(is_all=True)


def keys(*prefixes: str) -> set[RouteKey]:
    return {RouteKey(ip_network(prefix)) for prefix in prefixes}


def facts(*messages: Message) -> Facts:
    """Return facts that know node-0, its kernel and a pod."""
    made = Facts(Inputs(Settings("node-0")))
    state = KernelState(
        links={link.name: link for link in (ETH0, TUNNEL, VETH)}, addresses={UNDERLAY}
    )
    made.snapshot(state, now=0.0)
    for message in (
        told_of(node("node-0", "10.10.7.20/20")),
        EndpointsListed([POD]),
        *messages,
    ):
        made.feed(message, now=0.0)
    return made


def told_of(value: Resource) -> Changed:
    return Changed(type(value), resource_name(value), value)


def gone(value: Resource) -> Changed:
    return Changed(type(value), resource_name(value), None)


def dirty(message: Message, *before: Message) -> Dirty:
    return facts(*before).feed(message, now=0.0)
