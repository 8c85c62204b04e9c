"""Results and errors in the spelling of each version."""

import json
from ipaddress import ip_address, ip_interface
from typing import Any

import pytest

from pycni.cni.errors import CniError, Code, as_cni_error
from pycni.cni.results import (
    SUPPORTED_VERSIONS,
    AddResult,
    NoResult,
    read_result,
    render_addresses,
    render_error,
    render_result,
    render_version,
)
from pycni.errors import (
    AlreadyExists,
    Conflict,
    DatastoreUnusable,
    DelegateFailed,
    Exhausted,
    InvalidInput,
    PycniError,
    TryAgain,
)
from pycni.model.endpoints import AssignedAddress

V4, V6 = ip_address("192.168.39.193"), ip_address("fd00::1")


def result(*addresses: Any, **fields: Any) -> AddResult:  # noqa: ANN401 - addresses; any field.
    return AddResult(
        host_veth="cali1",
        host_mac="ee:ee:ee:ee:ee:ee",
        ifname="eth0",
        pod_mac="02:00:00:00:00:01",
        netns="/run/netns/x",
        mtu=1480,
        addresses=addresses or (V4,),
        **fields,
    )


def test_the_result_of_1_1_0() -> None:
    assert render_result(result(), version="1.1.0") == {
        "cniVersion": "1.1.0",
        "interfaces": [
            {"name": "cali1", "mac": "ee:ee:ee:ee:ee:ee", "mtu": 1480},
            {
                "name": "eth0",
                "mac": "02:00:00:00:00:01",
                "sandbox": "/run/netns/x",
                "mtu": 1480,
            },
        ],
        "ips": [{"address": "192.168.39.193/32", "interface": 1, "gateway": "169.254.1.1"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
        "dns": {},
    }


def test_1_0_0_knows_no_mtu() -> None:
    interfaces = render_result(result(), version="1.0.0")["interfaces"]

    assert [sorted(i) for i in interfaces] == [["mac", "name"], ["mac", "name", "sandbox"]]


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0"])
def test_0_x_names_the_family(version: str) -> None:
    document = render_result(result(V4, V6), version=version)

    assert [(ip["version"], ip["address"]) for ip in document["ips"]] == [
        ("4", "192.168.39.193/32"),
        ("6", "fd00::1/128"),
    ]
    assert document["dns"] == {}


def test_ipv6_has_a_route_without_gateway() -> None:
    document = render_result(result(V6), version="1.1.0")

    assert document["ips"] == [{"address": "fd00::1/128", "interface": 1}]
    assert document["routes"] == [{"dst": "::/0"}]


def test_without_default_route_none_is_shown() -> None:
    assert render_result(result(has_default_route=False), version="1.1.0")["routes"] == []


def test_dns_is_passed_on() -> None:
    dns = {"nameservers": ["10.0.0.10"]}

    assert render_result(result(dns=dns), version="1.1.0")["dns"] == dns


def test_the_answer_to_version() -> None:
    assert render_version("1.0.0") == {
        "cniVersion": "1.0.0",
        "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
    }


def test_an_error_has_details_where_there_are_some() -> None:
    short = CniError(Code.TRY_AGAIN, "later")
    long = CniError(Code.CHECK_FAILED, "no", details="a; b")

    assert render_error(short, version="1.1.0") == {
        "cniVersion": "1.1.0",
        "code": 11,
        "msg": "later",
    }
    assert render_error(long, version="0.4.0") == {
        "cniVersion": "0.4.0",
        "code": 101,
        "msg": "no",
        "details": "a; b",
    }


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TryAgain("x"), 11),
        (Exhausted("x"), 11),
        (Conflict("x"), 11),
        (DatastoreUnusable("x"), 5),
        (DelegateFailed("x"), 102),
        (InvalidInput("x"), 7),
        (AlreadyExists("x"), 7),
        (PycniError("x"), 5),
    ],
)
def test_each_of_our_errors_has_the_specifications_code(error: PycniError, code: int) -> None:
    made = as_cni_error(error)

    assert (int(made.code), made.msg) == (code, "x")


