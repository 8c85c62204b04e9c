"""What becomes of a lab's routes while a test acts: one may be away for an instant."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from cluster import LAB, Cluster, eventually

MARK = "198.51.100.1"
"""A route to there comes and goes to see whether the monitor listens."""


@contextlib.contextmanager
def monitored(cluster: Cluster, node: str, log: Path) -> Iterator[None]:
    """Write down what becomes of a node's routes meanwhile, each with its time."""
    words = [LAB, "exec", "--name", cluster.name, node, "--", "timeout", "300"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*words, "ip", "-ts", "monitor", "route"], stdout=output, stdin=subprocess.DEVNULL
        )

    def is_heard() -> bool:
        cluster.run(node, f"ip route add blackhole {MARK} && ip route del {MARK}")
        return MARK in log.read_text()

    try:
        eventually(is_heard, within_s=60)
        yield
    finally:
        process.terminate()
        process.wait()
