"""Reading one mapping of a topology's file: keys by type, and no key that nobody knows."""

import re
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)
from typing import Any

from pycni.errors import InvalidInput
from pycni.model.network import IPAddress, IPInterface

NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?\Z")


class Section:
    """One mapping of the file: reads keys by type, and refuses those that nobody read."""

    def __init__(self, value: object, place: str) -> None:
        if not isinstance(value, dict):
            raise InvalidInput(f"{place} must be a mapping")
        self.place = place
        self._value: dict[Any, Any] = value
        self._unread = set(value)

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def _take(self, key: str, default: object = None) -> object:
        self._unread.discard(key)
        value = self._value.get(key, default)
        if value is None:
            raise InvalidInput(f"{self.place}.{key} is missing")
        return value

    def text(self, key: str, *, default: str | None = None) -> str:
        """Read a string."""
        value = self._take(key, default)
        if not isinstance(value, str):
            raise InvalidInput(f"{self.place}.{key} must be a string")
        return value

    def name(self, key: str, *, default: str | None = None) -> str:
        """Read a name, as Kubernetes spells those of nodes."""
        text = self.text(key, default=default)
        if not NAME.match(text):
            raise InvalidInput(f"{self.place}.{key}: {text!r} is no name (a-z, 0-9, '-', '.')")
        return text

    def number(
        self, key: str, *, default: int | None = None, within: tuple[int, int] | None = None
    ) -> int:
        """Read a whole number, within bounds if there are any."""
        value = self._take(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidInput(f"{self.place}.{key} must be a number")
        if within is not None and not within[0] <= value <= within[1]:
            raise InvalidInput(f"{self.place}.{key} must be {within[0]} to {within[1]}")
        return value

    def interface(self, key: str) -> IPv4Interface:
        """Read an IPv4 address with its prefix."""
        value = self._interface(key, self.text(key))
        if not isinstance(value, IPv4Interface):
            raise InvalidInput(f"{self.place}.{key} must be IPv4 with prefix, like 10.0.0.1/24")
        return value

    def interface6(self, key: str) -> IPv6Interface | None:
        """Read an IPv6 address with its prefix; None: it is not there."""
        text = self.text(key, default="")
        if not text:
            return None
        value = self._interface(key, text)
        if not isinstance(value, IPv6Interface) or value.is_link_local:
            raise InvalidInput(
                f"{self.place}.{key} must be IPv6 with prefix, like fd00:10::1/64,"
                " and not link-local"
            )
        return value

    def _interface(self, key: str, text: str) -> IPInterface | None:
        """Read an address with its prefix; None: the prefix is missing."""
        try:
            value = ip_interface(text)
        except ValueError as exc:
            raise InvalidInput(f"{self.place}.{key}: {exc}") from exc
        return value if "/" in text else None

    def ipv4(self, key: str) -> IPv4Address:
        """Read an IPv4 address."""
        try:
            return IPv4Address(self.text(key))
        except ValueError as exc:
            raise InvalidInput(f"{self.place}.{key}: {exc}") from exc

    def ipv6(self, key: str) -> IPv6Address | None:
        """Read an IPv6 address; None: it is not there."""
        value = self.optional_ip(key)
        if value is not None and not isinstance(value, IPv6Address):
            raise InvalidInput(f"{self.place}.{key} must be IPv6, like fd00:10::1")
        return value

    def optional_ip(self, key: str) -> IPAddress | None:
        """Read an address of either version; None: it is not there."""
        text = self.text(key, default="")
        try:
            return ip_address(text) if text else None
        except ValueError as exc:
            raise InvalidInput(f"{self.place}.{key}: {exc}") from exc

    def items(self, key: str) -> list[Any]:
        """Read a list; one that is not there is empty."""
        value = self._take(key, [])
        if not isinstance(value, list):
            raise InvalidInput(f"{self.place}.{key} must be a list")
        return value

    def names(self, key: str) -> list[str]:
        """Read a list of names."""
        names = self.items(key)
        for name in names:
            if not isinstance(name, str) or not NAME.match(name):
                raise InvalidInput(f"{self.place}.{key}: {name!r} is no name (a-z, 0-9, '-', '.')")
        return names

    def sections(self, key: str) -> list["Section"]:
        """Read a list of mappings."""
        return [Section(v, f"{self.place}.{key}[{i}]") for i, v in enumerate(self.items(key))]

    def finish(self) -> None:
        """Refuse what has not been read."""
        if self._unread:
            raise InvalidInput(f"{self.place}: unknown key {', '.join(map(repr, self._unread))}")