# --- the oldest versions ----------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_before_0_3_there_is_one_address_of_each_family_and_no_interface(version: str) -> None:
    document = render_result(result(V4, V6, dns={"nameservers": ["10.0.0.10"]}), version=version)

    assert document == {
        "cniVersion": version,
        "ip4": {
            "ip": "192.168.39.193/32",
            "gateway": "169.254.1.1",
            "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}],
        },
        "ip6": {"ip": "fd00::1/128", "routes": [{"dst": "::/0"}]},
        "dns": {"nameservers": ["10.0.0.10"]},
    }


def test_before_0_3_a_pod_without_default_route_has_no_routes() -> None:
    document = render_result(result(has_default_route=False), version="0.2.0")

    assert document["ip4"] == {"ip": "192.168.39.193/32", "gateway": "169.254.1.1"}


# --- behind other plugins -----------------------------------------------------------------------

BEFORE = {
    "interfaces": [{"name": "br0", "mac": "02:00:00:00:00:09", "mtu": 9000, "pciID": "x"}],
    "ips": [{"address": "10.1.0.2/24", "interface": 0, "gateway": "10.1.0.1"}],
    "routes": [{"dst": "10.0.0.0/8", "gw": "10.1.0.1", "priority": 7}],
}


def test_ours_comes_behind_what_others_gave() -> None:
    document = render_result(result(previous=BEFORE), version="1.1.0")

    assert [i["name"] for i in document["interfaces"]] == ["br0", "cali1", "eth0"]
    assert [(ip["address"], ip["interface"]) for ip in document["ips"]] == [
        ("10.1.0.2/24", 0),
        ("192.168.39.193/32", 2),
    ]
    assert document["routes"] == [*BEFORE["routes"], {"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]
    assert len(BEFORE["interfaces"]) == 1


def test_an_older_version_has_no_words_for_the_rest() -> None:
    document = render_result(result(previous=BEFORE), version="0.4.0")

    assert document["interfaces"][0] == {"name": "br0", "mac": "02:00:00:00:00:09"}
    assert document["routes"][0] == {"dst": "10.0.0.0/8", "gw": "10.1.0.1"}
    assert document["ips"][0]["version"] == "4"


def test_before_0_3_the_first_address_of_a_family_counts() -> None:
    document = render_result(result(previous=BEFORE), version="0.2.0")

    assert document["ip4"]["ip"] == "10.1.0.2/24"


def test_dns_of_others_stays_unless_we_have_our_own() -> None:
    before = {**BEFORE, "dns": {"domain": "theirs"}}

    kept = render_result(result(previous=before), version="1.1.0")
    ours = render_result(result(previous=before, dns={"domain": "ours"}), version="1.1.0")

    assert (kept["dns"], ours["dns"]) == ({"domain": "theirs"}, {"domain": "ours"})


@pytest.mark.parametrize("version", SUPPORTED_VERSIONS)
def test_what_one_version_spells_another_reads(version: str) -> None:
    spelled = json.loads(json.dumps(render_result(result(V4, V6), version=version)))

    read = read_result(spelled, version="1.1.0")

    assert [ip["address"] for ip in read["ips"]] == ["192.168.39.193/32", "fd00::1/128"]
    assert read["routes"] == [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0"}]
    assert not any("version" in ip for ip in read["ips"])
    assert len(read["interfaces"]) == (0 if version in ("0.1.0", "0.2.0") else 2)


def test_a_result_without_version_is_of_the_configurations() -> None:
    old = {"ip4": {"ip": "10.0.0.1/24"}, "ip6": None}

    assert read_result(old, version="0.2.0")["ips"] == [{"address": "10.0.0.1/24"}]
    assert read_result(old, version="1.0.0")["ips"] == []


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"cniVersion": "2.0.0"}, "cniVersion '2.0.0' is unknown"),
        ({"cniVersion": ["x"]}, "is unknown"),
        ({"interfaces": {}, "ips": 7}, "'ips' must be a list of objects"),
        ({"interfaces": ["eth0"]}, "'interfaces' must be a list of objects"),
        ({"ips": [{}]}, "None is no address with a prefix length"),
        ({"ips": [{"address": "10.0.0.1"}]}, "'10.0.0.1' is no address with a prefix length"),
        ({"ips": [{"address": "x/8"}]}, "'x/8' is no address"),
        ({"ips": [{"address": "fd00::1%eth0/64"}]}, "'fd00::1%eth0/64' is no address"),
        ({"ips": [{"address": "10.0.0.1/8", "interface": 0}]}, "no index into 'interfaces'"),
        ({"ips": [{"address": "10.0.0.1/8", "interface": True}]}, "no index into 'interfaces'"),
        ({"routes": [{"gw": "10.0.0.1"}]}, "None is no address"),
        ({"dns": ["10.0.0.1"]}, "'dns' must be an object"),
        ({"dns": {"options": "ndots:5"}}, "'options' must be a list of strings"),
        ({"interfaces": [{"name": 5}]}, "'name' must be a string"),
        ({"ips": [{"address": "10.0.0.1/8", "gateway": 7}]}, "'gateway' must be a string"),
        ({"routes": [{"dst": "10.0.0.0/8", "gw": []}]}, None),
        ({"routes": [{"dst": "10.0.0.0/8", "gw": ["10.0.0.1"]}]}, "'gw' must be a string"),
        ({"cniVersion": "0.2.0", "ip4": "10.0.0.1/8"}, "'ip4' must be an object"),
        ({"cniVersion": "0.2.0", "ip4": {"ip": 7}}, "7 is no address"),
    ],
)
def test_a_result_that_cannot_be_is_refused(
    document: dict[str, Any], complaint: str | None
) -> None:
    if complaint is None:  # Go's empty values are as good as absent
        read_result(document, version="1.1.0")
        return
    with pytest.raises(NoResult) as caught:
        read_result(document, version="1.1.0")

    assert complaint in str(caught.value)


