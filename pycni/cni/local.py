"""The engine in process: serves one request where no agent runs, over the same files and locks.

Started by the relay, with the runtime's environment and standard input unchanged.  It is slower
than the CNI server, and it never leaves anything that the agent would not recognise.
"""

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

from pycni.cni import defaults
from pycni.cni.commands import Command
from pycni.cni.debts import pay_debts
from pycni.cni.errors import CniError, Code, as_cni_error
from pycni.cni.main import Reply, execute, failure, parse_or_reply
from pycni.cni.netconf import KUBERNETES, NetworkConfig
from pycni.cni.protocol import Request
from pycni.cni.tools import Engine
from pycni.datastore.sqlite import open_sqlite
from pycni.datastore.unusable import UnusableDatastore
from pycni.endpoints import FileEndpoints
from pycni.errors import PycniError, TryAgain
from pycni.ipam.allocator import Allocator
from pycni.kernel.netns import is_netns
from pycni.kernel.podnet import LinuxPodNet
from pycni.leaving import LeaveWish
from pycni.ports import Datastore


def main() -> int:
    """Serve the request in the environment; return the exit status."""
    stdin = sys.stdin.buffer.read()
    reply = asyncio.run(serve(dict(os.environ), stdin))
    sys.stdout.buffer.write(reply.output)
    sys.stdout.buffer.flush()
    return reply.status


async def serve(environment: dict[str, str], stdin: bytes) -> Reply:
    """Answer one request."""
    request = parse_or_reply(environment, stdin)
    if isinstance(request, Reply):
        return request
    netns_fd = _open_netns(request.netns)
    try:
        datastore = await _open_datastore(request.config)
        try:
            return await _serve(request, datastore, netns_fd)
        finally:
            await datastore.close()
    except PycniError as error:
        return failure(as_cni_error(error), version=request.config.cni_version)
    except OSError as error:
        text = f"{request.command.value} cannot work: {error}"
        return failure(CniError(Code.IO_FAILURE, text), version=request.config.cni_version)
    finally:
        if netns_fd is not None:
            os.close(netns_fd)


async def _open_datastore(config: NetworkConfig) -> Datastore:
    """Open the datastore; one that can't be opened fails with each use of it.

    So a DEL removes the interface and journals the rest, and STATUS waits before it complains.
    The cluster's objects are the agent's to ask for: there are no credentials for them here.
    """
    if config.datastore == KUBERNETES:
        return UnusableDatastore(
            TryAgain(
                f"no agent answers in {config.run_dir}, and nobody else on this node may use the"
                " cluster's objects: look at the agent (systemctl status pycni-agent, or its pod)"
            )
        )
    try:
        return await open_sqlite(Path(config.datastore))
    except PycniError as error:
        return UnusableDatastore(error)


async def _serve(request: Request, datastore: Datastore, netns_fd: int | None) -> Reply:
    config = request.config
    node = config.nodename or defaults.nodename(Path(config.state_dir))
    podnet = LinuxPodNet()
    try:
        engine = Engine(
            node=node,
            datastore=datastore,
            allocator=Allocator(datastore, node=node),
            endpoints=FileEndpoints(run_dir=Path(config.run_dir), state_dir=Path(config.state_dir)),
            podnet=podnet,
            default_mtu=lambda: defaults.default_mtu(datastore, node=node),
            run_dir=Path(config.run_dir),
            is_leaving=LeaveWish(Path(config.state_dir)).is_there,
        )
        reply = await execute(engine, request, netns_fd=netns_fd)
        if request.command in (Command.ADD, Command.DEL) and reply.status == 0:
            # Nobody else does where no agent ever runs; and it is no defect of this request's.
            with suppress(OSError):
                await pay_debts(engine)
        return reply
    finally:
        podnet.close()


def _open_netns(path: str) -> int | None:
    if not path:
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if is_netns(fd):
        return fd
    os.close(fd)
    return None


if __name__ == "__main__":
    sys.exit(main())
