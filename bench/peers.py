"""BGP speakers that cost next to nothing: many of them in one process, for one agent to talk to.

    python3 peers.py FIRST COUNT [--nodes FIRST_NODE NODES] [--pool 10.128.0.0/9]

listens at COUNT addresses from FIRST on and takes commands on its standard input, each answered by
a line with the clock's seconds at which its first UPDATE went out:

    announce FROM TO    blocks of the pool, by number
    withdraw FROM TO

A block is announced by one peer, with that peer as next hop; with --nodes by every peer, as route
reflectors do, block by block to the nodes in turn, and a node's blocks have it as next hop.
Standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

PORT = 179
LOCAL_AS = 64512
HOLD_S = 90
MARKER = b"\xff" * 16
OPEN, UPDATE, NOTIFICATION, KEEPALIVE = 1, 2, 3, 4
BLOCK_BITS = 26
MOST_NLRI = 800
"""So many blocks fit in an UPDATE of 4096 bytes (RFC 4271, 4.1), at 5 bytes each."""


def message(kind: int, body: bytes = b"") -> bytes:
    """Return a BGP message (RFC 4271, 4.1)."""
    return MARKER + struct.pack("!HB", 19 + len(body), kind) + body


def open_message(address: IPv4Address) -> bytes:
    """Return an OPEN: IPv4 unicast, AS numbers of four bytes, graceful restart."""
    capabilities = b"".join(
        (
            struct.pack("!BBHBB", 1, 4, 1, 0, 1),  # multiprotocol (RFC 4760)
            struct.pack("!BBI", 65, 4, LOCAL_AS),  # four-octet AS (RFC 6793)
            struct.pack("!BBHHBB", 64, 6, 120, 1, 1, 0x80),  # graceful restart (RFC 4724)
        )
    )
    optional = struct.pack("!BB", 2, len(capabilities)) + capabilities
    fixed = struct.pack("!BHH", 4, LOCAL_AS, HOLD_S) + address.packed
    return message(OPEN, fixed + bytes([len(optional)]) + optional)


def attribute(flags: int, kind: int, value: bytes) -> bytes:
    """Return a path attribute (RFC 4271, 4.3)."""
    return bytes([flags, kind, len(value)]) + value


def announcement(next_hop: IPv4Address, blocks: list[bytes], *, reflector: bytes = b"") -> bytes:
    """Return an UPDATE; of a reflector with ORIGINATOR_ID and CLUSTER_LIST (RFC 4456)."""
    attributes = (
        attribute(0x40, 1, b"\0")
        + attribute(0x40, 2, b"")
        + attribute(0x40, 3, next_hop.packed)
        + attribute(0x40, 5, struct.pack("!I", 100))
    )
    if reflector:
        attributes += attribute(0x80, 9, next_hop.packed) + attribute(0x80, 10, reflector)
    return message(UPDATE, struct.pack("!HH", 0, len(attributes)) + attributes + b"".join(blocks))


def withdrawal(blocks: list[bytes]) -> bytes:
    """Return an UPDATE that takes blocks back."""
    gone = b"".join(blocks)
    return message(UPDATE, struct.pack("!H", len(gone)) + gone + b"\0\0")


@dataclass
class Speakers:
    """All peers, and the sessions that are up."""

    first: IPv4Address
    count: int
    pool: IPv4Network
    nodes: tuple[IPv4Address, int] | None = None
    sessions: dict[int, asyncio.StreamWriter] = field(default_factory=dict)

    def block(self, number: int) -> bytes:
        """Return a block as NLRI."""
        address = int(self.pool.network_address) + (number << (32 - BLOCK_BITS))
        return bytes([BLOCK_BITS]) + address.to_bytes(4, "big")

    async def serve(self) -> None:
        """Listen at every address."""
        for number in range(self.count):
            address = self.first + number

            async def talk(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                number: int = number,
                address: IPv4Address = address,
            ) -> None:
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    await self._talk(number, address, reader, writer)
                if self.sessions.get(number) is writer:
                    del self.sessions[number]
                writer.close()

            await asyncio.start_server(talk, str(address), PORT, backlog=16)

    async def _talk(
        self,
        number: int,
        address: IPv4Address,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        writer.write(open_message(address))
        while True:
            header = await reader.readexactly(19)
            length, kind = struct.unpack("!HB", header[16:])
            await reader.readexactly(length - 19)
            if kind == OPEN:
                writer.write(message(KEEPALIVE))
            elif kind == NOTIFICATION:
                return
            elif kind == KEEPALIVE and number not in self.sessions:
                self.sessions[number] = writer
                writer.write(message(UPDATE, b"\0\0\0\0"))  # End-of-RIB: it has nothing yet

    async def keep_alive(self) -> None:
        """Say every half minute that the peers are there."""
        while True:
            await asyncio.sleep(HOLD_S / 3)
            for writer in self.sessions.values():
                writer.write(message(KEEPALIVE))

    def updates(self, verb: str, numbers: range) -> Iterator[tuple[int, bytes]]:
        """Yield the messages that tell of blocks, each with the peer that sends it."""
        if verb == "withdraw" or self.nodes is None:
            for peer in range(self.count):
                own = numbers if self.nodes is not None else _every(numbers, peer, self.count)
                blocks = [self.block(number) for number in own]
                for at in range(0, len(blocks), MOST_NLRI):
                    some = blocks[at : at + MOST_NLRI]
                    is_new = verb == "announce"
                    yield (
                        peer,
                        announcement(self.first + peer, some) if is_new else withdrawal(some),
                    )
            return
        first, count = self.nodes
        for node in range(count):
            blocks = [self.block(number) for number in _every(numbers, node, count)]
            for peer in range(self.count if blocks else 0):
                cluster = (self.first + peer).packed
                yield peer, announcement(first + node, blocks, reflector=cluster)

    async def tell(self, verb: str, numbers: range) -> float:
        """Send what there is to tell; return when the first message went out."""
        messages = list(self.updates(verb, numbers))
        began = time.perf_counter()
        for peer, update in messages:
            writer = self.sessions.get(peer)
            if writer is None:
                raise RuntimeError(f"no session with {self.first + peer}")
            writer.write(update)
        for writer in self.sessions.values():
            await writer.drain()
        return began


def _every(numbers: range, first: int, step: int) -> list[int]:
    """Return the numbers that are `first` modulo `step`."""
    return list(range(numbers.start + (first - numbers.start) % step, numbers.stop, step))


async def main() -> None:
    """Be all of them, until the standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=IPv4Address)
    parser.add_argument("count", type=int)
    parser.add_argument("--nodes", nargs=2, metavar=("FIRST", "COUNT"))
    parser.add_argument("--pool", type=IPv4Network, default=IPv4Network("10.128.0.0/9"))
    args = parser.parse_args()
    nodes = (IPv4Address(args.nodes[0]), int(args.nodes[1])) if args.nodes else None
    speakers = Speakers(args.first, args.count, args.pool, nodes)
    await speakers.serve()
    alive = asyncio.create_task(speakers.keep_alive())
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print("ready", flush=True)
    while line := await lines.readline():
        verb, *numbers = line.decode().split()
        if verb == "sessions":
            print(len(speakers.sessions), flush=True)
            continue
        first, end = map(int, numbers)
        print(await speakers.tell(verb, range(first, end)), flush=True)
    alive.cancel()


if __name__ == "__main__":
    asyncio.run(main())
