"""Which of a host's addresses is its node's, and why the others are not."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from pycni.autodetection import parse_method
from pycni.model.network import Address, Link
from pycni.plan.candidates import (
    PATIENCE_S,
    Host,
    Standing,
    choose,
    nothing_fits,
    passed_over,
    settle,
)

SETTING = {4: "ip_autodetection_method", 6: "ip6_autodetection_method"}
HOST = (
    "lo 127.0.0.1/8 ::1/128",
    "eth0 10.0.0.5/24 169.254.3.3/16 fd00::5/64",
    "eth1 172.16.0.5/16 172.16.0.9/32 fd01::5/64",
)


def host(*lines: str, source: str = "", internal: tuple[str, ...] = ()) -> Host:
    """Read interfaces in the order of their making; `-` before a name: down, `~`: no carrier."""
    links, addresses = {}, []
    for index, line in enumerate(lines, 1):
        marked, *texts = line.split()
        name = marked.lstrip("-~")
        links[name] = Link(name, index, is_up=marked[0] != "-", has_carrier=marked[0] != "~")
        addresses += [Address(name, ip_interface(text)) for text in texts]
    return Host(
        links,
        addresses,
        "ipip0",
        source=ip_address(source) if source else None,
        internal_ips=tuple(map(ip_address, internal)),
    )


def found(text: str, there: Host, *, version: int = 4, current: str = "") -> str:
    method = parse_method(text, setting=SETTING[version], version=version)
    one = choose(method, there, current=ip_address(current) if current else None)
    return "" if one is None else f"{one.ifname} {one.interface}"


def reasons(text: str, there: Host, *, current: str = "") -> dict[str, str]:
    method = parse_method(text, setting=SETTING[4], version=4)
    chosen = choose(method, there, current=ip_address(current) if current else None)
    rows = passed_over(method, there, chosen=chosen)
    return {f"{r.ifname} {' '.join(map(str, r.addresses))}": r.reason for r in rows}


def test_the_first_found_is_of_the_interface_made_last() -> None:
    assert found("first-found", host(*HOST)) == "eth1 172.16.0.5/16"
    assert found("first-found", host(*HOST), version=6) == "eth1 fd01::5/64"
    assert found("first-found", host("lo 127.0.0.1/8", "eth0 10.0.0.5/24")) == "eth0 10.0.0.5/24"


@pytest.mark.parametrize(
    "name",
    [
        "lo",
        "docker0",
        "br-0123456789ab",
        "cbr0",
        "cni0",
        "dummy0",
        "podman",
        "podman1",
        "virbr0",
        "lxcbr0",
        "veth123126312783",
        "cali0123456789a",
        "tunl0",
        "flannel.1",
        "kube-ipvs0",
        "nodelocaldns",
        "vxlan.calico",
        "vxlan-v6.calico",
        "wireguard.cali",
        "wg-v6.cali",
        "ipip0",
    ],
)
def test_interfaces_that_lead_to_no_other_node_are_passed_over_by_their_names(name: str) -> None:
    there = host("eth0 10.0.0.5/24", f"{name} 192.168.7.1/24")

    assert found("first-found", there) == "eth0 10.0.0.5/24"
    assert found("skip-interface=eth9", there) == "eth0 10.0.0.5/24"


@pytest.mark.parametrize("text", ["first-found", "interface=eth.*", "cidr=10.0.0.0/8"])
def test_interfaces_that_bgp_ignores_are_passed_over_by_every_method(text: str) -> None:
    there = replace(host("eth0 10.0.0.5/24", "eth1 10.1.0.5/24"), ignores=lambda n: n == "eth1")

    assert found(text, there) == "eth0 10.0.0.5/24"
    assert reasons(text, there)["eth1 10.1.0.5/24"] == (
        "the interface is one of the BGPConfiguration's ignoredInterfaces"
    )


@pytest.mark.parametrize("name", ["ibmvetha", "br-ex", "br-lan", "bond0", "wlan0", "vxlan100"])
def test_interfaces_that_only_look_like_those_are_not(name: str) -> None:
    there = host("lo 127.0.0.1/8", f"{name} 192.168.7.1/24")

    assert found("first-found", there) == f"{name} 192.168.7.1/24"


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("interface=eth0", "eth0 10.0.0.5/24"),
        ("interface=nothing,th0$", "eth0 10.0.0.5/24"),
        ("interface=lo", ""),
        ("interface=wlan.*", ""),
        ("skip-interface=eth1", "eth0 10.0.0.5/24"),
        ("skip-interface=eth0,eth1", ""),
        ("cidr=10.0.0.0/8", "eth0 10.0.0.5/24"),
        ("cidr=192.0.2.0/24,172.16.0.0/12", "eth1 172.16.0.5/16"),
        ("cidr=172.16.0.9/32", "eth1 172.16.0.9/32"),
        ("cidr=192.0.2.0/24", ""),
        ("cidr=127.0.0.0/8,169.254.0.0/16", ""),
        ("can-reach=10.0.0.1", "eth0 10.0.0.5/24"),
        ("kubernetes-internal-ip", "eth0 10.0.0.5/24"),
    ],
)
def test_each_method_finds_what_it_says(method: str, expected: str) -> None:
    there = host(*HOST, source="10.0.0.5", internal=("10.0.0.5",))

    assert found(method, there) == expected


def test_where_nothing_leads_to_the_destination_nothing_is_found() -> None:
    assert found("can-reach=192.0.2.1", host(*HOST)) == ""


def test_a_named_interface_may_be_one_that_is_passed_over_elsewhere() -> None:
    there = host("lo 127.0.0.1/8 10.255.0.5/32", "eth0 10.0.0.5/24", "dummy0 10.9.0.5/32")

    assert found("interface=lo", there) == "lo 10.255.0.5/32"
    assert found("cidr=10.9.0.0/16", there) == "dummy0 10.9.0.5/32"


def test_addresses_of_pods_and_services_are_never_a_nodes() -> None:
    there = host(
        "eth0 10.0.0.5/24", "kube-ipvs0 10.0.0.80/32", "cali0 10.0.0.81/32", "ipip0 10.0.0.82/32"
    )

    assert found("cidr=10.0.0.0/24", there) == "eth0 10.0.0.5/24"
    assert found("interface=kube-ipvs0", there) == ""
    assert found("can-reach=10.0.0.9", host("ipip0 10.0.0.82/32", source="10.0.0.82")) == ""


def test_interfaces_that_are_down_are_passed_over_and_those_without_carrier_come_last() -> None:
    assert found("first-found", host("eth0 10.0.0.5/24", "-eth1 10.1.0.5/24")) == "eth0 10.0.0.5/24"
    assert found("first-found", host("eth0 10.0.0.5/24", "~eth1 10.1.0.5/24")) == "eth0 10.0.0.5/24"
    assert found("first-found", host("~eth1 10.1.0.5/24")) == "eth1 10.1.0.5/24"
    assert found("first-found", host("-eth1 10.1.0.5/24")) == ""


def test_what_has_an_interface_that_nobody_knows_of_is_left_out() -> None:
    there = Host({}, [Address("eth0", ip_interface("10.0.0.5/24"))], "tunl0")

    assert found("first-found", there) == ""


def test_the_current_address_is_kept_as_long_as_it_fits() -> None:
    assert found("first-found", host(*HOST), current="10.0.0.5") == "eth0 10.0.0.5/24"
    assert found("interface=eth1", host(*HOST), current="10.0.0.5") == "eth1 172.16.0.5/16"
    assert found("first-found", host(*HOST), current="10.0.0.6") == "eth1 172.16.0.5/16"
    no_cable = host("~eth0 10.0.0.5/24", "eth1 172.16.0.5/16")
    assert found("first-found", no_cable, current="10.0.0.5") == "eth0 10.0.0.5/24"


def test_of_two_places_of_an_address_the_one_with_a_subnet_counts() -> None:
    there = host("eth0 10.0.0.5/24", "eth1 10.0.0.5/32")

    assert found("first-found", there) == "eth0 10.0.0.5/24"


def test_each_candidate_that_was_passed_over_has_its_reason() -> None:
    there = host(*HOST, "docker0 172.17.0.1/16", "-eth2 10.2.0.5/24", "ipip0 192.168.0.1/32")

    assert reasons("first-found", there) == {
        "lo 127.0.0.1/8": "interfaces of this name lead to no other node",
        "eth0 10.0.0.5/24": "it fits, and 172.16.0.5/16 of eth1 comes first",
        "eth0 169.254.3.3/16": "it is a link-local address",
        "eth1 172.16.0.9/32": "it fits, and 172.16.0.5/16 of eth1 comes first",
        "docker0 172.17.0.1/16": "interfaces of this name lead to no other node",
        "eth2 10.2.0.5/24": "the interface is down",
        "ipip0 192.168.0.1/32": "the interface is for pods or Services",
    }


@pytest.mark.parametrize(
    ("method", "current", "reason"),
    [
        ("first-found", "172.16.0.5", "it fits, and 172.16.0.5/16 of eth1 is the node's already"),
        ("interface=eth1", "", "the interface is not among interface=eth1"),
        ("skip-interface=eth2", "", "the interface is among skip-interface=eth2"),
        ("cidr=172.16.0.0/16", "", "it is not in cidr=172.16.0.0/16"),
        ("can-reach=192.0.2.1", "", "the kernel does not send from it to 192.0.2.1"),
        ("kubernetes-internal-ip", "", "the kubelet does not register it as an InternalIP"),
    ],
)
def test_the_reason_is_that_of_the_method(method: str, current: str, reason: str) -> None:
    there = host("eth1 172.16.0.5/16", "eth2 10.2.0.5/24", source="172.16.0.5")

    assert reasons(method, there, current=current)["eth2 10.2.0.5/24"] == reason


def test_a_loopback_address_is_none_even_of_a_named_interface() -> None:
    there = host("lo 127.0.0.1/8 10.0.0.5/32")

    assert reasons("interface=lo", there) == {"lo 127.0.0.1/8": "it is a loopback address"}


def test_a_temporary_address_is_no_nodes() -> None:
    lasting = Address("eth0", ip_interface("fd00::5/64"))
    passing = Address("eth0", ip_interface("fd00::1/64"), is_temporary=True)
    there = Host({"eth0": Link("eth0", 1, is_up=True)}, [passing, lasting], "tunl0")
    method = parse_method("first-found", setting=SETTING[6], version=6)

    assert found("first-found", there, version=6) == "eth0 fd00::5/64"
    (row,) = passed_over(method, there, chosen=lasting)
    assert row.reason == "it is a temporary address, which the kernel replaces by another"


def test_what_is_not_taken_yet_says_so() -> None:
    method = parse_method("first-found", setting=SETTING[4], version=4)

    (row,) = passed_over(method, host("eth0 10.0.0.5/24"), chosen=None)

    assert row.reason == "it fits, and is not taken yet"


def test_of_very_many_addresses_a_few_are_named() -> None:
    there = host("kube-ipvs0 " + " ".join(f"10.96.0.{number}/32" for number in range(1, 200)))
    method = parse_method("first-found", setting=SETTING[4], version=4)

    (row,) = passed_over(method, there, chosen=None)

    assert (row.ifname, len(row.addresses), row.more) == ("kube-ipvs0", 8, 191)


OLD = Address("eth0", ip_interface("10.0.0.5/24"))
NEW = Address("eth0", ip_interface("10.0.0.6/24"))


@pytest.mark.parametrize(
    ("best", "current", "since", "now", "expected"),
    [
        (None, None, None, 100.0, Standing(None, 100.0)),
        (NEW, None, 90.0, 100.0, Standing(NEW.interface)),
        (OLD, "10.0.0.5/24", 90.0, 100.0, Standing(OLD.interface)),
        (OLD, "10.0.0.5/16", None, 100.0, Standing(OLD.interface)),
        (None, "10.0.0.5/24", None, 100.0, Standing(None, 100.0)),
        (NEW, "10.0.0.5/24", None, 100.0, Standing(None, 100.0)),
        (NEW, "10.0.0.5/24", 95.0, 100.0, Standing(None, 95.0)),
        (NEW, "10.0.0.5/24", 100.0 - PATIENCE_S, 100.0, Standing(NEW.interface)),
        (None, "10.0.0.5/24", 10.0, 100.0, Standing(None, 10.0)),
    ],
)
def test_an_address_that_is_gone_has_a_while_to_come_back(
    best: Address | None, current: str | None, since: float | None, now: float, expected: Standing
) -> None:
    standing = settle(
        best,
        current=ip_interface(current) if current else None,
        doubted_since=since,
        now=now,
    )

    assert standing == expected


@pytest.mark.parametrize(("version", "key"), [(4, "node_address "), (6, "node_address6 ")])
def test_the_complaint_says_what_to_do(version: int, key: str) -> None:
    method = parse_method("interface=wlan0", setting=SETTING[version], version=version)

    said = nothing_fits(method)

    assert said.startswith(f"no IPv{version} address of this host fits {method} (")
    assert f"state {key}in agent.yaml" in said
