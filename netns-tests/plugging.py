"""What tests of the pods' interfaces ask for."""

from ipaddress import ip_interface

from pycni.ports import PlugRequest


def request_for(fd: int) -> PlugRequest:
    """Ask for the first pod's interface; `fd` is its network namespace."""
    return PlugRequest(
        netns_fd=fd,
        ifname="eth0",
        host_veth="cali0",
        alias="pycni a/b/eth0",
        addresses=(ip_interface("10.0.0.1/32"),),
        mtu=1480,
        route_protocol=3,
    )
