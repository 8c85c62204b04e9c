"""Start a lab's background process, of one kind or the other, and find what it needs."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pycni.errors import PycniError, TryAgain
from pycni.lab import bpf
from pycni.lab.layout import Plan
from pycni.lab.uml_guest import CLONE, cache_directory

READY = b"ready\n"
PROBE = "ip link show tunl0 >/dev/null 2>&1 || ip link add pycni-probe type ipip local 127.0.0.1"


def kernel_has_ipip() -> bool:
    """Try, in a scratch network namespace, whether this kernel can tunnel IP in IP."""
    ran = subprocess.run(
        ["unshare", "--net", "--", "sh", "-c", PROBE], capture_output=True, check=False, timeout=120
    )
    return ran.returncode == 0


def ensure(*words: str) -> str:
    """Let bin/ensure install or build something; return what it printed, where that is."""
    command = [str(CLONE / "bin" / "ensure"), *words]
    ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode != 0:
        asked = " ".join(words)
        raise TryAgain(f"cannot prepare {words[0]}, see above: try again with  bin/ensure {asked}")
    return ran.stdout.strip()


def newest(pattern: str) -> str:
    """Return what the cache holds already of something built; "" where it holds none."""
    found = sorted(cache_directory().glob(pattern), key=lambda path: path.stat().st_mtime)
    return str(found[-1]) if found else ""


def find_cnitool() -> str:
    """Return cnitool from PATH or the cache; it is never built for the lab's sake."""
    given = os.environ.get("PYCNI_LAB_RUNTIME", "")
    if given == "own":
        return ""
    return shutil.which("cnitool") or newest("go-tools/cni-*/cnitool")


def find_relay() -> str:
    """Return the compiled relay of this very source, if it was built."""
    import hashlib

    source = CLONE / "relay" / "pycni.c"
    if not source.exists():
        return ""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    return newest(f"relay/2-{digest}/pycni")


def decide_tunnel(
    asked: str, *, has_uml: bool = True, has_ipip: bool = True, say: Callable[[str], None]
) -> tuple[str, str]:
    """Return the tunnel ("ipip", "bpf" or "none") and where to run ("host" or "uml").

    `has_ipip`: a pool asks for IP-in-IP; else any kernel will do.
    """
    if not has_ipip and asked == "auto":
        return "none", "host"
    if asked == "auto":
        if kernel_has_ipip():
            say("tunnel: this machine's kernel has IP-in-IP")
            return "ipip", "host"
        if not has_uml:
            say(f"tunnel: this machine's kernel ({os.uname().release}) has no IP-in-IP; by tc-bpf")
            return "bpf", "host"
        say(
            f"tunnel: this machine's kernel ({os.uname().release}) has no IP-in-IP;"
            " running in user-mode Linux, whose kernel has it (--tunnel bpf is faster and has NAT)"
        )
        return "ipip", "uml"
    if asked == "ipip" and not kernel_has_ipip():
        raise TryAgain(
            f"this kernel ({os.uname().release}) has no IP-in-IP: use --tunnel uml (its own"
            " kernel) or --tunnel bpf (a stand-in)"
        )
    return ("bpf" if asked == "bpf" else "ipip"), ("uml" if asked == "uml" else "host")


def make_plan(
    topology: str, *, source: str, tunnel: str, where: str, has_routers: bool = False
) -> Plan:
    """Gather what the supervisor has to know."""
    bpf_object = ""
    if tunnel == "bpf":
        bpf_object = ensure("bpf")
        if obstacle := bpf.find_obstacle(Path(bpf_object)):
            raise TryAgain(f"this kernel can't run the tc programs ({obstacle}): use --tunnel uml")
    if has_routers:
        ensure("bird")
    return Plan(
        topology=topology,
        source=source,
        tunnel=tunnel,
        where=where,
        clone=str(CLONE),
        cnitool=find_cnitool(),
        relay=find_relay(),
        bpf_object=bpf_object,
    )


@contextlib.contextmanager
def started(name: str, *, where: str, say: Callable[[str], None]) -> Iterator[None]:
    """Start the background process and wait until it takes clients.

    If the block is left by an error (Ctrl-C included), the process is told to end.
    """
    if where == "uml":
        ensure("uml")
        say("starting user-mode Linux")
    module = ["pycni.lab.keeper"] if where == "uml" else ["pycni.lab.supervise", "--isolate"]
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-I", "-m", module[0], name, *module[1:], "--ready-fd", str(writing)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=writing,
        pass_fds=[writing],
        cwd="/",
        start_new_session=True,
    )
    os.close(writing)
    try:
        _wait_until_ready(reading)
        yield
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        raise
    finally:
        os.close(reading)


def _wait_until_ready(reading: int) -> None:
    said = b""
    while not said.endswith(READY):
        piece = os.read(reading, 4096)
        if not piece:
            raise PycniError(said.decode(errors="replace").strip().removeprefix("error: "))
        said += piece
