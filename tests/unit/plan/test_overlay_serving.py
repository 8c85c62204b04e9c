"""Which VXLAN devices serve, and what goes by one that the kernel refuses to make."""

from dataclasses import replace
from typing import Any

import pytest

from pycni.model.network import Link
from pycni.model.tunnels import TunnelKind
from pycni.plan import desired
from pycni.plan.overlay import serving, wanted_tunnels
from tests.unit.plan.samples import THEIRS
from tests.unit.plan.test_overlay import overlay, reason, routes


def test_a_device_that_the_kernel_refuses_to_make_is_not_used_until_it_is_there() -> None:
    made = overlay()
    there = wanted_tunnels(made)["vxlan.calico"]
    made.refused_devices = {"vxlan.calico"}

    assert reason(made) == "vxlan.calico, by which it would leave, can't be made: see the failures"
    assert {a.ifname for a in desired.wanted_addresses(made)} == {"vxlan-v6.calico"}
    assert "vxlan.calico" in wanted_tunnels(made)
    made.links[there.name] = Link(there.name, 9, "vxlan", mac=there.mac, vxlan=there.vxlan)
    assert routes(made, THEIRS) != []


@pytest.mark.parametrize(
    ("fields", "serves"),
    [({}, True), ({"is_up": False}, False), ({"mac": "66:00:00:00:00:01"}, False)],
)
def test_a_device_serves_that_is_up_and_as_it_is_to_be(
    fields: dict[str, Any], serves: bool
) -> None:
    made = overlay()
    there = wanted_tunnels(made)["vxlan.calico"]
    link = Link(there.name, 9, "vxlan", mac=there.mac, is_up=True, vxlan=there.vxlan)
    made.links[there.name] = replace(link, **fields)

    assert serving(made) == {TunnelKind.VXLAN: serves, TunnelKind.VXLAN_V6: False}
