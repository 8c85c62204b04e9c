"""What a pod's and its namespace's annotations ask for, and what is refused of them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

import pytest

from pycni.cni.annotations import annotated
from pycni.cni.commands import Command
from pycni.cni.errors import CniError, Code
from pycni.cni.netconf import NetworkConfig
from pycni.cni.protocol import Request
from pycni.cni.wishes import Wishes
from pycni.model.endpoints import POD_ANNOTATION

CONFIG = NetworkConfig(name="net", cni_version="1.1.0", ipv4_pools=("configured",))


def asked(
    pod: Mapping[str, object] | None = None,
    namespace: Mapping[str, object] | None = None,
    *,
    config: NetworkConfig = CONFIG,
) -> NetworkConfig:
    request = Request(Command.ADD, config, container_id="c", ifname="eth0")
    return annotated(request, pod=spelled(pod or {}), namespace=spelled(namespace or {})).config


def spelled(annotations: Mapping[str, object]) -> dict[str, str]:
    """Spell lists as JSON and keep texts."""
    return {
        POD_ANNOTATION + key: value if isinstance(value, str) else json.dumps(value)
        for key, value in annotations.items()
    }


def refusal(pod: Mapping[str, object], *, config: NetworkConfig = CONFIG) -> str:
    with pytest.raises(CniError) as caught:
        asked(pod, config=config)
    assert caught.value.code is Code.INVALID_CONFIGURATION
    return caught.value.msg


def test_without_annotations_the_configuration_holds() -> None:
    assert asked() == CONFIG
    assert asked({"ipv4pools": ""}, {"ipv4pools": "", "other": "x"}) == CONFIG


def test_pools_of_the_pod_come_before_its_namespaces_and_these_before_the_configurations() -> None:
    namespace = {"ipv4pools": ["of-namespace"], "ipv6pools": ["fd00:0:0::/48"]}

    assert asked(None, namespace).ipv4_pools == ("of-namespace",)
    made = asked({"ipv4pools": ["of-pod", "10.0.0.0/16"]}, namespace)
    assert (made.ipv4_pools, made.ipv6_pools) == (("of-pod", "10.0.0.0/16"), ("fd00::/48",))
    assert asked({"ipv4pools": ""}, namespace).ipv4_pools == ("of-namespace",)


@pytest.mark.parametrize(
    ("families", "versions"), [(["IPv6"], (6,)), (["IPv4", "IPv6"], (4, 6)), (["IPv4"], (4,))]
)
def test_families_may_be_chosen(families: list[str], versions: tuple[int, ...]) -> None:
    assert asked({"ipFamilies": families}).versions == versions
    assert asked(None, {"ipFamilies": families}).versions == versions


def test_addresses_and_mac_are_the_pods_own_to_ask_for() -> None:
    both = {"ipAddrs": ["192.168.0.9", "fd00::9"], "hwAddr": "02:00:00:00:00:0A"}
    wanted = Wishes((ip_address("192.168.0.9"), ip_address("fd00::9")), mac="02:00:00:00:00:0a")

    assert asked(both).wishes == wanted
    assert asked(None, both).wishes == Wishes()
    runtimes = replace(CONFIG, wishes=Wishes(mac="02:00:00:00:00:0b", dns={"domain": "x"}))
    assert asked(both, config=runtimes).wishes == replace(wanted, dns={"domain": "x"})


def test_an_address_is_asked_for_whatever_pools_the_namespace_and_configuration_name() -> None:
    both = {"ipAddrs": ["192.168.0.9"]}

    assert asked(both, {"ipv4pools": ["of-namespace"]}).ipv4_pools == ()
    assert asked({**both, "ipv4pools": ["of-pod"]}).ipv4_pools == ("of-pod",)


def test_another_ipam_plugins_pod_may_have_its_mac_and_no_address_of_ours() -> None:
    other = replace(CONFIG, ipam_plugin="host-local")

    made = asked({"hwAddr": "02:00:00:00:00:0a", "ipv4pools": ["p"]}, config=other)
    assert made == replace(other, wishes=Wishes(mac="02:00:00:00:00:0a"))
    assert "addresses are given by host-local here" in refusal(
        {"ipAddrs": ["10.0.0.1"]}, config=other
    )


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("ipv4pools", "pool", "ipv4pools: 'pool' is no JSON; it must be a list of strings"),
        ("ipv4pools", {"a": 1}, "it must be a list of strings"),
        ("ipv4pools", [7], "it must be a list of strings"),
        ("ipv4pools", [""], "it must be a list of strings"),
        ("ipv4pools", "[" * 5000, "5000 characters are too many"),
        ("ipv4pools", "[" * 4000, "is no JSON"),
        ("ipv4pools", ["10.0.0.1/8"], "'10.0.0.1/8' is no CIDR"),
        ("ipv4pools", ["fd00::/48"], "fd00::/48 is IPv6: name it in ipv6pools"),
        ("ipv6pools", ["10.0.0.0/8"], "10.0.0.0/8 is IPv4: name it in ipv4pools"),
        ("ipv4pools", ["p"] * 65, "65 pools are too many: name 64 at most"),
        ("ipFamilies", ["ipv4"], "'ipv4' is none: name IPv4, IPv6 or both"),
        ("ipAddrs", ["10.0.0.256"], "ipAddrs: '10.0.0.256' is no address"),
        ("ipAddrs", ["10.0.0.1", "10.0.0.2"], "one address of each IP version can be asked for"),
        ("hwAddr", "here", "hwAddr: 'here' is no MAC address"),
        ("hwAddr", "ee:ee:ee:ee:ee:ee", "the pod's must differ"),
        ("ipAddrsNoIpam", ["10.0.0.1"], "ipAddrsNoIpam: pycni does not support it: remove it"),
        ("floatingIPs", ["10.0.0.1"], "floatingIPs: pycni does not support it: remove it"),
    ],
)
def test_bad_annotations_are_named(key: str, value: object, complaint: str) -> None:
    assert complaint in refusal({key: value})
