"""What every implementation of the `Kernel` door says of the way to an address."""

from ipaddress import ip_address

import pytest

from pycni.model.network import RouteType
from tests.contract.kernel.worlds import World, route


@pytest.mark.parametrize(
    ("destination", "source"),
    [
        ("10.0.0.9", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        ("192.0.2.1", "10.0.0.1"),
        ("198.51.100.1", "172.16.0.1"),
        ("203.0.113.1", None),
        ("100.64.0.1", None),
        ("fd00::9", "fd00::1"),
        ("fd02::9", "fd00::1"),
        ("fd03::9", None),
        ("fd04::9", None),
    ],
)
def test_the_source_of_packets_is_that_of_the_way_there(
    node: World, destination: str, source: str | None
) -> None:
    node.add_link("eth1")
    node.add_address("eth1", "172.16.0.1/24")
    node.append(route("192.0.2.0/24", via="10.0.0.2", dev="eth0"))
    node.append(route("198.51.100.0/24", via="172.16.0.2", dev="eth1"))
    node.append(route("203.0.113.0/24", kind=RouteType.BLACKHOLE))
    node.append(route("fd02::/64", via="fd00::2", dev="eth0"))
    node.append(route("fd03::/64", kind=RouteType.BLACKHOLE))

    found = node.kernel.source_to(ip_address(destination))

    assert found == (None if source is None else ip_address(source))
