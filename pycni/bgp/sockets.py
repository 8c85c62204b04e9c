"""The sockets that ExaBGP's life hangs on: its helper's, and the addresses of its sessions.

ExaBGP ends at once when it can't listen on an address that it was told, and with it end all
sessions; so it is told only those that this host has.  An IPv6 address is not usable before the
kernel has looked for a duplicate of it (RFC 4862, 5.4), about a second or two after it was set.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path

from pycni.model.network import IPAddress

_log = logging.getLogger(__name__)

ADDRESS_WAIT_S = 3.0
POLL_S = 0.25
"""How often to look: the kernel's events go to others, and there is an end to it."""


def absent(addresses: Sequence[IPAddress]) -> tuple[IPAddress, ...]:
    """Return those of these addresses that nothing can listen on (yet)."""
    return tuple(address for address in addresses if not _is_there(address))


def _is_there(address: IPAddress) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True


async def wait_for(addresses: Sequence[IPAddress]) -> tuple[IPAddress, ...]:
    """Wait a while until this host has all these addresses; return those that it still lacks."""
    deadline = time.monotonic() + ADDRESS_WAIT_S
    while (missing := absent(addresses)) and time.monotonic() < deadline:  # noqa: ASYNC110 - POLL_S
        await asyncio.sleep(POLL_S)
    return missing


async def lose_by_arrival(missing: Sequence[IPAddress], lost: "asyncio.Future[str]") -> None:
    """Call an ExaBGP lost that listens on too few addresses, once this host has one more."""
    if not missing:
        return
    names = ", ".join(map(str, missing))
    _log.warning("no interface has an address for BGP sessions", extra={"addresses": names})
    while len(still := absent(missing)) == len(missing):  # noqa: ASYNC110 - POLL_S
        await asyncio.sleep(POLL_S)
    if not lost.done():
        here = ", ".join(str(address) for address in missing if address not in still)
        lost.set_result(f"it is to listen on {here}, which has come")


def helper_listener(path: Path, *, gid: int) -> socket.socket:
    """Listen for ExaBGP's helper, at a path that its group alone can reach."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    listener.bind(str(path))
    path.chmod(0o660)
    if os.getuid() == 0:
        os.chown(path, 0, gid)
    listener.listen(8)
    return listener
