"""A host on which requests die at a system call of one's choice, and what they leave there.

Requests are served by the engine or the CNI server in forked processes: the same code and the same
files as the executables', without loading its modules anew hundreds of times.
"""

import asyncio
import contextlib
import io
import json
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from cluster import eventually
from killing import Ran, kill_at, run, run_killed, start
from plugin_host import ADDRESS, PluginHost, Pod, Said, serves
from pycni.agent import command
from pycni.cni import local, service
from pycni.datastore import sqlite_file
from pycni.datastore.sqlite import open_sqlite
from pycni.endpoints import FileEndpoints
from pycni.ipam import block as arithmetic
from pycni.ipam.audit import audit
from pycni.ipam.books import Books, NodeRecords
from pycni.ipam.lookup import read_books
from pycni.kernel.netns import setns
from pycni.unix import listen_private

RESOURCES = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: default-v6}
spec: {cidr: "fd00:10:244::/64", natOutgoing: true}
---
apiVersion: projectcalico.org/v3
kind: Node
metadata: {name: node-0}
spec: {bgp: {ipv4Address: 10.10.7.20/20}}
"""
TWO_FAMILIES = {"ipam": {"type": "pycni-ipam", "assign_ipv6": "true"}}
EVERYTHING_INVALID = {"cni.dev/valid-attachments": list[object]()}
MOST_CALLS = 20_000
"""A sweep that has not come to its end by then never will."""
QUIET_S = 0.2
"""How long an agent has nothing to do before it has done all that its CNI server has caused."""
FILES = ("pycni.db", "pycni.db-wal", "pycni.db-shm")


@dataclass(frozen=True)
class FaultyHost:
    """A host whose pods get an address of each family, and one pod of it."""

    installed: PluginHost
    pod: Pod

    @classmethod
    def of(cls, installed: PluginHost) -> "FaultyHost":
        """Set the host up, and let it claim its first blocks."""
        installed.ctl("apply", "-f", "-", stdin=RESOURCES)
        installed.config.update(TWO_FAMILIES)
        host = cls(installed, installed.pod())
        host.keep_books()
        with host.server():
            for verb in ("ADD", "DEL"):
                said = host.ask(verb)
                assert said is not None
                assert said.status == 0, said.output
        return host

    # --- requests ---------------------------------------------------------------------------

    def engine(self, verb: str, **config: object) -> Said:
        """Serve a request in process, undisturbed; it must succeed."""
        call = _Call(self, verb, config)
        said = call.said(run(call.prepare, local.main))
        assert said.status == 0, f"{verb}: {said.output}"
        return said

    def engine_killed(self, verb: str, *, at: int, **config: object) -> Ran:
        """Serve a request in process, and die on entering system call `at`."""
        call = _Call(self, verb, config)
        ran = run_killed(call.prepare, local.main, at=at)
        said = call.said(ran.status or 0)
        assert ran.was_killed or ran.status == 0, f"{verb}: {said.output}"
        return ran

    def relay_killed(self, verb: str, *, at: int) -> Ran:
        """Start the installed plugin, which dies on entering system call `at`."""
        call = _Call(self, verb, {})
        plugin = str(self.installed.plugin)

        def execute() -> int:
            os.execve(plugin, [plugin], dict(os.environ))  # noqa: S606  # no shell wanted

        ran = run_killed(call.prepare, execute, at=at)
        said = call.said(ran.status or 0)
        assert ran.was_killed or ran.status == 0, f"{verb}: {said.output}"
        return ran

    # --- the CNI server ---------------------------------------------------------------------

    @contextlib.contextmanager
    def server(self) -> Iterator[int]:
        """Run a CNI server; give its process."""
        directory = self.installed.directory
        listener = listen_private(directory / "run" / "cni.sock")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        settings = service.ServiceSettings(
            node="node-0",
            datastore=str(directory / "pycni.db"),
            run_dir=str(directory / "run"),
            state_dir=str(directory / "state"),
            log_level="ERROR",
            listener=listener.fileno(),
            channel=theirs.fileno(),
            kubeconfig="",
            datastore_identity=sqlite_file.identity(str(directory / "pycni.db")),
        )

        def prepare() -> None:
            ours.close()
            setns(self.installed.namespace.fd)

        pid = start(prepare, lambda: service.main([settings.to_json()]))
        # The server's alone: with it whoever waits there is let go, and needs no agent for that.
        listener.close()
        theirs.close()
        try:
            packet = ours.recv(1 << 17)
            assert json.loads(packet) == {"serving": True}, packet
            yield pid
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
            (directory / "run" / "cni.sock").unlink()
            ours.close()

    def server_killed(self, verb: str, *, at: int) -> Ran:
        """Ask a CNI server that dies on entering system call `at`."""
        with self.server() as pid:
            tracer = kill_at(pid, at)
            said = self.ask(verb)
            if said is not None:
                os.kill(pid, signal.SIGKILL)
                assert said.status == 0, f"{verb}: {said.output}"
            ran = tracer.wait()
            assert ran.was_killed or said is not None
            return ran

    # --- the agent --------------------------------------------------------------------------

    def agent_killed(self, verb: str, *, at: int) -> Ran:
        """Have an agent's CNI server serve a request while the agent dies on system call `at`."""
        pid = self._start_agent()
        try:
            tracer = kill_at(pid, at)
            said = self.ask(verb)
            assert said is None or said.status == 0, f"{verb}: {said.output}"
            _wait_until_quiet(pid)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ran = tracer.wait()
        os.waitpid(pid, 0)
        return ran

    def _start_agent(self) -> int:
        directory = self.installed.directory
        settings = directory / "agent.yaml"
        settings.write_text(
            f"node: node-0\nnode_address: {ADDRESS}\nrun_dir: {directory}/run\n"
            f"state_dir: {directory}/state\ndatastore: {directory}/pycni.db\nlog_level: error\n",
            encoding="utf-8",
        )
        pid = start(
            lambda: setns(self.installed.namespace.fd),
            lambda: command.main(["--config", str(settings)]),
        )
        try:
            eventually(lambda: serves(self.installed), within_s=60)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
        return pid

    def agent_rests(self) -> None:
        """Let an agent do what it does in any case."""
        self.agent_killed("ADD", at=MOST_CALLS)
        self.engine("DEL")

    # --- asking -----------------------------------------------------------------------------

    def ask(self, verb: str, **config: object) -> Said | None:
        """Ask whoever listens, as a relay does; None when it hangs up without an answer."""
        environment = self.pod.environment(verb).items()
        variables = b"".join(f"{name}={value}\0".encode() for name, value in environment)
        stdin = json.dumps({**self.installed.config, **config}).encode()
        netns = os.open(self.pod.netns, os.O_RDONLY)
        try:
            with socket.socket(socket.AF_UNIX) as server:
                server.settimeout(30)
                server.connect(str(self.installed.directory / "run" / "cni.sock"))
                message = len(variables).to_bytes(4, "big") + variables + stdin
                socket.send_fds(server, [message], [netns])
                server.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda: server.recv(1 << 16), b""))
        except ConnectionError:
            return None
        finally:
            os.close(netns)
        return Said(answer[0], answer[1:].decode(), "") if answer else None

    # --- what there is ----------------------------------------------------------------------

    def findings(self) -> list[str]:
        """Return what `pycnictl ipam check` finds, with this node's records."""
        directory = self.installed.directory
        endpoints = FileEndpoints(run_dir=directory / "run", state_dir=directory / "state")
        records = NodeRecords("node-0", tuple(endpoints.list()), tuple(endpoints.pending()))
        books = replace(self._books(), records=(records,))
        return [one.sentence for one in audit(books) if not one.is_information]

    def given(self) -> list[str]:
        """Return the addresses that somebody holds."""
        blocks = self._books().blocks
        return [str(one.address) for block in blocks for one in arithmetic.given(block)]

    def _books(self) -> Books:
        async def read() -> Books:
            datastore = await open_sqlite(self.installed.directory / "pycni.db")
            try:
                return await read_books(datastore)
            finally:
                await datastore.close()

        return asyncio.run(read())

    def things(self) -> list[str]:
        """Return everything that a request may make, but for blocks."""
        namespace = self.installed.namespace
        look = "ip -br link | cut -d' ' -f1; ip route; ip -6 route | sed '/^fe80/d'"
        inside = f"ip -br link | cut -d' ' -f1; {look}"
        files = (
            path.relative_to(self.installed.directory)
            for name in ("run", "state")
            for path in (self.installed.directory / name).rglob("*")
            # Each agent makes its ExaBGP's files anew, and each server its socket.
            if "exabgp" not in str(path) and path.suffix != ".sock"
        )
        return [
            *namespace.sh(look).splitlines(),
            *namespace.run("nsenter", f"--net={self.pod.netns}", "sh", "-c", inside).stdout.split(
                "\n"
            ),
            *sorted(map(str, files)),
            *self.given(),
        ]

    # --- the books --------------------------------------------------------------------------

    def keep_books(self) -> None:
        """Remember the datastore as it is."""
        for source in self._files(""):
            if source.exists():
                shutil.copy(source, source.with_name(f"{source.name}.kept"))

    def restore_books(self) -> None:
        """Put the datastore back as it was: no block is claimed."""
        for target in self._files(""):
            kept = target.with_name(f"{target.name}.kept")
            target.unlink(missing_ok=True)
            if kept.exists():
                shutil.copy(kept, target)

    def _files(self, suffix: str) -> Sequence[Path]:
        return [self.installed.directory / f"{name}{suffix}" for name in FILES]


