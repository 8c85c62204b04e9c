"""One agent in a run directory: two would take each other's sockets and undo their routes."""

import fcntl
import os
from pathlib import Path

from pycni.errors import TryAgain


def claim_run_dir(run_dir: Path) -> int:
    """Make sure that no agent uses this run directory; return the lock's descriptor."""
    run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(run_dir / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise TryAgain(f"an agent runs in {run_dir}: stop it, or set run_dir") from None
    return fd
