"""A machine's services: the little of systemd that kubeadm and install.sh ask for.

`systemctl` is a script that leaves its wish as a file and wakes the first process, which starts,
ends and restarts what unit files say.  A wish is the file NAME.want, a service that runs NAME.pid.
"""

import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pycni.lab.kubeadm.spec import LOGS, UNITS

STATE = Path("/run/units")
RESTART_S = 0.5
STOP_S = 10.0

SYSTEMCTL = """\
#!/bin/sh
# The verbs of systemctl that this machine's services know.
set -eu
state=@STATE@ units=@UNITS@
verb='' unit='' now=false
for word; do
    case $word in
        --now) now=true ;;
        -*) ;;
        *) if [ -z "$verb" ]; then verb=$word; else unit=${word%.service}; fi ;;
    esac
done
case $verb in
    daemon-reload | reset-failed) exit 0 ;;
    enable) $now || exit 0; verb=start ;;
    disable) $now || exit 0; verb=stop ;;
esac
[ -f "$units/$unit.service" ] || { echo "Unit $unit.service could not be found." >&2; exit 4; }
# until_it BOOLEAN: wait until the service has, or has not, a process.
until_it() {
    kill -HUP 1
    for _try in $(seq 600); do
        if [ -e "$state/$unit.pid" ]; then found=true; else found=false; fi
        [ "$found" != "$1" ] || return 0
        sleep 0.05
    done
    echo "$unit did not ${verb} in 30 s" >&2
    return 1
}
case $verb in
    start) : >"$state/$unit.want"; until_it true ;;
    stop) rm -f "$state/$unit.want"; until_it false ;;
    restart | try-restart)
        rm -f "$state/$unit.want"; until_it false
        : >"$state/$unit.want"; until_it true ;;
    is-active) [ -e "$state/$unit.pid" ] && echo active || { echo inactive; exit 3; } ;;
    is-enabled) echo enabled ;;
    status) [ -e "$state/$unit.pid" ] && echo "Active: active" || echo "Active: inactive" ;;
    *) echo "this machine's systemctl knows no $verb" >&2; exit 1 ;;
esac
"""


def systemctl(*, state: Path = STATE, units: Path = UNITS) -> str:
    """Return the script; tests have directories of their own."""
    return SYSTEMCTL.replace("@STATE@", str(state)).replace("@UNITS@", str(units))


def command_of(text: str) -> list[str]:
    """Return the command of a unit file; of several lines the last one holds."""
    lines = [line.partition("=")[2] for line in text.splitlines() if line.startswith("ExecStart=")]
    return shlex.split(lines[-1]) if lines else []


@dataclass(slots=True)
class Service:
    """One service: its process while it runs, and when it may be started next."""

    name: str
    process: subprocess.Popen[bytes] | None = None
    not_before: float = 0.0
    killed_at: float = 0.0

    @property
    def wanted(self) -> Path:
        """Return the file that says that it shall run."""
        return STATE / f"{self.name}.want"

    @property
    def running(self) -> Path:
        """Return the file that says that it does, with its process id."""
        return STATE / f"{self.name}.pid"


class Services:
    """All services of a machine; the caller is the first process of its PID namespace."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._services: dict[str, Service] = {}

    def run(self) -> None:
        """Serve for ever."""
        waking, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        # A first process only gets the signals that it handles.
        for number in (signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        while True:
            self._bury()
            if select.select([waking], [], [], self._settle())[0]:
                os.read(waking, 4096)

    def _bury(self) -> None:
        """Take note of what has ended: services, and orphans that came to us."""
        ours = {s.process.pid: s for s in self._services.values() if s.process is not None}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if (service := ours.get(pid)) is not None:
                self._note_end(service, status=os.waitstatus_to_exitcode(status))

    def _note_end(self, service: Service, *, status: int) -> None:
        if service.process is not None:
            service.process.returncode = status  # else it would ask for itself
        service.process, service.killed_at = None, 0.0
        service.not_before = time.monotonic() + RESTART_S
        with (LOGS / f"{service.name}.log").open("a", encoding="utf-8") as log:
            log.write(f"{service.name} ended with {status}\n")
        service.running.unlink(missing_ok=True)

    def _settle(self) -> float:
        """Start and end what the wishes say; return when to look again at the latest."""
        for path in STATE.glob("*.want"):
            self._services.setdefault(path.stem, Service(path.stem))
        return min((self._settle_one(s) for s in self._services.values()), default=60.0)

    def _settle_one(self, service: Service) -> float:
        now, is_wanted = time.monotonic(), service.wanted.exists()
        if service.process is None and is_wanted:
            if now < service.not_before:
                return service.not_before - now
            self._start(service)
        elif service.process is not None and not is_wanted:
            return self._end(service, service.process, now=now)
        return 60.0

    def _start(self, service: Service) -> None:
        text = (UNITS / f"{service.name}.service").read_text(encoding="utf-8")
        with (LOGS / f"{service.name}.log").open("ab") as log:
            service.process = subprocess.Popen(
                command_of(text),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd="/",
                start_new_session=True,
            )
        service.running.write_text(f"{service.process.pid}\n", encoding="ascii")

    def _end(self, service: Service, process: subprocess.Popen[bytes], *, now: float) -> float:
        if not service.killed_at:
            service.killed_at = now
            os.kill(process.pid, signal.SIGTERM)
        elif now > service.killed_at + STOP_S:
            os.kill(process.pid, signal.SIGKILL)
        return STOP_S
