"""What a method of autodetection may say."""

from ipaddress import ip_address, ip_network

import pytest

from pycni.autodetection import POSSIBLE, Kind, parse_method
from pycni.errors import InvalidInput

SETTING = "ip_autodetection_method"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("first-found", Kind.FIRST_FOUND),
        ("can-reach=8.8.8.8", Kind.CAN_REACH),
        ("interface=eth.*", Kind.INTERFACE),
        ("skip-interface=eth1,ens.*", Kind.SKIP_INTERFACE),
        ("cidr=10.0.0.0/8", Kind.CIDR),
        ("kubernetes-internal-ip", Kind.INTERNAL_IP),
    ],
)
def test_each_of_calicos_methods_is_known(text: str, kind: Kind) -> None:
    made = parse_method(f" {text} ", setting=SETTING, version=4)

    assert made.kind is kind
    assert str(made) == f"ip_autodetection_method {text}"


def test_what_a_method_names_is_read() -> None:
    def parsed(text: str, version: int = 4) -> object:
        made = parse_method(text, setting=SETTING, version=version)
        return made.destination or made.cidrs or [one.pattern for one in made.patterns]

    assert parsed("interface=eth0 , ens[0-9]+") == ["eth0", "ens[0-9]+"]
    assert parsed("skip-interface=wg0") == ["wg0"]
    assert parsed("cidr=10.1.2.3/8,192.168.0.0/24") == (
        ip_network("10.0.0.0/8"),
        ip_network("192.168.0.0/24"),
    )
    assert parsed("cidr=10.0.0.0/8,fd00::/8", 6) == (ip_network("fd00::/8"),)
    assert parsed("can-reach=fd00::1", 6) == ip_address("fd00::1")
    assert parsed("can-reach=www.example.org") == "www.example.org"
    assert parsed("can-reach=router") == "router"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is no method"),
        ("last-found", "is no method"),
        ("interface", "lacks a '='"),
        ("first-found=eth0", "says too much"),
        ("interface=", "says nothing behind"),
        ("interface=eth0,", "says nothing behind"),
        ("can-reach=", "says nothing behind"),
        ("interface=eth[0", "bad regular expression"),
        ("cidr=10.0.0.0/33", "does not appear to be"),
        ("cidr=fd00::/8", "none of these is an IPv4 network"),
        ("can-reach=fd00::1", "is no IPv4 address"),
        ("can-reach=300.1.1.1", "neither an address nor a name"),
        (f"can-reach={64 * 'a'}.example", "neither an address nor a name"),
        ("can-reach=a b", "neither an address nor a name"),
    ],
)
def test_a_method_that_cannot_be_meant_is_refused_with_what_is_possible(
    text: str, complaint: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_method(text, setting=SETTING, version=4)

    assert complaint in str(refused.value)
    assert str(refused.value).startswith(f"ip_autodetection_method {text!r} ")
    assert str(refused.value).endswith(f"possible are {POSSIBLE}")
