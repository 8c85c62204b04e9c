"""The real server of the CNI socket, around a handler that notes what it gets."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from pycni.cni.main import Reply
from pycni.cni.protocol import Request
from pycni.cni.server import CniServer
from pycni.kernel.netns import is_netns
from pycni.unix import listen_private
from tests import waiting

Story = Callable[["Agent"], Awaitable[None]]
NETNS = "/proc/self/ns/net"
VARIABLES = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c0ffee",
    "CNI_NETNS": NETNS,
    "CNI_IFNAME": "eth0",
}
DOCUMENT = b'{"cniVersion": "1.1.0", "name": "net"}'


def message(stdin: bytes = DOCUMENT, **variables: str) -> bytes:
    merged = VARIABLES | variables
    environment = "".join(f"{k}={v}\0" for k, v in merged.items()).encode()
    return len(environment).to_bytes(4, "big") + environment + stdin


class Agent:
    """The real server around a handler that notes what it gets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.server = CniServer(self.handle)
        self.requests: list[tuple[Request, int | None]] = []
        self.is_netns: list[bool] = []
        self.gone: list[bool] = []
        self.hold: asyncio.Event | None = None

    async def handle(
        self, request: Request, netns_fd: int | None, is_gone: Callable[[], bool]
    ) -> Reply:
        self.requests.append((request, netns_fd))
        if netns_fd is not None:
            self.is_netns.append(is_netns(netns_fd))
        if self.hold is not None:
            await self.hold.wait()
        self.gone.append(is_gone())
        return Reply(0, b'{"done": true}')

    async def ask(self, data: bytes, *, fds: tuple[int, ...] = ()) -> bytes:
        return await asyncio.to_thread(ask, self.path, data, fds)


def ask(path: Path, data: bytes, fds: tuple[int, ...] = ()) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        try:
            if fds:
                sent = socket.send_fds(client, [data], fds)
                data = data[sent:]
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            parts = []
            while part := client.recv(65536):
                parts.append(part)
        except ConnectionError:
            return b""
        return b"".join(parts)


until = partial(waiting.until, within_s=30)
"""Wait for what other threads and processes bring about."""


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: the socket serves nobody else")


def play(tmp_path: Path, story: Story) -> None:
    need_root()

    async def main() -> None:
        agent = Agent(tmp_path / "run" / "cni.sock")
        before = descriptors()
        task = asyncio.create_task(agent.server.run(listen_private(agent.path)))
        try:
            await story(agent)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert descriptors() <= before, "a descriptor is left"

    asyncio.run(main())


@contextlib.contextmanager
def opened(*paths: str) -> Iterator[tuple[int, ...]]:
    """Give a descriptor of each path."""
    fds = tuple(os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths)
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)
