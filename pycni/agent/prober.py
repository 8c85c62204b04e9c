"""Notice that a peer which was away answers again, and have BGP try it at once.

ExaBGP waits up to a minute between attempts to a peer that is down.  A datagram to a UDP port on
which nobody listens tells sooner, and needs no privilege: a host that lives answers with ICMP
"port unreachable", which the kernel reports on a connected socket (ip(7), ECONNREFUSED).
"""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pycni.model.network import IPAddress

PERIOD_S = 1.0
PORT = 179  # BGP is TCP; nobody listens on UDP here


@dataclass(slots=True)
class _Probe:
    socket: socket.socket
    was_silent: bool = False


class Prober:
    """Probes peers that are down; `returned` is called when a silent one answers again."""

    def __init__(
        self,
        *,
        down_peers: Callable[[], Iterable[IPAddress]],
        returned: Callable[[IPAddress], None],
    ) -> None:
        self._down_peers = down_peers
        self._returned = returned
        self._probes: dict[IPAddress, _Probe] = {}

    async def run(self) -> None:
        """Probe until cancelled."""
        try:
            while True:
                self.probe()
                await asyncio.sleep(PERIOD_S)
        finally:
            self.close()

    def close(self) -> None:
        """Forget all peers."""
        for probe in self._probes.values():
            probe.socket.close()
        self._probes.clear()

    def probe(self) -> None:
        """Look at the answers to the last round, then send the next one."""
        down = set(self._down_peers())
        for peer in self._probes.keys() - down:
            self._probes.pop(peer).socket.close()
        for peer in down:
            probe = self._probes.get(peer)
            if probe is None:
                self._probes[peer] = probe = _Probe(_open(peer))
            elif _has_answered(probe.socket):
                if probe.was_silent:
                    self._returned(peer)
                probe.was_silent = False
            else:
                probe.was_silent = True
            # Connected each time: a socket keeps the route, or the lack of one, of its connect.
            # Errors don't matter here: no route is as silent as a host that is off, and the one
            # that does matter is read in the next round.
            with contextlib.suppress(OSError):
                probe.socket.connect((str(peer), PORT))
                probe.socket.send(b"\0")


def _open(peer: IPAddress) -> socket.socket:
    family = socket.AF_INET if peer.version == 4 else socket.AF_INET6
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    return socket.socket(family, kind)


def _has_answered(probe: socket.socket) -> bool:
    return probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
