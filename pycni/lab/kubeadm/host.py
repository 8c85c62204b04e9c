"""What a host must have before a Kubernetes lab begins there."""

from pathlib import Path

from pycni.errors import TryAgain
from pycni.lab.kubeadm import cgroups

MEMINFO = Path("/proc/meminfo")
# Images and all that is written lie in memory: measured 1.4 GiB for the control plane's node, 0.5
# for each other one.
FIRST_MB = 1700
NEXT_MB = 600


def require(*, nodes: int) -> None:
    """Raise unless machines for so many nodes can be made here."""
    cgroups.require(cgroups.hierarchies())
    require_memory(MEMINFO.read_text(encoding="ascii"), nodes=nodes)


def require_memory(meminfo: str, *, nodes: int) -> None:
    """Raise unless the memory that is free suffices."""
    lines = (line.split() for line in meminfo.splitlines())
    available = next(int(words[1]) for words in lines if words[0] == "MemAvailable:") // 1024
    needed = FIRST_MB + (nodes - 1) * NEXT_MB
    if available < needed:
        raise TryAgain(
            f"a Kubernetes lab of {nodes} nodes needs {needed} MB of memory, and {available} MB are"
            " free: end something, or take a topology with fewer nodes"
        )
