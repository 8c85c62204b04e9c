"""A command line over a real file, and an agent that answers what it is told to."""

import asyncio
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pycni.ctl.main import main
from pycni.datastore.sqlite import SqliteDatastore, open_sqlite
from pycni.endpoints import FileEndpoints
from pycni.ipam import block as arithmetic
from pycni.model.endpoints import PendingRelease, WorkloadEndpoint
from pycni.model.records import endpoint_document, pending_document
from pycni.model.resources import Block, Resource

Work = Callable[[SqliteDatastore], Awaitable[object]]


@dataclass
class Machine:
    """A datastore, the run directory of a node, and pycnictl on both."""

    path: Path
    capsys: pytest.CaptureFixture[str]
    answers: dict[str, Any] = field(default_factory=dict)

    @property
    def run_dir(self) -> Path:
        return self.path / "run"

    @property
    def database(self) -> Path:
        return self.path / "pycni.db"

    @property
    def endpoints(self) -> FileEndpoints:
        return FileEndpoints(run_dir=self.run_dir, state_dir=self.path)

    def work(self, work: Work) -> Any:  # noqa: ANN401  # whatever the work returns
        """Do something with the datastore."""

        async def play() -> object:
            store = await open_sqlite(self.database)
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(play())

    def write(self, *values: Resource) -> None:
        """Create objects."""

        async def create(store: SqliteDatastore) -> None:
            for value in values:
                await store.create(value)

        self.work(create)

    def kinds(self, kind: type[Resource]) -> list[Any]:
        """Return all objects of a kind."""

        async def values(store: SqliteDatastore) -> list[Any]:
            return [stored.value for stored in (await store.list(kind)).items]

        listed: list[Any] = self.work(values)
        return listed

    def ctl(self, *words: str) -> int:
        """Run `pycnictl ipam`."""
        verb, *rest = words
        local = ["--run-dir", str(self.run_dir)] if verb in {"check", "release", "explain"} else []
        return main(["--datastore", str(self.database), "ipam", verb, *rest, *local])

    def said(self, *words: str, status: int = 0) -> str:
        """Run `pycnictl ipam`, and return what it prints; blanks count as one."""
        self.capsys.readouterr()
        assert self.ctl(*words) == status
        printed = self.capsys.readouterr()
        lines = (printed.err if status in {1, 2} and not printed.out else printed.out).splitlines()
        return "\n".join(" ".join(line.split()) for line in lines)

    def document(self, *words: str, status: int = 0) -> dict[str, Any]:
        """Run `pycnictl ipam -o json`, and return what it prints."""
        self.capsys.readouterr()
        assert self.ctl(*words, "-o", "json") == status
        document: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return document

    def serve(
        self,
        *records: WorkloadEndpoint,
        node: str = "node-0",
        debts: tuple[PendingRelease, ...] = (),
        **answers: Any,  # noqa: ANN401  # JSON
    ) -> None:
        """Have an agent answer with these records, kept where the real one keeps them."""
        for record in records:
            self.endpoints.put(record)
        for debt in debts:
            self.endpoints.journal(debt)
        identity = self.work(_identity)
        self.answers["endpoints"] = {
            "node": node,
            "datastore": list(identity),
            "stateDir": str(self.path),
            "records": [endpoint_document(record) for record in records],
            "debts": [pending_document(debt) for debt in debts],
            "aliases": [],
            "routed": [],
            "gone": [],
        } | answers


def held(machine: Machine) -> list[str]:
    """Return the addresses that somebody holds."""
    return [str(one.address) for block in machine.kinds(Block) for one in arithmetic.given(block)]


async def _identity(store: SqliteDatastore) -> tuple[int, int]:
    return store.identity


@pytest.fixture
def machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Machine:
    """Return a machine without an agent."""
    made = Machine(tmp_path, capsys)
    made.run_dir.mkdir()
    return made


@pytest.fixture
def agent(machine: Machine) -> Iterator[Machine]:
    """Return a machine with an agent."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(machine.run_dir / "control.sock"))
        listener.listen()

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        question = json.loads(connection.makefile("rb").readline())["question"]
                        answer = {"answer": machine.answers[question]}
                        connection.sendall(json.dumps(answer).encode() + b"\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield machine
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
