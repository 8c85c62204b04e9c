"""Two thousand pods by sixteen callers; two engines at once; and nothing left of them."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster import LAB, ROOT, Cluster, eventually, lab

pytestmark = [pytest.mark.netns, pytest.mark.alone, pytest.mark.timeout(600)]

NODES = ("node-0", "node-1", "node-2")
RESTARTS = 13


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Run a lab for one storm: what a failing one leaves is nothing to the next."""
    with lab("storm") as running:
        yield running


def storm(
    cluster: Cluster, pairs: int, callers: int, executable: str, *nodes: str, until: str = ""
) -> list[str]:
    """Return the command that runs the storm inside the lab."""
    script = str(ROOT / "netns-tests" / "storm.py")
    words = ["python3", script, cluster.name, str(pairs), str(callers), executable, *nodes]
    words += ["--until", until] if until else []
    return [LAB, "exec", "--name", cluster.name, "node-0", "--", *words]


def leftovers(cluster: Cluster) -> list[str]:
    """Return everything that pods of the storm left behind."""
    found = []
    base = f"/run/pycni-lab/{cluster.name}"
    for node in NODES:
        directory = f"{base}/{node}"
        records = cluster.run(
            node,
            f"grep -l storm {directory}/run/endpoints/* 2>/dev/null;"
            f" ls {directory}/state/journal; grep :$(stat -c %i {directory}/run/endpoints.lock)"
            " /proc/locks",
            check=False,
        )  # fmt: skip
        found += [f"{node}: file {line}" for line in records.splitlines()]
        links = cluster.run(node, "ip -o link show type veth")
        found += [f"{node}: {line}" for line in links.splitlines() if "storm" in line]
    blocks = cluster.run(
        "node-0",
        f"{base}/venv/bin/python -I -m pycni.ctl --datastore {base}/datastore.db"
        " ipam show --addresses -o json",
        check=False,
    )
    found += [f"datastore: {word}" for word in blocks.split('"') if "storm" in word]
    processes = cluster.run("node-0", "pgrep -af 'pycni-engine|storm[.]py' || true")
    found += [f"process {line}" for line in processes.splitlines() if "pgrep" not in line]
    return found


def test_two_thousand_pairs_by_sixteen_callers_leave_nothing(cluster: Cluster) -> None:
    ran = subprocess.run(
        storm(cluster, 2000, 16, "pycni", *NODES),
        capture_output=True, text=True, timeout=450, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert json.loads(ran.stdout) == {"errors": [], "count": 0}
    eventually(lambda: leftovers(cluster) == [], within_s=60, what=lambda: leftovers(cluster))


def test_engine_in_process_works_beside_an_agent_that_restarts(
    cluster: Cluster, tmp_path: Path
) -> None:
    enough = tmp_path / "enough"
    process = subprocess.Popen(
        # Two hundred at least, and as many more as it takes for the restarts.
        storm(cluster, 200, 6, "pycni-engine", "node-1", until=str(enough)),
        stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        restarts = 0
        while process.poll() is None and restarts < 60:
            cluster.lab("agent", "kill" if restarts % 2 else "stop", "node-1")
            cluster.lab("agent", "start", "node-1")
            restarts += 1
            if restarts == RESTARTS:
                enough.touch()
        output, _ = process.communicate(timeout=450)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()

    assert restarts >= RESTARTS
    assert json.loads(output) == {"errors": [], "count": 0}
    eventually(lambda: leftovers(cluster) == [], within_s=60, what=lambda: leftovers(cluster))
