"""The sockets that ExaBGP's life hangs on: its helper's, and the addresses of its sessions.

ExaBGP ends at once when it can't listen on an address that it was told, and with it end all
sessions; so it is told only those that this host has.  An IPv6 address is not usable before the
kernel has looked for a duplicate of it (RFC 4862, 5.4), about a second or two after it was set.
Nor can it listen where another program does; that is looked at before it is started, and before
one that works is replaced by one that listens elsewhere.
"""

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pycni.model.network import IPAddress

_log = logging.getLogger(__name__)

ADDRESS_WAIT_S = 3.0
POLL_S = 0.25
"""How often to look: the kernel's events go to others, and there is an end to it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where sessions are accepted: addresses, in order, and a port."""

    addresses: tuple[IPAddress, ...]
    port: int

    def beside(self, other: "Place") -> tuple[IPAddress, ...]:
        """Return the addresses from which a program that listens at another place keeps nobody."""
        if self.port != other.port:
            return self.addresses
        return tuple(a for a in self.addresses if not any(_meet(a, b) for b in other.addresses))

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.addresses))}, port {self.port}"


def _meet(one: IPAddress, other: IPAddress) -> bool:
    is_any = one.is_unspecified or other.is_unspecified
    return one == other or (is_any and one.version == other.version)


def place(addresses: Sequence[IPAddress], *, port: int) -> Place:
    """Return where sessions are accepted; the order of the addresses means nothing."""
    return Place(tuple(sorted(set(addresses), key=lambda a: (a.version, int(a)))), port)


class Listening:
    """Where sessions are to be accepted, and where they are: another program may be in the way.

    `trouble` says what keeps sessions from being accepted where they are to be, and what to do.
    """

    def __init__(self, stated: Place) -> None:
        self.trouble = ""
        self._stated = stated
        self._current: Place | None = None
        self._restated = asyncio.Event()

    def state(self, stated: Place) -> None:
        """Accept sessions there from now on; a place without an address changes nothing."""
        if stated.addresses and stated != self._stated:
            self._stated = stated
            self._restated.set()

    async def find(self) -> Place:
        """Wait until an ExaBGP can be started, and return where it is to listen.

        While another program holds the stated place, that is the place before it.
        """
        while not self._stated.addresses:
            await self._next_statement()
        while not self._is_free((stated := self._stated), beside=None):
            former = self._current
            # Of places that meet `lose_by_move` can't tell, and would be back here at once.
            is_apart = former is not None and stated.beside(former) == stated.addresses
            if former is not None and is_apart and not taken(former.addresses, port=former.port):
                return former
            await asyncio.sleep(POLL_S)
        self._current = stated
        return stated

    async def lose_by_move(self, lost: "asyncio.Future[str]") -> None:
        """Call an ExaBGP lost that listens elsewhere than stated, once one can listen there."""
        while True:
            stated = self._stated
            if stated == self._current:
                self._say("")
                await self._next_statement()
            elif self._is_free(stated, beside=self._current):
                break
            else:
                await asyncio.sleep(POLL_S)
        if not lost.done():
            lost.set_result(f"it is to listen on {stated}, now")

    async def _next_statement(self) -> None:
        await self._restated.wait()
        self._restated.clear()

    def _is_free(self, stated: Place, *, beside: Place | None) -> bool:
        """Tell whether no other program is in the way, and say it if one is."""
        addresses = stated.addresses if beside is None else stated.beside(beside)
        held = taken(addresses, port=stated.port)
        self._say(taken_text(held, port=stated.port) if held else "")
        return not held

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            _log.warning("cannot listen for BGP sessions", extra={"reason": trouble})
        self.trouble = trouble


def taken_text(held: Sequence[IPAddress], *, port: int) -> str:
    """Say that another program is where BGP sessions are to be accepted, and what to do."""
    return (
        f"cannot accept BGP sessions on {', '.join(map(str, held))}, port {port}: another program"
        f" has that port: end it (ss -tanp 'sport = :{port}' names it), or write another"
        " listenPort into the BGPConfiguration"
    )


def absent(addresses: Sequence[IPAddress]) -> tuple[IPAddress, ...]:
    """Return those of these addresses that nothing can listen on (yet)."""
    return tuple(address for address in addresses if _refusal(address, port=0))


def taken(addresses: Sequence[IPAddress], *, port: int) -> tuple[IPAddress, ...]:
    """Return those of these addresses at which a port is some program's."""
    return tuple(a for a in addresses if _refusal(a, port=port) == errno.EADDRINUSE)


def _refusal(address: IPAddress, *, port: int) -> int:
    """Return the errno of listening there, 0 when it can be done; options are as ExaBGP's."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind((str(address), port))
    except OSError as exc:
        return exc.errno or errno.EIO
    return 0


async def wait_for(addresses: Sequence[IPAddress]) -> tuple[IPAddress, ...]:
    """Wait a while until this host has all these addresses; return those that it still lacks."""
    deadline = time.monotonic() + ADDRESS_WAIT_S
    while (missing := absent(addresses)) and time.monotonic() < deadline:  # noqa: ASYNC110 - POLL_S
        await asyncio.sleep(POLL_S)
    return missing


async def lose_by_arrival(missing: Place, lost: "asyncio.Future[str]") -> None:
    """Call an ExaBGP lost that listens on too few addresses, once this host has one more."""
    if not missing.addresses:
        return
    names = ", ".join(map(str, missing.addresses))
    _log.warning("no interface has an address for BGP sessions", extra={"addresses": names})
    while not (here := _usable(missing)):  # noqa: ASYNC110 - POLL_S
        await asyncio.sleep(POLL_S)
    if not lost.done():
        lost.set_result(f"it is to listen on {', '.join(map(str, here))}, which has come")


def _usable(wanted: Place) -> tuple[IPAddress, ...]:
    return tuple(a for a in wanted.addresses if not _refusal(a, port=wanted.port))


def helper_listener(path: Path, *, gid: int) -> socket.socket:
    """Listen for ExaBGP's helper, at a path that its group alone can reach."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.bind(str(path))
    path.chmod(0o660)
    if os.getuid() == 0:
        os.chown(path, 0, gid)
    listener.listen(8)
    return listener
