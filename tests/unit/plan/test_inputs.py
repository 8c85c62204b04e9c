"""The indexes of what is known: whose an address, an interface or a pod is."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.model.endpoints import EndpointState
from pycni.model.network import Address
from pycni.model.resources_bgp import BGPConfiguration
from pycni.plan import desired
from pycni.plan.inputs import Inputs, Settings
from tests.unit.plan.samples import inputs, pod, with_pod


def test_of_two_nodes_with_one_address_the_first_by_name_has_it_whatever_the_order() -> None:
    address = ip_address("10.10.24.89")
    winners = []
    for names in (("node-1", "node-1a"), ("node-1a", "node-1")):
        made = inputs()
        one = made.nodes["node-1"]
        made.set_node("node-1", None)
        for name in names:
            made.set_node(name, replace(one, name=name))
        winners.append(made.nodes_by_address[address].name)
        made.set_node("node-1", None)
        winners.append(made.nodes_by_address[address].name)

    assert winners == ["node-1", "node-1a", "node-1", "node-1a"]


def test_a_node_that_moves_leaves_its_old_address() -> None:
    made = inputs()
    moved = made.nodes["node-3"]
    made.set_node("node-1", replace(made.nodes["node-1"], ipv4=moved.ipv4))

    assert ip_address("10.10.24.89") not in made.nodes_by_address
    assert made.nodes_by_address[ip_address("10.10.7.30")].name == "node-1"
    made.set_node("node-1", None)
    assert made.nodes_by_address[ip_address("10.10.7.30")].name == "node-3"


def test_a_later_node_that_moves_elsewhere_takes_nothing_of_the_first() -> None:
    made = inputs()
    shared = made.nodes["node-1"].ipv4
    made.set_node("node-2", replace(made.nodes["node-2"], ipv4=shared))
    made.set_node("node-2", replace(made.nodes["node-2"], ipv4=None))

    assert made.nodes_by_address[ip_address("10.10.24.89")].name == "node-1"


def test_the_successor_of_a_pod_keeps_interface_and_address_when_the_old_record_goes() -> None:
    made = with_pod("192.168.39.193", container="old")
    new = pod("192.168.39.193", container="new")
    made.set_endpoint(new.key, new)

    touched = made.set_endpoint(pod(container="old").key, None)

    assert touched == {ip_network("192.168.39.193/32")}
    assert made.host_veths["cali1"] is new
    assert made.pods[ip_network("192.168.39.193/32")] is new
    assert made.prefixes_behind("cali1") == (ip_network("192.168.39.193/32"),)
    assert made.prefixes_behind("cali2") == ()


def test_an_underlay_address_on_two_interfaces_belongs_to_the_first_by_name() -> None:
    made = inputs()
    made.addresses.add(Address("bond0", made.nodes["node-0"].ipv4))  # type: ignore[arg-type]  # it has one

    assert made.underlay(4) == "bond0"


def test_of_two_interfaces_with_the_underlay_address_one_that_bgp_heeds_has_it() -> None:
    made = inputs()
    made.addresses.add(Address("bond0", made.nodes["node-0"].ipv4))  # type: ignore[arg-type]  # it has one

    made.bgp = BGPConfiguration(ignored_interfaces=("bond*",))
    one_ignored = made.underlay(4)
    made.bgp = BGPConfiguration(ignored_interfaces=("bond*", "eth0"))

    assert (one_ignored, made.underlay(4)) == ("eth0", "bond0")


def test_a_node_without_ipv6_has_no_underlay_for_it() -> None:
    made = inputs()
    made.set_node("node-0", replace(made.nodes["node-0"], ipv6=None))

    assert made.underlay(6) is None
    assert made.own_interface(6) is None


def test_a_forgotten_pod_leaves_nothing_wanted() -> None:
    made = with_pod("192.168.39.193")

    touched = made.set_endpoint(pod().key, None)

    assert touched == {ip_network("192.168.39.193/32")}
    assert desired.wanted_pod_links(made) == {}
    assert made.host_veths == {}


@pytest.mark.parametrize("order", ["old first", "new first"])
def test_of_two_sandboxes_of_a_pod_the_finished_one_has_the_interface(order: str) -> None:
    """Their records come in any order; the pod's own interface is no matter of the old one."""
    made = Inputs(Settings("node-0"))
    old = replace(pod("10.0.0.1", container="old", state=EndpointState.INTENT), pod_name="web")
    new = replace(pod("10.0.0.2", container="new"), pod_name="web")
    for one in (old, new) if order == "old first" else (new, old):
        made.set_endpoint(one.key, one)

    assert made.host_veths["cali1"] == new
    made.set_endpoint(old.key, None)
    assert made.host_veths["cali1"] == new
    made.set_endpoint(old.key, old)
    made.set_endpoint(new.key, None)
    assert made.host_veths["cali1"] == old
    made.set_endpoint(old.key, None)
    assert made.host_veths == {}
