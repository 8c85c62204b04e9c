"""Both forms of the relay, installed beside an engine that says how it was called."""

import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"

ENGINE = """\
#!/bin/sh
# Says how it was called, and what came on its standard input.
printf 'engine %s CNI_COMMAND=%s LEAKED=%s ' "$*" "$CNI_COMMAND" "$LEAKED"
cat
exit 3
"""


@pytest.fixture(scope="session")
def compiled() -> Path:
    """Return the C relay as it is installed."""
    ran = subprocess.run(
        [str(ROOT / "bin" / "ensure"), "relay"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return Path(ran.stdout.strip())


@dataclass
class Relay:
    """One installed relay: the plugin, and the engine beside it."""

    command: list[str]
    engine: Path

    def run(
        self,
        stdin: bytes | str | dict[str, Any] = b"{}",
        *arguments: str,
        timeout: float = 20,
        **variables: str,
    ) -> "Answer":
        """Call the plugin as a runtime does."""
        if isinstance(stdin, dict):
            stdin = json.dumps(stdin)
        text = stdin.encode() if isinstance(stdin, str) else stdin
        environment = {"PATH": os.defpath, "CNI_COMMAND": "ADD", **variables}
        ran = subprocess.run(
            [*self.command, *arguments],
            input=text,
            capture_output=True,
            env={k: v for k, v in environment.items() if v != "(unset)"},
            check=False,
            timeout=timeout,
        )
        return Answer(ran.returncode, ran.stdout, ran.stderr)


@dataclass(frozen=True)
class Answer:
    """What a plugin said."""

    status: int
    output: bytes
    errors: bytes = b""

    @property
    def is_engines(self) -> bool:
        """Whether the engine answered."""
        return self.output.startswith(b"engine ")


@pytest.fixture(params=["python", "c"])
def relay(request: pytest.FixtureRequest, tmp_path: Path) -> Relay:
    """Install a relay and a speaking engine into a directory of their own."""
    return install(request, tmp_path, request.param)


def install(request: pytest.FixtureRequest, directory: Path, form: str) -> Relay:
    plugin_dir = directory / f"bin-{form}"
    plugin_dir.mkdir()
    plugin, engine = plugin_dir / "pycni", plugin_dir / "pycni-engine"
    engine.write_text(ENGINE)
    engine.chmod(0o755)
    if form == "c":
        shutil.copy(request.getfixturevalue("compiled"), plugin)
        return Relay([str(plugin)], engine)
    shutil.copy(ROOT / "bin" / "pycni", plugin)
    shutil.copy(ROOT / "bin" / "pycni-relay.py", plugin_dir)
    return Relay([PYTHON, "-ISE", str(plugin)], engine)


@pytest.fixture
def relays(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Relay, Relay]:
    """Install both, for comparisons."""
    return install(request, tmp_path, "python"), install(request, tmp_path, "c")


# --- an agent that follows a script -------------------------------------------------------------


@dataclass
class Heard:
    """One request as the agent received it."""

    environment: list[bytes]
    stdin: bytes
    descriptors: list[int]
    netns_inode: int | None = None


@dataclass
class ScriptedAgent:
    """Listens where an agent would; does with each connection what the script says."""

    run_dir: Path
    answer: bytes | None = b"\x00{}"
    before_reading: Callable[[socket.socket], None] | None = None
    heard: list[Heard] = field(default_factory=list)
    _listener: socket.socket | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self.run_dir.mkdir(exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.run_dir / "cni.sock"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        assert self._listener is not None
        assert self._thread is not None
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=20)

    def _serve(self) -> None:
        assert self._listener is not None
        held = []
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            held.append(connection)
            connection.settimeout(10)
            try:
                self._talk(connection)
            except OSError:
                connection.close()
        for connection in held:
            connection.close()

    def _talk(self, connection: socket.socket) -> None:
        if self.before_reading is not None:
            self.before_reading(connection)
        data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 8)
        while part := connection.recv(1 << 16):
            data += part
        end = 4 + int.from_bytes(data[:4], "big")
        heard = Heard(data[4:end].split(b"\0")[:-1], data[end:], fds)
        if fds:
            heard.netns_inode = os.fstat(fds[0]).st_ino
        for fd in fds:
            os.close(fd)
        self.heard.append(heard)
        if self.answer is not None:
            connection.sendall(self.answer)
            connection.close()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[ScriptedAgent]:
    """Run an agent that answers 0 and an empty object."""
    made = ScriptedAgent(tmp_path / "run")
    made.start()
    yield made
    made.stop()
