"""The encoded requests of a plug against the values that `check` compares with."""

from dataclasses import replace
from ipaddress import ip_interface, ip_network

import pytest

from pycni.kernel import podplan, podwire, wire_link, wire_route
from pycni.model.endpoints import GATEWAY_V6
from pycni.ports import PlugRequest

FOUR = PlugRequest(
    netns_fd=3,
    ifname="eth0",
    host_veth="cali0",
    alias="pycni net/container/eth0",
    addresses=(ip_interface("10.1.2.3/32"),),
    mtu=1480,
    route_protocol=12,
)
BOTH = replace(FOUR, addresses=(*FOUR.addresses, ip_interface("fd00::1/64")))
ROUTED = replace(
    BOTH,
    routes=(ip_network("172.16.0.0/12"), ip_network("fd99::/64")),
    has_default_route=False,
)


@pytest.mark.parametrize("request_", [FOUR, BOTH, ROUTED], ids=["four", "both", "routed"])
def test_the_pods_end_gets_what_is_planned(request_: PlugRequest) -> None:
    assert podwire.pod_end(request_, index=5) == [
        wire_link.set_link(index=1, is_up=True),
        wire_link.set_link(index=5, is_up=True),
        *(wire_link.add_address(a, index=5) for a in podplan.pod_addresses(request_)),
        *(
            # The way to the gateway may be there twice, by two interfaces; no other route may.
            (
                wire_route.append_request
                if route.key.dst == ip_network("169.254.1.1/32")
                else wire_route.add_request
            )(route, index_of={"eth0": 5}.__getitem__)
            for route in podplan.pod_routes(request_)
        ),
    ]


@pytest.mark.parametrize("request_", [FOUR, BOTH], ids=["four", "both"])
def test_the_hosts_end_gets_what_is_planned(request_: PlugRequest) -> None:
    link_local = [wire_link.add_address(GATEWAY_V6, index=7)]

    assert podwire.host_end(request_, index=7) == [
        *(link_local if request_ is BOTH else []),
        wire_link.set_link(index=7, is_up=True),
        *(
            wire_route.add_request(route, index_of={"cali0": 7}.__getitem__)
            for route in podplan.host_routes(request_)
        ),
    ]


def test_pods_that_differ_share_no_encoding() -> None:
    other = replace(FOUR, routes=(ip_network("172.16.0.0/12"),))

    assert podwire.pod_end(FOUR, index=5) != podwire.pod_end(other, index=5)
    assert podwire.pod_end(FOUR, index=5) != podwire.pod_end(FOUR, index=6)
