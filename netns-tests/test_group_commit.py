"""Requests that are ready together share a block's write, and the metrics show it."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cluster import eventually
from conftest import Namespace
from plugin_host import PluginHost, plugin_host

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

PODS = 48


def events(host: PluginHost) -> dict[str, int]:
    """Return the agent's counters of address management."""
    text = host.namespace.run("curl", "-s", "http://127.0.0.1:9091/metrics").stdout
    found = re.findall(r'^pycni_ipam_events_total\{event="([\w-]+)"\} ([\d.]+)', text, re.MULTILINE)
    return {event: int(float(number)) for event, number in found}


def test_many_pods_at_once_share_block_writes(
    tmp_path: Path, netns: Callable[[], Namespace]
) -> None:
    with plugin_host(tmp_path, netns, relay="c", has_agent=True) as host:
        pods = [host.pod(f"pod-{number}") for number in range(PODS)]
        before = events(host)

        with ThreadPoolExecutor(16) as callers:
            added = list(callers.map(lambda pod: host.call("ADD", pod), pods))

        assert [said.status for said in added] == [0] * PODS
        assert len({said.addresses[0] for said in added}) == PODS
        eventually(
            lambda: events(host)["address-given"] - before["address-given"] == PODS, within_s=5
        )
        assert 0 < events(host)["block-written"] - before["block-written"] < PODS
        before = events(host)

        with ThreadPoolExecutor(16) as callers:
            gone = list(callers.map(lambda pod: host.call("DEL", pod), pods))
        assert [said.status for said in gone] == [0] * PODS
        eventually(
            lambda: events(host)["address-released"] - before["address-released"] == PODS,
            within_s=5,
        )
        assert 0 < events(host)["block-written"] - before["block-written"] < PODS
        assert host.leftovers() == []
