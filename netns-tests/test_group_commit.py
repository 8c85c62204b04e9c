"""Requests that are ready together share a block's write, and the metrics show it."""

import os
import re
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import eventually
from conftest import Namespace
from plugin_host import PluginHost, Pod, Said, plugin_host
from pycni.ctl.agentlink import ask

pytestmark = [pytest.mark.netns, pytest.mark.timeout(240)]

PODS = 48


def events(host: PluginHost) -> dict[str, int]:
    """Return the agent's counters of address management."""
    text = host.namespace.run("curl", "-s", "http://127.0.0.1:9091/metrics").stdout
    found = re.findall(r'^pycni_ipam_events_total\{event="([\w-]+)"\} ([\d.]+)', text, re.MULTILINE)
    return {event: int(float(number)) for event, number in found}


def at_once(host: PluginHost, verb: str, pods: Sequence[Pod]) -> list[Said]:
    """Ask for all pods at the same moment: the server is stopped until all are waiting."""
    server = ask(host.directory / "run", "status")["cni_pid"]
    with ThreadPoolExecutor(len(pods)) as callers:
        os.kill(server, signal.SIGSTOP)
        try:
            asked = [callers.submit(host.call, verb, pod) for pod in pods]
            eventually(lambda: waiting(host) == len(pods), within_s=60)
        finally:
            os.kill(server, signal.SIGCONT)
        return [one.result() for one in asked]


def waiting(host: PluginHost) -> int:
    """Return how many connections to the server nobody has accepted yet."""
    listed = host.namespace.run("ss", "-xlnH").stdout.splitlines()
    path = str(host.directory / "run" / "cni.sock")
    return sum(int(line.split()[2]) for line in listed if path in line.split())


def test_many_pods_at_once_share_block_writes(
    tmp_path: Path, netns: Callable[[], Namespace]
) -> None:
    with plugin_host(tmp_path, netns, relay="c", has_agent=True) as host:
        first, *pods = [host.pod(f"pod-{number}") for number in range(PODS + 1)]
        assert host.call("ADD", first).status == 0  # claims the block
        eventually(lambda: events(host).get("address-given") == 1, within_s=60)
        before = events(host)

        added = at_once(host, "ADD", pods)

        assert [said.status for said in added] == [0] * PODS
        assert len({said.addresses[0] for said in added}) == PODS
        eventually(
            lambda: events(host).get("address-given", 0) - before["address-given"] == PODS,
            within_s=60,
        )
        assert 0 < events(host)["block-written"] - before["block-written"] < PODS
        before = events(host)

        gone = at_once(host, "DEL", pods)
        assert [said.status for said in gone] == [0] * PODS
        eventually(
            lambda: (
                events(host).get("address-released", 0) - before.get("address-released", 0) == PODS
            ),
            within_s=60,
        )
        assert 0 < events(host)["block-written"] - before["block-written"] < PODS
        assert host.call("DEL", first).status == 0
        assert host.leftovers() == []
