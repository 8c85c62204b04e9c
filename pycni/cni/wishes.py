"""What a runtime may wish for one attachment: addresses, a MAC address, DNS.  Pure.

Three ways lead here, newest first, and the first that says anything counts: `runtimeConfig` of the
capabilities `ips`, `mac` and `dns`; `args.cni` of the configuration; CNI_ARGS (CONVENTIONS.md of
the specification).  Ranges, not wishes, are a matter of pools.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any

from pycni.cni.results import read_dns
from pycni.model.network import IPAddress

# A capability's word for each, and the result's.
_DNS = {"servers": "nameservers", "searches": "search"}
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}\Z")


class Unwishable(Exception):
    """What cannot be wished for, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for; empty: nothing."""

    addresses: tuple[IPAddress, ...] = ()
    mac: str = ""
    dns: Mapping[str, Any] = field(default_factory=dict)

    def or_else(self, other: "Wishes") -> "Wishes":
        """Return these wishes, and the other ones where these say nothing."""
        return Wishes(
            addresses=self.addresses or other.addresses,
            mac=self.mac or other.mac,
            dns=self.dns or other.dns,
        )


def read_wishes(document: Mapping[str, Any], *, bad: Callable[[str], Exception]) -> Wishes:
    """Read what the network configuration holds for this attachment; `bad` makes the error."""
    runtime = _object(document, "runtimeConfig", bad=bad)
    arguments = _object(_object(document, "args", bad=bad), "cni", bad=bad)
    said = []
    for where, of in (("runtimeConfig", runtime), ("args.cni", arguments)):
        try:
            wishes = Wishes(addresses=_addresses(of), mac=_mac(of), dns=_dns(of))
        except Unwishable as exc:
            raise bad(f"{where}: {exc}") from None
        said.append(wishes)
    return said[0].or_else(said[1])


def _object(
    document: Mapping[str, Any], key: str, *, bad: Callable[[str], Exception]
) -> Mapping[str, Any]:
    value = document.get(key) or {}
    if not isinstance(value, Mapping):
        raise bad(f"{key!r} must be an object")
    return value


def _addresses(of: Mapping[str, Any]) -> tuple[IPAddress, ...]:
    items = of.get("ips") or []
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise Unwishable("'ips' must be a list of addresses, such as 192.168.0.10/32")
    return wished_addresses(items)


def _mac(of: Mapping[str, Any]) -> str:
    text = of.get("mac") or ""
    if not isinstance(text, str):
        raise Unwishable("'mac' must be a string")
    return wished_mac(text)


def _dns(of: Mapping[str, Any]) -> dict[str, Any]:
    said = of.get("dns") or {}
    if isinstance(said, Mapping):
        said = {_DNS.get(key, key): value for key, value in said.items()}
    return read_dns(said, bad=Unwishable)


def wished_addresses(texts: Sequence[str]) -> tuple[IPAddress, ...]:
    """Read addresses; a prefix length is allowed and means nothing, a pod stands alone in its net.

    One of each IP version: a pod has no use for a second one that it couldn't tell from the first.
    """
    found: dict[int, IPAddress] = {}
    for text in texts:
        try:
            if "%" in text:
                raise ValueError(text)
            address = ip_interface(text.strip()).ip
        except ValueError:
            raise Unwishable(f"{text!r:.60} is no address, such as 192.168.0.10") from None
        if found.setdefault(address.version, address) != address:
            raise Unwishable(
                f"{found[address.version]} and {address}: one address of each IP version"
                " can be asked for"
            )
    return tuple(found.values())


def wished_mac(text: str) -> str:
    """Read a MAC address for the pod's end of a pair; return it in lower case with colons."""
    mac = text.lower().replace("-", ":")
    if not mac:
        return ""
    if not _MAC.match(mac):
        raise Unwishable(f"{text!r:.60} is no MAC address, such as 02:00:00:00:00:0a")
    if int(mac[:2], 16) & 1 or not int(mac.replace(":", ""), 16):
        raise Unwishable(f"{text!r} is a group's MAC address or none: no interface can have it")
    if mac == "ee:ee:ee:ee:ee:ee":
        raise Unwishable(f"{text!r} is what every host end has: the pod's must differ")
    return mac
