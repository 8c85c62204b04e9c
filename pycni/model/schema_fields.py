"""Reading documents field by field: typed, strict, and with the field's path in every error.

A reader remembers which fields were asked for; `finish` refuses all others by name, so that a
setting which we would not honour is never silently ignored.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import Enum
from ipaddress import ip_address, ip_interface
from typing import TypeVar

from pycni.errors import InvalidInput
from pycni.model.network import IPAddress, IPInterface, IPNetwork
from pycni.model.prefix import read_prefix
from pycni.model.selector import selector
from pycni.model.vxlan import parse_mac

E = TypeVar("E", bound=Enum)

MAX_AS_NUMBER = 2**32 - 1
_MAX_NAME = 253
MAX_PASSWORD_LENGTH = 80  # TCP_MD5SIG_MAXKEYLEN in linux/tcp.h.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
# What a BGP engine's configuration could mistake for its own syntax is refused, not escaped.
_PASSWORD = re.compile(r"[!%&()*+,\-./0-9:<=>?@A-Z^_a-z|~]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def check_name(text: str, *, path: str) -> str:
    """Return an object's name; raise `InvalidInput` when Kubernetes would not accept it."""
    if len(text) > _MAX_NAME or not _NAME.fullmatch(text):
        raise InvalidInput(
            f"{path}: {text!r} is no valid name:"
            f" use up to {_MAX_NAME} of a-z, 0-9, '-' and '.', a letter or digit at both ends"
        )
    return text


def check_password(text: str, *, path: str) -> str:
    """Return a BGP password; raise `InvalidInput`, without repeating it, when it is unsafe."""
    if len(text) > MAX_PASSWORD_LENGTH or not _PASSWORD.fullmatch(text):
        raise InvalidInput(
            f"{path}: a password has 1 to {MAX_PASSWORD_LENGTH} printable ASCII characters, without"
            " blanks, quotes, braces, brackets, backslash, backtick, '#', '$' and ';'"
        )
    return text


def _nearest(name: str, others: Iterable[object]) -> str | None:
    return next(iter(get_close_matches(name, sorted(map(str, others)), n=1, cutoff=0.75)), None)


