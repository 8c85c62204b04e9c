"""Under which addresses a node is known."""

from ipaddress import ip_address, ip_interface

import pytest

from pycni.model.network import Address
from pycni.model.resources import Node
from pycni.plan.underlay import Detected, OwnAddresses, own_addresses

HOST = [
    Address("lo", ip_interface("127.0.0.1/8")),
    Address("eth0", ip_interface("10.10.7.20/20")),
    Address("eth0", ip_interface("fd00:10::20/64")),
    Address("lo", ip_interface("10.10.7.20/32")),
    Address("kube-vip", ip_interface("10.10.7.30/32")),
]


@pytest.mark.parametrize(
    ("internal", "stated", "found", "absent"),
    [
        ((), (), (), ()),
        (("10.10.7.20",), (), ("10.10.7.20/20",), ()),
        (("10.10.7.20", "fd00:10::20"), (), ("10.10.7.20/20", "fd00:10::20/64"), ()),
        (("10.10.7.30",), (), ("10.10.7.30/32",), ()),
        (("10.10.7.21",), (), (), ("10.10.7.21",)),
        (("10.10.7.21", "fd00:10::20"), (), ("fd00:10::20/64",), ("10.10.7.21",)),
        (("10.10.7.21",), ("10.9.0.1/24",), ("10.9.0.1/24",), ()),
        (("10.10.7.20",), ("fd00::1/64",), ("10.10.7.20/20", "fd00::1/64"), ()),
    ],
)
def test_stated_addresses_come_before_what_the_kubelet_registers(
    internal: tuple[str, ...],
    stated: tuple[str, ...],
    found: tuple[str, ...],
    absent: tuple[str, ...],
) -> None:
    node = Node("node-0", internal_ips=tuple(map(ip_address, internal)))

    own = own_addresses(node, stated=map(ip_interface, stated), host=HOST)

    assert own == OwnAddresses(tuple(map(ip_interface, found)), tuple(map(ip_address, absent)))


@pytest.mark.parametrize(
    ("detected", "found", "complaints"),
    [
        (Detected(4, ip_interface("10.1.0.5/24")), ("10.1.0.5/24", "fd00:10::20/64"), ()),
        (Detected(4, None), ("fd00:10::20/64",), ()),
        (Detected(4, None, "nothing fits"), ("fd00:10::20/64",), ("nothing fits",)),
        (Detected(6, ip_interface("fd01::5/64")), ("10.10.7.20/20", "fd01::5/64"), ()),
    ],
)
def test_where_an_address_is_to_be_detected_the_internal_ip_does_not_count(
    detected: Detected, found: tuple[str, ...], complaints: tuple[str, ...]
) -> None:
    node = Node("node-0", internal_ips=tuple(map(ip_address, ("10.10.7.20", "fd00:10::20"))))

    own = own_addresses(node, stated=(), host=HOST, detected=[detected])

    assert own == OwnAddresses(tuple(map(ip_interface, found)), complaints=complaints)


def test_an_address_that_nobody_names_any_more_stays_what_it_was() -> None:
    node = Node("node-0", ipv4=ip_interface("10.0.0.1/24"), ipv6=ip_interface("fd00::1/64"))

    said = OwnAddresses((ip_interface("10.10.7.20/20"),)).of(node)

    assert said == {4: ip_interface("10.10.7.20/20"), 6: ip_interface("fd00::1/64")}
    assert OwnAddresses().of(Node("node-0")) == {}