def sweep(
    hosts: Sequence[FaultyHost],
    kill: Callable[[FaultyHost, int], Ran],
    mend: Callable[[FaultyHost], Callable[[], None]],
    *,
    least: int,
) -> None:
    """Kill at each call in turn, mend after each; there must be `least` of them at least.

    The hosts share the calls among them, each in a process of its own; `mend` is told its host once
    and called after each crash.
    """
    files = [host.installed.directory / "sweep" for host in hosts]
    workers = []
    for number, host in enumerate(hosts):
        files[number].unlink(missing_ok=True)
        calls = range(1 + number, MOST_CALLS, len(hosts))
        workers.append(start(lambda: None, partial(_sweep, host, calls, kill, mend, files[number])))
    ended = [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]
    told = [file.read_text(encoding="utf-8") for file in files]
    assert ended == [0] * len(hosts), "\n".join(told)
    assert min(map(int, told)) > least, f"too few calls were seen: {told}"


def _sweep(
    host: FaultyHost,
    calls: Iterable[int],
    kill: Callable[[FaultyHost, int], Ran],
    mend: Callable[[FaultyHost], Callable[[], None]],
    report: Path,
) -> int:
    """Go through calls up to the first that never comes; report its number, or what went wrong."""
    ran = None
    try:
        make_good = mend(host)
        for at in calls:
            ran = kill(host, at)
            make_good()
            if not ran.was_killed:
                report.write_text(str(at), encoding="utf-8")
                return 0
        raise AssertionError(f"there is no end after {MOST_CALLS} calls")
    except Exception:  # noqa: BLE001  # told to the process that waits
        report.write_text(f"{ran}:\n{traceback.format_exc()}", encoding="utf-8")
        return 1


