"""What is said where a tunnel's device can't be had."""

from ipaddress import ip_address

from pycni.kernel.linklike import no_such_kind, rival_of, unlike
from pycni.model.linklayer import Vxlan
from pycni.model.network import Link, Tunnel

IPIP = Tunnel("tunl0", "ipip", 1480)
PARAMETERS = Vxlan(4096, 4789, ip_address("10.0.0.1"))
VXLAN = Tunnel("vxlan.calico", "vxlan", 1450, "66:00:00:00:00:01", PARAMETERS)


def test_a_kernel_without_such_tunnels_is_told_with_the_pools_field() -> None:
    assert no_such_kind(IPIP).endswith("(modprobe ipip), or give every pool ipipMode: Never")
    assert no_such_kind(VXLAN).endswith("(modprobe vxlan), or give every pool vxlanMode: Never")


def test_a_rival_is_named_by_what_both_want() -> None:
    assert rival_of(IPIP).endswith("is there a tunl0?")
    assert "has VNI 4096 and UDP port 4789" in rival_of(VXLAN)


def test_a_device_serves_if_it_is_as_wanted() -> None:
    assert unlike(Link("tunl0", 3, "ipip"), IPIP) is None
    assert unlike(Link("vxlan.calico", 3, "vxlan", vxlan=PARAMETERS), VXLAN) is None
    assert unlike(Link("tunl0", 3, "veth"), IPIP) == "it exists and is of kind 'veth'"
    elsewhere = Vxlan(4096, 4789, ip_address("10.0.0.2"))
    assert unlike(Link("vxlan.calico", 3, "vxlan", vxlan=elsewhere), VXLAN) is None
    others = unlike(Link("vxlan.calico", 3, "vxlan", vxlan=Vxlan(42, 4789, None)), VXLAN)
    assert others is not None
    assert others.startswith("it exists, and is another's: ")