class Fields:
    """One mapping of a document, read field by field."""

    __slots__ = ("_asked", "_mapping", "path")

    def __init__(self, mapping: object, *, path: str) -> None:
        if not isinstance(mapping, Mapping):
            raise InvalidInput(f"{path or 'document'}: must be a mapping, not {_say(mapping)}")
        self._mapping = mapping
        self._asked: set[object] = set()
        self.path = path

    def at(self, name: str) -> str:
        """Return the path of a field, for an error message."""
        return f"{self.path}.{name}" if self.path else name

    def get(self, name: str) -> object:
        """Return a field as it is; None when it is absent (or null, which means the same)."""
        self._asked.add(name)
        return self._mapping.get(name)

    def skip(self, *names: str) -> None:
        """Accept fields that mean nothing to us, whatever they hold."""
        self._asked.update(names)

    def finish(self) -> None:
        """Raise `InvalidInput` for the first field that nobody asked for."""
        for name in self._mapping:
            if name not in self._asked:
                meant = _nearest(str(name), self._asked - self._mapping.keys())
                advice = f"did you mean {meant}?" if meant else "remove it"
                raise InvalidInput(f"{self.at(str(name))}: unknown or unsupported field; {advice}")

    def child(self, name: str) -> "Fields":
        """Return a reader of a mapping inside; an absent one reads as empty."""
        value = self.get(name)
        return Fields({} if value is None else value, path=self.at(name))

    def items(self, name: str) -> list[object]:
        """Return a list; an absent one reads as empty."""
        value = self.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise InvalidInput(f"{self.at(name)}: must be a list, not {_say(value)}")
        return value

    def text(self, name: str) -> str | None:
        """Return a string of printable characters, or None."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise InvalidInput(f"{self.at(name)}: must be a string, not {_say(value)}; quote it")
        if _CONTROL.search(value):
            raise InvalidInput(f"{self.at(name)}: {value!r} holds control characters")
        return value

    def need(self, name: str) -> str:
        """Return a string that must be there and not empty."""
        value = self.text(name)
        if not value:
            raise InvalidInput(f"{self.at(name)}: is missing{self.hint(name)}")
        return value

    def hint(self, name: str) -> str:
        """Return what to say of a missing field where another may be a slip of the pen for it."""
        written = _nearest(name, self._mapping.keys() - self._asked)
        return f"; did you mean it by {written}?" if written else ""

    def name(self, name: str) -> str | None:
        """Return the name of an object, or None."""
        value = self.text(name)
        return None if value is None else check_name(value, path=self.at(name))

    def expect(self, name: str, usual: str) -> None:
        """Accept a field that says what is done in any case, and nothing else."""
        value = self.text(name)
        if value is not None and value != usual:
            raise InvalidInput(
                f"{self.at(name)}: {value!r} is not supported; write {usual}, or leave it out"
            )

    def boolean(self, name: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise InvalidInput(f"{self.at(name)}: must be true or false, not {_say(value)}")
        return value

    def integer(self, name: str, *, within: range) -> int | None:
        """Return a whole number of a range, or None."""
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise InvalidInput(f"{self.at(name)}: must be a whole number, not {_say(value)}")
        if value not in within:
            raise InvalidInput(
                f"{self.at(name)}: {value} is outside {within.start} to {within.stop - 1}"
            )
        return value

    def as_number(self, name: str) -> int | None:
        """Return an AS number: 65001, "65001" or, as RFC 5396 writes it, "0.65001"."""
        value = self.get(name)
        if isinstance(value, str):
            match = re.fullmatch(r"(?:([0-9]{1,5})\.)?([0-9]{1,10})", value, re.ASCII)
            if match is None or (match[1] is not None and max(map(int, match.groups())) >= 1 << 16):
                raise InvalidInput(f"{self.at(name)}: {value!r} is no AS number")
            value = (int(match[1] or 0) << 16) + int(match[2])
        reader = Fields({name: value}, path=self.path)
        return reader.integer(name, within=range(1, MAX_AS_NUMBER + 1))

    def choice(self, name: str, kind: type[E], *, default: E) -> E:
        """Return one of an enumeration's values."""
        value = self.get(name)
        return default if value is None else parse_choice(value, kind, path=self.at(name))

    def network(self, name: str) -> IPNetwork:
        """Return a CIDR, whose host bits must be zero."""
        return parse_network(self.need(name), path=self.at(name))

    def interface(self, name: str, *, version: int) -> IPInterface | None:
        """Return an address with the prefix length of its subnet, or None."""
        text = self.text(name)
        if text is None:
            return None
        try:
            value = ip_interface(text)
        except ValueError as exc:
            raise InvalidInput(f"{self.at(name)}: {exc}") from exc
        if value.version != version:
            raise InvalidInput(f"{self.at(name)}: {text} is no IPv{version} address")
        return value

    def address(self, name: str, *, version: int | None = None) -> IPAddress | None:
        """Return an address (of one IP version, where that is given), or None."""
        text = self.text(name)
        value = None if text is None else parse_address(text, path=self.at(name))
        if value is not None and version not in (None, value.version):
            raise InvalidInput(f"{self.at(name)}: {text} is no IPv{version} address")
        return value

    def mac(self, name: str) -> str | None:
        """Return the MAC address of a single interface, or None."""
        text = self.text(name)
        return None if text is None else parse_mac(text, path=self.at(name))


def parse_address(text: str, *, path: str) -> IPAddress:
    """Return an address without zone ("%eth0" belongs to one machine, not to the cluster)."""
    try:
        value = ip_address(text)
    except ValueError as exc:
        raise InvalidInput(f"{path}: {text!r} is no IP address") from exc
    if "%" in text:
        raise InvalidInput(f"{path}: {text!r} names an interface; give the address alone")
    return value


def parse_network(text: object, *, path: str) -> IPNetwork:
    """Return a CIDR, whose host bits must be zero; an address alone is its own network."""
    try:
        # Numbers would be addresses, too.
        if not isinstance(text, str) or "%" in text:
            raise ValueError("a text without zone is needed")
        return read_prefix(text)
    except ValueError as exc:
        raise InvalidInput(f"{path}: {text!r} is no CIDR: {exc}") from exc


def parse_choice(value: object, kind: type[E], *, path: str) -> E:
    """Return the member of an enumeration with this value."""
    for member in kind:
        if member.value == value:
            return member
    known = ", ".join(str(member.value) for member in kind)
    raise InvalidInput(f"{path}: {value!r} is none of {known}")


def _say(value: object) -> str:
    return "nothing" if value is None else f"{value!r:.60}"


def check_selector(spec: Fields, name: str) -> str | None:
    """Return a selector, or None; raise `InvalidInput` where it is none."""
    text = spec.text(name)
    try:
        selector(text or "")
    except InvalidInput as exc:
        raise InvalidInput(f"{spec.at(name)}: {exc}") from None
    return text or None


def only_default(name: str) -> str:
    """Return the name of an object of which a cluster has one."""
    if name != "default":
        raise InvalidInput(f"metadata.name: {name!r} is not supported; the name must be default")
    return name
