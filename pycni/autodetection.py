"""The methods by which a node's address is found among its host's, in Calico's words.

What a setting says is read and checked here; which address that makes is `pycni.plan.candidates`.
"""

import re
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from pycni.errors import InvalidInput

POSSIBLE = (
    "first-found, can-reach=DESTINATION, interface=REGEX[,REGEX], skip-interface=REGEX[,REGEX],"
    " cidr=CIDR[,CIDR] or kubernetes-internal-ip"
)
_LIST = re.compile(r"\s*,\s*")
# As a resolver takes them; what ends in digits alone would be a mistyped address.
_HOST_NAME = re.compile(r"(?=.{1,253}$)(\w[\w-]{0,62}\.)*[A-Za-z_][\w-]{0,62}\.?", re.ASCII)


class Kind(Enum):
    """What decides; the value is how the method begins."""

    FIRST_FOUND = "first-found"
    CAN_REACH = "can-reach"
    INTERFACE = "interface"
    SKIP_INTERFACE = "skip-interface"
    CIDR = "cidr"
    INTERNAL_IP = "kubernetes-internal-ip"


_WITH_ARGUMENTS = {Kind.CAN_REACH, Kind.INTERFACE, Kind.SKIP_INTERFACE, Kind.CIDR}


@dataclass(frozen=True, slots=True)
class Method:
    """One setting: how the node's address of one IP version is found.

    `setting` is where it was said, "ip_autodetection_method" or a variable, and `text` what was
    said there.  `destination` is an address, or a name that is still to be resolved.
    """

    setting: str
    version: int
    kind: Kind
    text: str
    patterns: tuple[re.Pattern[str], ...] = ()
    cidrs: tuple[IPv4Network | IPv6Network, ...] = ()
    destination: IPv4Address | IPv6Address | str = ""

    def __str__(self) -> str:
        return f"{self.setting} {self.text}"


def parse_method(text: str, *, setting: str, version: int) -> Method:
    """Read a method for one IP version; raise `InvalidInput` with what is possible."""
    said = text.strip()
    name, equals, rest = said.partition("=")
    try:
        kind = Kind(name)
    except ValueError:
        raise _wrong(setting, said, "is no method") from None
    if bool(equals) != (kind in _WITH_ARGUMENTS):
        raise _wrong(setting, said, f"says too much: {name} is all" if equals else "lacks a '='")
    arguments = _LIST.split(rest.strip()) if equals else []
    if "" in arguments:
        raise _wrong(setting, said, "says nothing behind its '=' or a comma")
    is_by_name = kind in (Kind.INTERFACE, Kind.SKIP_INTERFACE)
    try:
        return Method(
            setting,
            version,
            kind,
            said,
            patterns=tuple(map(re.compile, arguments)) if is_by_name else (),
            cidrs=_cidrs(arguments, version=version) if kind is Kind.CIDR else (),
            destination=_destination(rest.strip(), version=version)
            if kind is Kind.CAN_REACH
            else "",
        )
    except re.error as exc:
        raise _wrong(setting, said, f"has a bad regular expression ({exc})") from exc
    except ValueError as exc:
        raise _wrong(setting, said, f"can't be used: {exc}") from exc


def _wrong(setting: str, said: str, why: str) -> InvalidInput:
    return InvalidInput(f"{setting} {said!r} {why}; possible are {POSSIBLE}")


def _cidrs(texts: list[str], *, version: int) -> tuple[IPv4Network | IPv6Network, ...]:
    cidrs = tuple(ip_network(text, strict=False) for text in texts)
    # One list may serve both settings: what is of the other version is left aside.
    if found := tuple(cidr for cidr in cidrs if cidr.version == version):
        return found
    raise ValueError(f"none of these is an IPv{version} network")


def _destination(text: str, *, version: int) -> IPv4Address | IPv6Address | str:
    try:
        address = ip_address(text)
    except ValueError:
        if _HOST_NAME.fullmatch(text):
            return text
        raise ValueError(f"{text!r} is neither an address nor a name") from None
    if address.version != version:
        raise ValueError(f"{text} is no IPv{version} address")
    return address
