"""VXLAN of a node: its devices, who is behind them, and the routes that lead there."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from pycni.model.linklayer import FdbEntry, NeighbourEntry, Vxlan
from pycni.model.network import Address, KernelState, Link, RouteKey, Tunnel
from pycni.model.resources import IPPool, TunnelMode
from pycni.model.tunnels import TunnelKind
from pycni.model.vxlan import VxlanEnd, usual_mac
from pycni.plan import desired
from pycni.plan.delta import Gate, plan
from pycni.plan.imports import Rejected, judge, judge_prefix
from pycni.plan.inputs import Inputs, Settings, TunnelPhase
from pycni.plan.overlay import far_ends, is_foreign, wanted_tunnels
from pycni.plan.ownership import Ownership
from tests.unit.plan.samples import OWN, THEIRS, affinity, inputs, learn, lines, path, pool

NEAR = "192.168.9.0/26"
THEIRS6, NEAR6 = "fd00:1::80/122", "fd00:1::40/122"
MACS = {name: usual_mac(name, version=4) for name in ("node-0", "node-1", "node-2", "node-3")}


def end(address: str | None, mac: str | None = None) -> VxlanEnd:
    return VxlanEnd(None if address is None else ip_address(address), mac)


def change(made: Inputs, name: str, **fields: object) -> None:
    made.set_node(name, replace(made.nodes[name], **fields))  # type: ignore[arg-type]  # any field


def overlay(mode: TunnelMode = TunnelMode.ALWAYS, *, settings: Settings | None = None) -> Inputs:
    """Return what node-0 knows where both pools are tunnelled by VXLAN."""
    made = inputs(mode=TunnelMode.NEVER, settings=settings)
    made.pools = {name: replace(one, vxlan_mode=mode) for name, one in made.pools.items()}
    made.affinities[ip_network("fd00:1::/122")] = affinity("fd00:1::/122", "node-0")
    for name, four, six in (
        ("node-0", "192.168.39.192", "fd00:1::1"),
        ("node-1", "192.168.84.128", "fd00:1::40"),
        ("node-2", "192.168.247.0", "fd00:1::80"),
        ("node-3", "192.168.9.0", None),
    ):
        change(made, name, ipip_tunnel_address=None, vxlan=end(four), vxlan6=end(six))
    learn(made, path(THEIRS), path(NEAR, "10.10.7.30"))
    learn(made, path(THEIRS6, "fd11::43"), path(NEAR6, "fd10::24"))
    return made


def routes(made: Inputs, nlri: str) -> list[str]:
    family = ip_network(nlri).version
    return lines(judge_prefix(made, ip_network(nlri)).route, family=family)


def reason(made: Inputs) -> str:
    verdict = judge(made, made.paths[ip_network(THEIRS)][0])
    assert isinstance(verdict, Rejected)
    return verdict.reason


# --- routes -------------------------------------------------------------------------------------


def test_a_block_is_reached_by_its_nodes_address_inside_the_tunnel() -> None:
    made = overlay()

    assert routes(made, THEIRS) == [
        f"{THEIRS} via 192.168.247.0 dev vxlan.calico proto bird onlink"
    ]
    assert routes(made, NEAR) == [f"{NEAR} via 192.168.9.0 dev vxlan.calico proto bird onlink"]
    assert routes(made, THEIRS6) == [
        f"{THEIRS6} via fd00:1::80 dev vxlan-v6.calico proto bird metric 1024 onlink pref medium"
    ]


def test_across_subnets_alone_neighbours_are_reached_directly() -> None:
    made = overlay(TunnelMode.CROSS_SUBNET)

    assert routes(made, THEIRS) == [
        f"{THEIRS} via 192.168.247.0 dev vxlan.calico proto bird onlink"
    ]
    assert routes(made, NEAR) == [f"{NEAR} via 10.10.7.30 dev eth0 proto bird"]
    assert routes(made, NEAR6) == [
        f"{NEAR6} via fd10::24 dev eth0 proto bird metric 1024 pref medium"
    ]


def test_each_far_end_of_ipv6_has_a_route_of_its_own() -> None:
    made = overlay()
    own = RouteKey(ip_network("fd00:1::80"), priority=1024)

    assert lines(desired.route(made, own), family=6) == [
        "fd00:1::80 dev vxlan-v6.calico proto bird metric 1024 pref medium"
    ]
    assert own in desired.wanted_routes(made)
    made.pools["pool6"] = pool("fd00:1::/64")
    assert own not in desired.wanted_routes(made)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"vxlan": VxlanEnd()}, "it has no address inside the VXLAN tunnel (yet)"),
        (
            {"vxlan": end("192.168.84.129")},
            "its address inside the VXLAN tunnel, 192.168.84.129, is held by node-1",
        ),
        (
            {"vxlan": end("192.168.100.1")},
            "no block affinity covers its address inside the VXLAN tunnel, 192.168.100.1 (yet)",
        ),
        (
            {"vxlan": end("192.168.247.0", MACS["node-1"])},
            f"its VXLAN MAC address {MACS['node-1']} is that of node-1",
        ),
        (
            {"vxlan": end("192.168.247.0", MACS["node-0"])},
            f"its VXLAN MAC address {MACS['node-0']} is that of node-0",
        ),
    ],
)
def test_a_node_whose_end_can_not_be_used_is_not_tunnelled_to(
    fields: dict[str, object], why: str
) -> None:
    made = overlay()
    change(made, "node-2", vxlan=VxlanEnd())  # else it would be taken for one that moves

    change(made, "node-2", **fields)

    assert reason(made) == f"pool pool4 tunnels to node-2, and {why}"
    assert routes(made, NEAR) != []


def test_an_address_that_is_borrowed_is_its_nodes() -> None:
    made = overlay()
    made.borrowed[ip_network("192.168.84.140")] = "node-2"
    change(made, "node-2", vxlan=end("192.168.84.140"))

    assert routes(made, THEIRS) == [
        f"{THEIRS} via 192.168.84.140 dev vxlan.calico proto bird onlink"
    ]


def test_nodes_without_or_with_anothers_underlay_address_have_no_end() -> None:
    made = overlay()
    change(made, "node-3", ipv4=None)
    change(made, "node-2", ipv4=ip_interface("10.10.24.89/20"))

    ends = far_ends(made, TunnelKind.VXLAN)

    assert ends["node-3"] == "it has no IPv4 address"
    assert ends["node-2"] == "its address 10.10.24.89 is another node's"


def test_before_this_node_is_known_others_have_ends() -> None:
    made = overlay()
    made.set_node("node-0", None)

    assert set(far_ends(made, TunnelKind.VXLAN)) == {"node-1", "node-2", "node-3"}
    assert desired.wanted_addresses(made) == set()


def test_what_is_no_node_or_of_another_version_is_not_tunnelled_to() -> None:
    made = overlay()
    made.set_node("node-2", None)
    # From a router that passes on what others have (see the cases of BGP).
    assert "10.10.43.25" in reason(made)


# --- devices, addresses, entries ----------------------------------------------------------------


def test_each_pool_has_a_device_with_room_for_its_headers() -> None:
    made = overlay()

    assert wanted_tunnels(made) == {
        "vxlan.calico": Tunnel(
            "vxlan.calico",
            "vxlan",
            1450,
            "66:fa:5e:1a:4d:f3",
            Vxlan(4096, 4789, ip_address("10.10.7.20")),
        ),
        "vxlan-v6.calico": Tunnel(
            "vxlan-v6.calico",
            "vxlan",
            1430,
            "66:94:0a:84:7f:1d",
            Vxlan(4096, 4789, ip_address("fd10::7")),
        ),
    }
    assert desired.wanted_addresses(made) == {
        Address("vxlan.calico", ip_interface("192.168.39.192/32")),
        Address("vxlan-v6.calico", ip_interface("fd00:1::1/128")),
    }
    assert desired.wanted_sysctls(made)["net.ipv4.conf.vxlan/calico.rp_filter"] == "0"


def test_the_configured_mtu_and_the_stated_mac_hold() -> None:
    made = overlay(settings=Settings("node-0", tunnel_mtu=1400))
    change(made, "node-0", vxlan=end("192.168.39.192", "66:00:00:00:00:07"))

    device = wanted_tunnels(made)["vxlan.calico"]

    assert (device.mtu, device.mac) == (1400, "66:00:00:00:00:07")


def test_entries_lead_to_the_other_nodes() -> None:
    made = overlay()
    made.pools.pop("pool6")

    assert set(desired.wanted_entries(made).values()) == {
        entry
        for name, underlay, address in (
            ("node-1", "10.10.24.89", "192.168.84.128"),
            ("node-2", "10.10.43.25", "192.168.247.0"),
            ("node-3", "10.10.7.30", "192.168.9.0"),
        )
        for entry in (
            FdbEntry("vxlan.calico", MACS[name], ip_address(underlay)),
            NeighbourEntry("vxlan.calico", ip_address(address), MACS[name]),
        )
    }


def test_ipip_beside_vxlan_has_its_own_device() -> None:
    made = overlay()
    made.pools["third"] = IPPool("third", ip_network("10.9.0.0/16"), ipip_mode=TunnelMode.ALWAYS)

    assert set(wanted_tunnels(made)) == {"tunl0", "vxlan.calico", "vxlan-v6.calico"}
    text = desired.wanted_ruleset(made)
    assert text is not None
    assert "udp dport 4789" in text.text
    assert "meta l4proto 4" in text.text


def test_the_table_knows_vxlan_only_where_there_is_some() -> None:
    made = overlay(TunnelMode.NEVER)

    ruleset = desired.wanted_ruleset(made)

    assert ruleset is not None
    assert "4789" not in ruleset.text


def test_a_device_stays_while_the_nodes_address_is_away() -> None:
    made = overlay()
    there = wanted_tunnels(made)["vxlan.calico"]
    made.links[there.name] = Link(
        there.name, 9, "vxlan", there.mtu, there.mac, is_up=True, vxlan=there.vxlan
    )
    change(made, "node-0", ipv4=None)

    assert wanted_tunnels(made)["vxlan.calico"] == there
    made.links.pop(there.name)
    assert "vxlan.calico" not in wanted_tunnels(made)


def test_anothers_device_is_not_used() -> None:
    made = overlay()
    parameters = Vxlan(42, 4789, None)
    made.links["vxlan.calico"] = Link("vxlan.calico", 9, "vxlan", vxlan=parameters)

    assert is_foreign(made, TunnelKind.VXLAN)
    assert reason(made) == "vxlan.calico, by which it would leave, is another's: see the failures"
    assert {a.ifname for a in desired.wanted_addresses(made)} == {"vxlan-v6.calico"}
    assert {e.ifname for e in desired.wanted_entries(made).values()} == {"vxlan-v6.calico"}
    assert "net.ipv4.conf.vxlan/calico.rp_filter" not in desired.wanted_sysctls(made)


@pytest.mark.parametrize(
    ("kind", "vni", "mac", "is_ours"),
    [
        ("vxlan", 4096, "66:00:00:00:00:01", True),
        ("vxlan", 42, "66:fa:5e:1a:4d:f3", True),
        ("vxlan", 42, "66:00:00:00:00:01", False),
        ("bridge", None, "66:fa:5e:1a:4d:f3", False),
    ],
)
def test_a_device_shows_by_its_network_or_its_mac_that_it_is_ours(
    kind: str, vni: int | None, mac: str, is_ours: bool
) -> None:
    made = overlay()
    parameters = None if vni is None else Vxlan(vni, 8472, None, is_learning=True)
    made.links["vxlan.calico"] = Link("vxlan.calico", 9, kind, mac=mac, vxlan=parameters)

    assert is_foreign(made, TunnelKind.VXLAN) is not is_ours


def test_a_device_that_nobody_can_judge_is_anothers() -> None:
    made = overlay()
    made.set_node("node-0", None)
    made.links["vxlan.calico"] = Link("vxlan.calico", 9, "bridge")

    assert is_foreign(made, TunnelKind.VXLAN)


def test_a_node_that_leaves_keeps_its_device_until_its_address_is_given_back() -> None:
    made = overlay()
    made.is_leaving = True
    assert "vxlan.calico" in wanted_tunnels(made)

    change(made, "node-0", vxlan=VxlanEnd())

    assert "vxlan.calico" not in wanted_tunnels(made)


# --- while a pool changes -----------------------------------------------------------------------


def test_the_tunnel_before_leads_where_the_new_one_does_not_yet() -> None:
    made = overlay()
    made.formers["pool4"] = pool(mode=TunnelMode.ALWAYS)
    change(made, "node-2", vxlan=VxlanEnd())

    assert routes(made, THEIRS) == [f"{THEIRS} via 10.10.43.25 dev tunl0 proto bird onlink"]
    assert routes(made, NEAR) == [f"{NEAR} via 192.168.9.0 dev vxlan.calico proto bird onlink"]


def test_where_neither_leads_the_new_ones_reason_is_told() -> None:
    made = overlay()
    made.formers["pool4"] = pool(mode=TunnelMode.NEVER)
    change(made, "node-2", vxlan=VxlanEnd())

    assert "inside the VXLAN tunnel" in reason(made)


def test_while_a_tunnel_is_coming_the_one_before_is_used() -> None:
    made = overlay()
    made.tunnel_phases[TunnelKind.VXLAN] = TunnelPhase.COMING
    assert routes(made, NEAR) == [f"{NEAR} via 10.10.7.30 dev eth0 proto bird"]

    made.formers["pool4"] = pool(mode=TunnelMode.ALWAYS)

    assert routes(made, NEAR) == [f"{NEAR} via 10.10.7.30 dev tunl0 proto bird onlink"]


# --- what concerns the ends ---------------------------------------------------------------------


def test_blocks_with_an_end_are_known() -> None:
    made = overlay()
    assert made.concerns_end(ip_network(THEIRS))
    assert made.concerns_end(ip_network("192.168.247.0/32"))
    assert not made.concerns_end(ip_network("192.168.100.0/26"))

    change(made, "node-2", vxlan=VxlanEnd())
    change(made, "node-2", vxlan=end("192.168.100.1"))

    assert made.concerns_end(ip_network("192.168.100.0/26"))
    assert not made.concerns_end(ip_network(THEIRS))


def test_the_books_say_who_holds_an_address() -> None:
    made = overlay()

    assert made.holder_of(ip_address("192.168.39.200")) == "node-0"
    assert made.holder_of(ip_address("fd00:1::90")) == "node-2"
    assert made.holder_of(ip_address("10.0.0.1")) is None
    assert OWN.startswith("192.168.39.")


def test_a_device_is_there_before_its_address() -> None:
    made = overlay()
    change(made, "node-0", vxlan=VxlanEnd(), vxlan6=VxlanEnd())

    assert set(wanted_tunnels(made)) == {"vxlan.calico", "vxlan-v6.calico"}
    assert desired.wanted_addresses(made) == set()


def test_anothers_device_is_foreign_before_this_node_has_an_address_too() -> None:
    made = overlay()
    change(made, "node-0", ipv4=None)
    foreign = Link(
        "vxlan.calico", 9, "vxlan", 1450, "aa:00:00:00:00:01", vxlan=Vxlan(42, 4789, None)
    )
    made.links["vxlan.calico"] = foreign

    assert is_foreign(made, TunnelKind.VXLAN)
    assert "vxlan.calico" not in wanted_tunnels(made)
    made.links["vxlan.calico"] = replace(foreign, vxlan=Vxlan(4096, 4789, None))
    assert not is_foreign(made, TunnelKind.VXLAN)


def test_routes_to_far_ends_wait_until_all_nodes_are_known() -> None:
    made = overlay()
    have = KernelState()
    have.routes |= {key: (one,) for key, one in desired.wanted_routes(made).items()}
    ownership = Ownership(12, "tunl0", frozenset(p.cidr for p in made.pools.values()), frozenset())

    early = Gate(endpoints_ready=True, blocks_ready=False, learned_ready=False)
    ops = plan(desired.Desired(), have, ownership=ownership, gate=early).ops

    assert any(key.dst.prefixlen == 128 for key in have.routes)
    assert ops == []
