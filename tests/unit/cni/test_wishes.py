"""What a runtime may wish for one attachment, by each of the three ways."""

from typing import Any

import pytest

from pycni.cni.wishes import Unwishable, Wishes, read_wishes, wished_addresses, wished_mac


def read(**document: Any) -> Wishes:  # noqa: ANN401 - any JSON.
    return read_wishes(document, bad=ValueError)


def test_nothing_is_wished_where_nothing_is_said() -> None:
    assert read() == Wishes()
    assert read(runtimeConfig=None, args={"cni": None}) == Wishes()
    assert read(runtimeConfig={"ips": [], "mac": "", "dns": {}}) == Wishes()


def test_capabilities_are_understood_and_others_ignored() -> None:
    wishes = read(
        runtimeConfig={
            "ips": ["192.168.0.10/24", "fd00::a"],
            "mac": "02-00-00-00-00-0A",
            "dns": {"servers": ["10.0.0.10"], "searches": ["svc"], "colour": "red"},
            "portMappings": [{"hostPort": 80}],
            "bandwidth": {"ingressRate": 1},
            "aliases": {"net": ["web"]},
            "cgroupPath": "/x",
        }
    )

    assert list(map(str, wishes.addresses)) == ["192.168.0.10", "fd00::a"]
    assert wishes.mac == "02:00:00:00:00:0a"
    assert wishes.dns == {"nameservers": ["10.0.0.10"], "search": ["svc"]}


def test_the_newest_way_that_says_anything_counts() -> None:
    old = Wishes(addresses=wished_addresses(["10.0.0.3"]), mac="02:00:00:00:00:03")

    wishes = read(
        runtimeConfig={"mac": "02:00:00:00:00:01"},
        args={"cni": {"ips": ["10.0.0.2"], "mac": "02:00:00:00:00:02"}},
    ).or_else(old)

    assert wishes.mac == "02:00:00:00:00:01"
    assert list(map(str, wishes.addresses)) == ["10.0.0.2"]
    assert read().or_else(old) == old


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"runtimeConfig": 7}, "'runtimeConfig' must be an object"),
        ({"args": {"cni": []}}, None),  # empty: Go's zero value
        ({"args": {"cni": [1]}}, "'cni' must be an object"),
        ({"runtimeConfig": {"ips": "10.0.0.1"}}, "runtimeConfig: 'ips' must be a list"),
        ({"args": {"cni": {"ips": [7]}}}, "args.cni: 'ips' must be a list"),
        ({"args": {"cni": {"ips": ["x"]}}}, "args.cni: 'x' is no address"),
        ({"runtimeConfig": {"mac": 7}}, "runtimeConfig: 'mac' must be a string"),
        (
            {"runtimeConfig": {"dns": {"servers": "10.0.0.1"}}},
            "runtimeConfig: 'dns': 'nameservers'",
        ),
        ({"runtimeConfig": {"dns": {"searches": 5}}}, "runtimeConfig: 'dns': 'search'"),
        ({"runtimeConfig": {"dns": [1]}}, "runtimeConfig: 'dns' must be an object"),
    ],
)
def test_what_has_the_wrong_shape_is_named(document: dict[str, Any], complaint: str | None) -> None:
    if complaint is None:
        assert read(**document) == Wishes()
        return
    with pytest.raises(ValueError, match=complaint):
        read(**document)


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        (["192.168.0.0/33"], "is no address"),
        (["fe80::1%eth0"], "is no address"),
        ([""], "is no address"),
        (["10.0.0.1", "10.0.0.2"], "10.0.0.1 and 10.0.0.2: one address of each IP version"),
    ],
)
def test_addresses_that_cannot_be(texts: list[str], complaint: str) -> None:
    with pytest.raises(Unwishable, match=complaint):
        wished_addresses(texts)


def test_what_is_wrong_is_repeated_in_part_only() -> None:
    with pytest.raises(Unwishable) as caught:
        wished_addresses(["x" * 100_000])

    assert len(str(caught.value)) < 200


def test_an_address_said_twice_is_one() -> None:
    assert len(wished_addresses(["10.0.0.1", "10.0.0.1/32"])) == 1


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x", "is no MAC address"),
        ("02:00:00:00:00", "is no MAC address"),
        ("02:00:00:00:00:0g", "is no MAC address"),
        ("02:00:00:00:00:01\n", "is no MAC address"),
        ("01:00:5e:00:00:01", "is a group's MAC address"),
        ("ff:ff:ff:ff:ff:ff", "is a group's MAC address"),
        ("00:00:00:00:00:00", "or none"),
        ("EE:EE:EE:EE:EE:EE", "what every host end has"),
    ],
)
def test_mac_addresses_that_cannot_be(text: str, complaint: str) -> None:
    with pytest.raises(Unwishable, match=complaint):
        wished_mac(text)