def _wait_until_quiet(pid: int) -> None:
    """Wait until a process has ended, or all of its threads have slept through a while."""
    began = quiet_since = time.monotonic()
    seen = _threads(pid)
    while time.monotonic() < quiet_since + QUIET_S:
        assert time.monotonic() < began + 30, f"it never rests: {seen}"
        time.sleep(QUIET_S / 20)
        before, seen = seen, _threads(pid)
        if not seen:
            return
        if seen != before or any(state != "S" for state, _ in seen.values()):
            quiet_since = time.monotonic()


def _threads(pid: int) -> dict[str, tuple[str, str]]:
    """Return each thread's state and how often it has slept; none of a process that has ended."""
    found = {}
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            lines = (task / "status").read_text(encoding="utf-8").splitlines()
            said = dict(line.split(":", 1) for line in lines)
            found[task.name] = said["State"].strip()[0], said["voluntary_ctxt_switches"].strip()
    return {name: one for name, one in found.items() if one[0] not in "ZX"}


class _Call:
    """The input and output of one request in a forked process."""

    def __init__(self, host: FaultyHost, verb: str, config: dict[str, object]) -> None:
        self._host = host
        self._environment = host.pod.environment(verb)
        self._document = json.dumps({**host.installed.config, **config}).encode()
        self._output = os.memfd_create("stdout")

    def prepare(self) -> None:
        """Give this process what a runtime gives its plugin."""
        stdin = os.memfd_create("stdin")
        os.write(stdin, self._document)
        os.lseek(stdin, 0, os.SEEK_SET)
        os.dup2(stdin, 0)
        os.dup2(self._output, 1)
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0)))
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w")))
        os.environ.clear()
        os.environ.update({"PATH": os.defpath, **self._environment})
        setns(self._host.installed.namespace.fd)

    def said(self, status: int) -> Said:
        """Return what was printed."""
        os.lseek(self._output, 0, os.SEEK_SET)
        with os.fdopen(self._output, encoding="utf-8") as printed:
            return Said(status, printed.read(), "")
