"""Which differences of a pod's interface count."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_interface

import pytest

from pycni.kernel import podplan
from pycni.kernel.podcheck import Side, differences
from pycni.model.network import Link, Route
from pycni.ports import PlugRequest

REQUEST = PlugRequest(
    netns_fd=7,
    ifname="eth0",
    host_veth="cali0",
    alias="pycni:a/b/eth0",
    addresses=(ip_interface("10.0.0.1/32"), ip_interface("fd00::1/128")),
    mtu=1480,
    route_protocol=3,
)


def of_pod(change: Callable[[Route], Route]) -> list[str]:
    """Return what differs in a pod whose routes are changed so, and all else as it was built."""
    pod = Side(Link("eth0", 2, "veth", 1480, mac="02:00:00:00:00:01", is_up=True))
    pod.addresses = set(podplan.pod_addresses(REQUEST))
    pod.routes = {change(route) for route in podplan.pod_routes(REQUEST)}
    pod.sysctls = dict(podplan.pod_sysctls(REQUEST))
    found = differences(REQUEST, host=Side(), pod=pod)
    return [one for one in found if "pod" in one]


@pytest.mark.parametrize("table", [254, 100])
def test_routes_of_the_pod_count_in_whichever_table(table: int) -> None:
    assert of_pod(lambda route: replace(route, key=replace(route.key, table=table))) == []


def test_routes_of_the_pod_by_another_interface_do_not_count() -> None:
    def elsewhere(route: Route) -> Route:
        return replace(
            route, next_hops=frozenset(replace(hop, oif="eth1") for hop in route.next_hops)
        )

    assert [one.partition(" dev")[0] for one in of_pod(elsewhere)] == [
        "the pod lacks route 169.254.1.1",
        "the pod lacks route default via 169.254.1.1",
        "the pod lacks route default via fe80::ecee:eeff:feee:eeee",
    ]
