"""The CNI server's process as a child of the agent: start it, hear it, start it again.

The agent holds the listening socket, so requests that come while there is no child just wait.
The child outlives a killed agent only for as long as its running requests take.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pycni
from pycni import programs
from pycni.cni.service import ServiceSettings
from pycni.config import AgentConfig
from pycni.datastore.opening import Identity
from pycni.unix import listen_private

_log = logging.getLogger(__name__)

FIRST_RETRY_S = 0.1
LAST_RETRY_S = 10.0
LONG_LIFE_S = 30.0
"""After so long a life the next start is tried at once again."""
FINISH_TIMEOUT_S = 15.0
"""How long the child may take to finish running requests when the agent stops."""
_PACKET = 1 << 17


class Count(Protocol):
    """Notes one request that was served."""

    def __call__(self, verb: str, *, status: int, seconds: float) -> None:
        """Count it."""
        ...


class CniChild:
    """Owns the CNI socket and the process that serves it."""

    def __init__(
        self,
        config: AgentConfig,
        *,
        node: str,
        datastore_identity: Identity,
        count: Count,
        count_ipam: Callable[[str, int], None],
        report: Callable[[str, str], None],
    ) -> None:
        self._config = config
        self._node = node
        # That of the agent: a file that was put in its place knows nothing of what pods hold.
        self._datastore_identity = datastore_identity
        self._path = Path(config.run_dir) / "cni.sock"
        self._count = count
        self._count_ipam = count_ipam
        self._report = report
        self._mtu: int | None = None
        self._channel: socket.socket | None = None
        self._refused_before = 0
        self._refused = 0
        self.pid: int | None = None
        self.starts = 0
        self.is_serving = False

    @property
    def refused(self) -> int:
        """How many connections and requests were refused, by this child and those before it."""
        return self._refused_before + self._refused

    def tell_mtu(self, mtu: int) -> None:
        """Let the child know which MTU pods get; it hears of changes only."""
        if mtu != self._mtu:
            self._mtu = mtu
            self._tell_mtu()

    async def run(self) -> None:
        """Keep a child serving until cancelled; running requests are finished then."""
        listener = listen_private(self._path)
        inode = self._path.stat().st_ino
        delay = FIRST_RETRY_S
        loop = asyncio.get_running_loop()
        try:
            while True:
                began = loop.time()
                status = await self._one_life(listener)
                self._report("cni", f"the CNI server ended with status {status}, starting it again")
                delay = min(delay * 2, LAST_RETRY_S)
                if loop.time() - began > LONG_LIFE_S:
                    delay = FIRST_RETRY_S
                await asyncio.sleep(delay)
        finally:
            listener.close()
            with contextlib.suppress(FileNotFoundError):
                if self._path.stat().st_ino == inode:  # a successor may listen there already
                    self._path.unlink()

    async def _one_life(self, listener: socket.socket) -> int:
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                process = await self._start(listener, theirs)
        except (OSError, RuntimeError) as exc:  # out of descriptors, processes or threads
            _log.warning("cannot start the CNI server", extra={"reason": str(exc)})
            return -1
        self._adopt(process, ours)
        try:
            return await process.wait()
        except asyncio.CancelledError:
            listener.close()  # nothing new is begun; and the end of the channel says so, too
            self._abandon()
            if not await programs.is_over(process, within_s=FINISH_TIMEOUT_S):
                await programs.kill(process)  # stuck; what it leaves is what any crash leaves
            raise
        finally:
            self._abandon()

    async def _start(
        self, listener: socket.socket, channel: socket.socket
    ) -> asyncio.subprocess.Process:
        config = self._config
        settings = ServiceSettings(
            node=self._node,
            datastore=config.datastore_place,
            kubeconfig=config.kubeconfig,
            run_dir=config.run_dir,
            state_dir=config.state_dir,
            log_level=config.log_level,
            listener=listener.fileno(),
            channel=channel.fileno(),
            datastore_identity=self._datastore_identity,
        )
        # As isolated as we are: an installed agent looks nowhere but into its own environment.
        isolated = ["-I"] if sys.flags.isolated else []
        root = str(Path(pycni.__file__).parent.parent)
        return await asyncio.create_subprocess_exec(
            sys.executable, *isolated, "-m", "pycni.cni.service", settings.to_json(),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(listener.fileno(), channel.fileno()),
            env={**os.environ, "PYTHONPATH": root, "PYTHONSAFEPATH": "1"},
        )  # fmt: skip

    def _adopt(self, process: asyncio.subprocess.Process, channel: socket.socket) -> None:
        self.pid = process.pid
        self.starts += 1
        channel.setblocking(False)
        self._channel = channel
        asyncio.get_running_loop().add_reader(channel, self._hear)
        self._tell_mtu()

    def _abandon(self) -> None:
        if self._channel is None:
            return
        self._hear()  # its last words
        asyncio.get_running_loop().remove_reader(self._channel)
        self._channel.close()
        self._channel = None
        self._refused_before, self._refused = self.refused, 0
        self.pid = None
        self.is_serving = False

    # --- the channel ----------------------------------------------------------------------------

    def _tell_mtu(self) -> None:
        if self._channel is None or self._mtu is None:
            return
        with contextlib.suppress(OSError):  # it is ending: the next one is told at its start
            self._channel.send(json.dumps({"mtu": self._mtu}).encode())

    def _hear(self) -> None:
        """Read every packet that is there."""
        while self._channel is not None:
            try:
                packet = self._channel.recv(_PACKET)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                asyncio.get_running_loop().remove_reader(self._channel)
                return
            try:
                self._take(json.loads(packet))
            except (ValueError, TypeError, AttributeError) as exc:
                _log.warning("cannot understand the CNI server", extra={"reason": repr(exc)})

    def _take(self, told: dict[str, Any]) -> None:
        if told.get("serving"):
            self.is_serving = True
            self._report("cni", "")
        for what, why in told.get("trouble", {}).items():
            self._report(what, why)
        for verb, status, seconds in told.get("served", ()):
            self._count(verb, status=status, seconds=seconds)
        for event, number in told.get("ipam", {}).items():
            self._count_ipam(event, number)
        self._refused = told.get("refused", self._refused)
