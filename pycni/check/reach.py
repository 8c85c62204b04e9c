"""Ask other machines whether packets reach them; no privilege is needed.

A datagram to a UDP port on which nobody listens: the other kernel answers with ICMP "port
unreachable", which ours reports on a connected socket (ip(7), ECONNREFUSED).
"""

import asyncio
import errno
import secrets
import socket
import struct
from collections.abc import Sequence

from pycni.check.findings import Finding
from pycni.check.paths import Passed, Peer, Way, is_silent, judge
from pycni.model.network import IPAddress

PORT = 179
"""BGP is TCP: nobody listens on UDP here, and a firewall between nodes may know the number."""
ATTEMPTS = 3
PATIENCE_S = 1.0
"""A kernel sends one host about one such answer a second (icmp_ratelimit), some more at first."""
AT_ONCE = 32
_DNS_PORT = 53
# linux/in.h; the module `socket` has no name for them.
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_PROBE = 3


async def try_peers(peers: Sequence[Peer]) -> list[Finding]:
    """Try the ways to other nodes, several at a time; return what is wrong with them."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(peer: Peer) -> list[Finding]:
        async with turns:
            underlay = await _try(peer.underlay)
            tunnel = None if peer.tunnel is None else await _try(peer.tunnel)
            is_alive = not is_silent(underlay, tunnel) or await _answers_tcp(peer.underlay.address)
        return judge(peer, underlay=underlay, tunnel=tunnel, is_alive=is_alive)

    found = await asyncio.gather(*map(one, peers))
    return [finding for findings in found for finding in findings]


async def _try(way: Way) -> Passed:
    small, full = way.payloads
    came = [await passes(way.address, payload=size) for size in (small, full)]
    return Passed(*came)


async def _answers_tcp(address: IPAddress) -> bool:
    """Tell whether BGP's port is open, or refused by somebody."""
    with socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            async with asyncio.timeout(ATTEMPTS * PATIENCE_S):
                await asyncio.get_running_loop().sock_connect(probe, (str(address), PORT))
        except ConnectionRefusedError:
            return True
        except OSError:  # TimeoutError is one
            return False
    return True


async def passes(address: IPAddress, *, payload: int) -> bool:
    """Tell whether a datagram of just that size, never in fragments, is answered."""
    for _ in range(ATTEMPTS):
        with socket.socket(_family(address), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as probe:
            # Whatever the kernel has learned of the path: it may have been mended since.
            if address.version == 4:
                probe.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
            else:
                probe.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 1)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    probe.connect((str(address), PORT))
                    probe.send(bytes(payload))
                    await asyncio.get_running_loop().sock_recv(probe, 1)
            except ConnectionRefusedError:
                return True
            except TimeoutError:
                continue
            except OSError as exc:
                if exc.errno == errno.EMSGSIZE:  # a router has said so
                    return False
                continue
            return True  # somebody listens, and answered
    return False


def _family(address: IPAddress) -> socket.AddressFamily:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


async def resolves(server: str, *, port: int = _DNS_PORT) -> bool:
    """Tell whether a name server answers a question for the root's name servers at all."""
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    question = secrets.token_bytes(2)
    query = question + struct.pack(">5H", 0x0100, 1, 0, 0, 0) + b"\0" + struct.pack(">2H", 2, 1)
    for _ in range(ATTEMPTS):
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asker:
            try:
                async with asyncio.timeout(PATIENCE_S):
                    asker.connect((server, port))
                    asker.send(query)
                    answer = await asyncio.get_running_loop().sock_recv(asker, 4096)
            except OSError:  # TimeoutError is one
                continue
            if answer[:2] == question:
                return True
    return False