# --- an IPAM plugin's -----------------------------------------------------------------------------

LENT = (
    AssignedAddress(ip_interface("192.168.39.194/26"), 7, ip_address("192.168.39.193")),
    AssignedAddress(ip_interface("fd00::2/128"), 8),
)


def lent(version: str, *addresses: AssignedAddress, **route: Any) -> dict[str, Any]:  # noqa: ANN401 - any key.
    routes = [{"dst": "0.0.0.0/0", **route}, {"dst": "::/0"}]
    return render_addresses(addresses or LENT, routes=routes, dns={}, version=version)


def test_addresses_for_another_plugin_come_without_interfaces() -> None:
    assert lent("1.1.0", mtu=1400) == {
        "cniVersion": "1.1.0",
        "ips": [
            {"address": "192.168.39.194/26", "gateway": "192.168.39.193"},
            {"address": "fd00::2/128"},
        ],
        "routes": [{"dst": "0.0.0.0/0", "mtu": 1400}, {"dst": "::/0"}],
        "dns": {},
    }
    assert lent("1.0.0", mtu=1400) == lent("1.1.0") | {"cniVersion": "1.0.0"}
    assert "interfaces" not in lent("0.3.1")
    assert [ip["version"] for ip in lent("0.3.1")["ips"]] == ["4", "6"]


def test_addresses_for_another_plugin_before_lists_existed() -> None:
    assert lent("0.2.0") == {
        "cniVersion": "0.2.0",
        "ip4": {
            "ip": "192.168.39.194/26",
            "gateway": "192.168.39.193",
            "routes": [{"dst": "0.0.0.0/0"}],
        },
        "ip6": {"ip": "fd00::2/128", "routes": [{"dst": "::/0"}]},
        "dns": {},
    }


def test_routes_of_a_family_without_address_are_left_out() -> None:
    assert lent("1.1.0", LENT[1])["routes"] == [{"dst": "::/0"}]
