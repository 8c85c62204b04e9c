"""Results and errors in the spelling of each version."""

from ipaddress import ip_address
from typing import Any

import pytest

from pycni.cni.errors import CniError, Code, as_cni_error
from pycni.cni.results import AddResult, render_error, render_result, render_version
from pycni.errors import (
    AlreadyExists,
    Conflict,
    DatastoreUnusable,
    Exhausted,
    InvalidInput,
    PycniError,
    TryAgain,
)

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
    }


def test_1_0_0_knows_no_mtu() -> None:
    interfaces = render_result(result(), version="1.0.0")["interfaces"]

    assert [sorted(i) for i in interfaces] == [["mac", "name"], ["mac", "name", "sandbox"]]


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0"])
def test_0_x_names_the_family_and_always_has_dns(version: str) -> None:
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
        "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
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
        (InvalidInput("x"), 7),
        (AlreadyExists("x"), 7),
        (PycniError("x"), 5),
    ],
)
def test_each_of_our_errors_has_the_specifications_code(error: PycniError, code: int) -> None:
    made = as_cni_error(error)

    assert (int(made.code), made.msg) == (code, "x")
