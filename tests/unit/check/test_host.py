"""Settings and leftovers of a machine."""

import json
from ipaddress import ip_address, ip_network

import pytest

from pycni.check import host
from pycni.model.linklayer import FdbEntry, Vxlan
from pycni.model.network import KernelState, Link, NextHop, Route, RouteKey

ALL, TUNNEL = "net.ipv4.conf.all.rp_filter", "net.ipv4.conf.tunl0.rp_filter"
OURS = json.dumps({"name": "k8s", "plugins": [{"type": "pycni"}]})
THEIRS = json.dumps({"name": "cbr0", "plugins": [{"type": "flannel"}]})


@pytest.mark.parametrize(
    ("sysctls", "named"),
    [
        ({ALL: "0", TUNNEL: "0"}, None),
        ({ALL: "2", TUNNEL: "0"}, None),
        ({}, None),
        ({ALL: "1", TUNNEL: "0"}, ALL),
        ({ALL: "0", TUNNEL: "1"}, TUNNEL),
    ],
)
def test_a_strict_filter_on_the_tunnel_is_found(sysctls: dict[str, str], named: str | None) -> None:
    found = host.judge_rp_filter(sysctls, tunnel="tunl0")

    assert [one.repair.split("=")[0] for one in found] == ([f"sysctl -w {named}"] if named else [])


def test_without_a_tunnel_its_filter_is_nothing() -> None:
    assert host.judge_rp_filter({ALL: "1"}, tunnel="") == []


def route(dst: str, oif: str, *, priority: int = 0, table: int = 254) -> Route:
    key = RouteKey(ip_network(dst), table=table, priority=priority)
    return Route(key, next_hops=frozenset({NextHop(oif)}))


def kernel(*routes: Route, links: tuple[str, ...] = ()) -> KernelState:
    return KernelState(
        links={name: Link(name, number) for number, name in enumerate(links, 1)},
        routes={one.key: (one,) for one in routes},
    )


def test_interfaces_of_other_networks_are_found_and_ours_are_not() -> None:
    links = ("lo", "eth0", "tunl0", "cali0123", "docker0", "cni0", "flannel.1", "vxlan.calico",
             "cilium_host", "weave", "kube-bridge")  # fmt: skip
    found = host.judge_interfaces(kernel(route("10.244.0.0/24", "cni0"), links=links))

    names = [one.repair.rsplit(" ", 1)[1] for one in found]
    assert names == ["cilium_host", "cni0", "flannel.1", "kube-bridge", "vxlan.calico", "weave"]
    assert "with 1 routes" in found[1].what


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"10-pycni.conflist": OURS, "99-flannel.conflist": THEIRS}, None),
        ({"10-x.conf": json.dumps({"type": "pycni"})}, None),
        ({"05-flannel.conflist": THEIRS, "10-pycni.conflist": OURS}, "05-flannel.conflist comes"),
        ({"05-broken.conflist": "{", "10-pycni.conflist": OURS}, "05-broken.conflist comes"),
        ({"05-list.json": "[]", "10-pycni.conflist": OURS}, "05-list.json comes"),
        ({"05.conf": '{"plugins": 1}', "10-pycni.conflist": OURS}, "05.conf comes"),
        ({"05.conf": '{"plugins": [1]}', "10-pycni.conflist": OURS}, "05.conf comes"),
        ({"10-flannel.conflist": THEIRS}, "no file of /net.d names"),
        ({}, "no file of /net.d names"),
    ],
)
def test_the_first_configuration_must_be_ours(files: dict[str, str], what: str | None) -> None:
    found = host.judge_configurations(files, directory="/net.d")

    assert len(found) == (what is not None)
    assert all(what is None or what in one.what for one in found)


def test_the_narrowest_and_first_route_of_the_main_table_leads_there() -> None:
    state = kernel(
        route("0.0.0.0/0", "eth0"),
        route("192.168.1.0/26", "eth1", priority=9),
        route("192.168.1.0/26", "tunl0"),
        route("192.168.1.1/32", "vrf", table=7),
    )
    state.routes[RouteKey(ip_network("192.168.1.1/32"))] = ()

    found = host.route_to(state, ip_address("192.168.1.1"))

    assert found is not None
    assert found.oifs == {"tunl0"}
    assert host.route_to(kernel(), ip_address("192.168.1.1")) is None


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_vxlan_device_is_another_networks_if_its_entries_are(is_ours: bool) -> None:
    device = Link("vxlan.calico", 7, "vxlan", vxlan=Vxlan(4096, 4789, None))
    entry = FdbEntry("vxlan.calico", "66:00:00:00:00:02", ip_address("10.0.0.2"), is_ours)
    there = KernelState(links={device.name: device}, neighbours={entry.key: entry})

    assert bool(host.judge_interfaces(there)) is not is_ours
