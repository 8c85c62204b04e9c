"""A migration that dies on entering any of its system calls is ended by the next one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

import killing
from calico_node import CALICO_FILE, CalicoNode, calico_node, host_veth
from cluster import eventually
from pycni.ctl.main import main
from pycni.kernel.netns import setns

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Namespace

pytestmark = [pytest.mark.netns, pytest.mark.kubernetes, pytest.mark.timeout(175)]

RUNS = 16
NEVER = 10**9


def migrate(node: CalicoNode, *, at: int) -> killing.Ran:
    """Migrate in a process that dies on entering that call."""
    words = [*node.datastore_words, *node.migrate_words("--from", "calico", "--yes")]

    def prepare() -> None:
        setns(node.namespace.fd)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)

    return killing.run_killed(prepare, lambda: main(words), at=at)


def become_calicos(node: CalicoNode, text: str, *pods: str) -> None:
    """Let Calico have made more pods, and have its rules and configuration."""
    for pod in pods:
        node.calico_pod(pod)
    node.make_rules("one")  # whose packets are watched
    (node.net_dir / CALICO_FILE).write_text(text)


def aliases(node: CalicoNode) -> list[str]:
    lines = node.namespace.sh("ip link").splitlines()
    return sorted(line.split()[1] for line in lines if line.split()[0] == "alias")


def test_a_migration_dies_anywhere_and_is_ended(
    netns: Callable[[], Namespace], tmp_path: Path
) -> None:
    with calico_node(tmp_path, netns) as node:
        text = (node.net_dir / CALICO_FILE).read_text()
        become_calicos(node, text, "one", "two")
        node.start_agent()
        node.wait_until_served()
        whole = migrate(node, at=NEVER)
        assert (whole.was_killed, whole.status) == (False, 0)
        names = ["one", "two"]
        with node.stream(node.outside, "192.168.39.192") as losses:
            for number in range(RUNS):
                more = [f"a{number}", f"b{number}"]
                names += more
                become_calicos(node, text, *more)

                died = migrate(node, at=1 + number * whole.calls // RUNS)
                said = node.migrate("--from", "calico", "--yes")

                assert died.was_killed
                assert said.status == 0, f"{died}: {said.errors}{said.output}"
                wanted = sorted(f"pycni:k8s-pod-network/container-{name}/eth0" for name in names)
                assert aliases(node) == wanted, str(died)
                recorded = (node.directory / "run" / "endpoints").glob("*.json")
                assert len(list(recorded)) == len(names), str(died)
                assert "cali-" not in node.namespace.sh("iptables-nft-save"), str(died)
                assert not (node.net_dir / CALICO_FILE).exists(), str(died)
        assert losses[0].lost == 0
        # Nobody speaks BGP at the other end.
        eventually(lambda: problems(node) == [], within_s=60, what=lambda: problems(node))
        assert all(f"dev {host_veth(name)}" in node.namespace.sh("ip route") for name in names)


def problems(node: CalicoNode) -> list[str]:
    return [one for one in node.problems() if "BGP session" not in one]
