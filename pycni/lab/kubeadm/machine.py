"""The supervisor's hold on one machine: start it, run programs in it, read its logs."""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pycni.errors import TryAgain
from pycni.lab import commands
from pycni.lab.kubeadm import cgroups
from pycni.lab.kubeadm.spec import KIT, LOGS, MachineSpec

START_S = 60.0
STEP_S = 180.0
LOG_TAIL = 15
_POLL_S = 0.05


class Machine:
    """One machine of the cluster."""

    def __init__(self, spec: MachineSpec) -> None:
        self.spec = spec
        self._pid = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def name(self) -> str:
        """Return the node's name."""
        return self.spec.name

    def path(self, inside: Path | str) -> Path:
        """Return where a file of one of the machine's own directories is for the supervisor."""
        return Path(self.spec.store, "data", str(inside).lstrip("/"))

    async def start(self) -> None:
        """Start the machine; returns when its containerd serves."""
        cgroups.make(self.spec.lab, self.name)
        own = [sys.executable, "-I", "-m", "pycni.lab.kubeadm.boot", self.spec.text()]
        log = self._open_log()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *commands.inside(self.name, own),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=commands.environment(),
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(log)
        assert self._process.stdout is not None  # noqa: S101 - asked for above
        said = await self._process.stdout.readline()
        if not said:
            raise TryAgain(f"{self.name} did not start: {self._last_words()}")
        self._pid = int(said)
        await self._wait_for_containerd()

    def _open_log(self) -> int:
        store = Path(self.spec.store)
        store.mkdir(parents=True)
        return os.open(store / "boot.log", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _last_words(self) -> str:
        text = Path(self.spec.store, "boot.log").read_text(encoding="utf-8", errors="replace")
        return (text.strip().splitlines() or ["it said nothing"])[-1]

    async def _wait_for_containerd(self) -> None:
        async def serves() -> None:
            while (await self.run("ctr", "version")).status != 0:
                if self._process is None or self._process.returncode is not None:
                    raise TryAgain(f"{self.name} ended at once: {self._last_words()}")
                await asyncio.sleep(_POLL_S)

        try:
            async with asyncio.timeout(START_S):
                await serves()
        except TimeoutError:
            raise TryAgain(
                f"containerd of {self.name} did not serve within {START_S:g} s:"
                f" {' / '.join(self.log_tail('containerd')[-2:]) or self._last_words()}"
            ) from None

    def inside(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs another one in the machine."""
        # Its root and working directory with all of its namespaces.
        return ["nsenter", f"--target={self._pid}", "--all", "--root", "--wd", "--", *command]

    async def run(self, *words: str, stdin: str = "", timeout_s: float = STEP_S) -> commands.Ran:
        """Run a program in the machine to its end."""
        return await commands.run(*self.inside(words), stdin=stdin, timeout_s=timeout_s)

    async def must(self, *words: str, stdin: str = "") -> str:
        """Run a program in the machine that has to succeed; return its output."""
        ran = await self.run(*words, stdin=stdin)
        if ran.status != 0:
            raise TryAgain(f"{self.name}: {' '.join(words)} failed: {ran.complaint}")
        return ran.output

    async def log_step(self, name: str, *words: str) -> None:
        """Run a program that has to succeed; what it says becomes a log beside the services'."""
        ran = await self.run(*words)
        self.path(LOGS / f"{name}.log").write_text(ran.output + ran.errors, encoding="utf-8")
        if ran.status != 0:
            raise TryAgain(f"{self.name}: {name} failed, see the end of its {name}.log above")

    async def import_image(self, name: str) -> None:
        """Give the machine's kubelet an image of the kit."""
        archive = str(KIT / "images" / f"{name}.tar")
        # What containerd has unpacked it need not keep packed as well: this is memory.
        options = ["--local", "--discard-unpacked-layers"]
        await self.must("ctr", "--namespace=k8s.io", "images", "import", *options, archive)

    def write(self, inside: str, text: str) -> None:
        """Write a file into one of the machine's own directories."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)

    def log_tail(self, unit: str) -> list[str]:
        """Return what a service said last."""
        path = self.path(LOGS / f"{unit}.log")
        if not path.exists():
            return []
        text = path.read_text(encoding="utf-8", errors="replace")
        return text.splitlines()[-LOG_TAIL:]
