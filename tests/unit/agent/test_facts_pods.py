"""What the record of a pod makes dirty: once, and only what its pod has."""

from dataclasses import replace

from pycni.agent.dirty import Dirty
from pycni.agent.messages import EndpointChanged, EndpointsListed, Leaving
from pycni.model.endpoints import EndpointState
from tests.unit.agent.node_facts import POD, dirty, facts, keys
from tests.unit.plan.samples import pod


def test_a_pod_concerns_its_routes_and_its_interface() -> None:
    new = pod("192.168.39.200", veth="cali2", container="two")

    assert dirty(EndpointChanged(new.key, new)) == Dirty(
        keys=keys("192.168.39.200/32"), links={"cali2"}
    )


def test_a_pod_that_is_gone_concerns_what_it_had() -> None:
    assert dirty(EndpointChanged(POD.key, None)) == Dirty(
        keys=keys("192.168.39.193/32"), links={"cali1"}
    )


def test_a_pod_of_a_node_that_leaves_concerns_announcements_as_well() -> None:
    leaving = Leaving(is_wanted=True)

    assert dirty(EndpointChanged(POD.key, None), leaving).is_bgp
    assert dirty(EndpointsListed([]), leaving).is_bgp


def test_a_pod_in_the_making_concerns_nobody_before_it_is_there() -> None:
    new = pod(veth="cali2", container="two", state=EndpointState.INTENT)

    assert not dirty(EndpointChanged(new.key, new))


def test_a_pod_that_is_being_deleted_concerns_its_interface_once_and_its_routes_twice() -> None:
    unfinished = EndpointChanged(POD.key, replace(POD, state=EndpointState.INTENT))
    of_pod = keys("192.168.39.193/32")

    assert dirty(unfinished) == Dirty(keys=of_pod, links={"cali1"})
    # A pass that met the lock of that key left a route to whoever held it.
    assert dirty(EndpointChanged(POD.key, None), unfinished) == Dirty(keys=of_pod)


def test_a_pod_that_got_another_interface_concerns_both() -> None:
    changed = replace(POD, host_veth="cali2")

    assert dirty(EndpointChanged(POD.key, changed)).links == {"cali1", "cali2"}


def test_a_pod_told_again_is_nothing_new() -> None:
    assert not dirty(EndpointChanged(POD.key, POD))
    assert not dirty(EndpointsListed([POD]))


def test_a_listing_without_a_pod_ends_it() -> None:
    assert dirty(EndpointsListed([])).keys == keys("192.168.39.193/32")


def test_an_unfinished_pod_is_not_routed() -> None:
    made = facts(EndpointChanged(POD.key, replace(POD, state=EndpointState.INTENT)))

    assert made.inputs.pods == {}


def test_another_plugins_pod_concerns_no_interface() -> None:
    new = pod("192.168.39.200", veth="", container="two")

    assert not dirty(EndpointChanged(new.key, new))
