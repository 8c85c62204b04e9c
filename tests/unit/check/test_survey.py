"""A survey of a machine that is made of files and small programs."""

import asyncio
import json
import time
from email.utils import formatdate
from ipaddress import ip_network
from pathlib import Path

import pytest

from pycni.check import probes
from pycni.check.findings import Report
from pycni.check.survey import place_of, survey, survey_ways
from pycni.config import AgentConfig
from pycni.errors import TryAgain
from pycni.model.network import KernelState, Link
from pycni.model.resources import IPPool
from pycni.ports_cluster import Greeting
from tests.agent.told_cluster import ToldCluster

POOL = IPPool("p", ip_network("192.168.0.0/16"))
KERNEL = KernelState(
    links={"tunl0": Link("tunl0", 3)}, sysctls={"net.ipv4.conf.all.rp_filter": "1"}
)


def look(tmp_path: Path, cluster: ToldCluster | None) -> Report:
    config = AgentConfig(cni_conflist=str(tmp_path / "10.conflist"), cni_template="/template")
    (tmp_path / "10.conflist").write_text(json.dumps({"plugins": [{"type": "pycni"}]}))
    (tmp_path / "00-notes.txt").write_text("no configuration")
    place = place_of(config, node="node-0")
    return asyncio.run(survey(place, kernel=KERNEL, cluster=cluster))


def checks(report: Report) -> list[str]:
    return [one.check for one in report.findings if one.check != "dns"]


def test_an_embedded_datastore_needs_no_clock_and_no_resolver(tmp_path: Path) -> None:
    assert checks(look(tmp_path, None)) == ["rp-filter"]


def test_a_cluster_with_another_time_and_without_definitions_is_found(tmp_path: Path) -> None:
    now = time.time()
    late = Greeting(now, 0.01, formatdate(now - 60, usegmt=True))
    cluster = ToldCluster(greeting=late, missing=["IPPool"])

    assert checks(look(tmp_path, cluster)) == ["rp-filter", "clock", "api"]


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_an_answer_without_a_time_is_not_compared(tmp_path: Path, date: str) -> None:
    cluster = ToldCluster(greeting=Greeting(time.time(), 0.01, date))

    assert checks(look(tmp_path, cluster)) == ["rp-filter"]


def test_an_api_server_that_is_away_is_found(tmp_path: Path) -> None:
    report = look(tmp_path, ToldCluster(greeting=TryAgain("cannot GET /version: refused")))

    assert checks(report) == ["rp-filter", "api"]


def firewall(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Report:
    """Return what a survey makes of an `nft` that does just this."""
    program = directory / "nft"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    place = place_of(AgentConfig(), node="node-0")
    return asyncio.run(survey_ways(place, kernel=KernelState(), pools=[POOL], nodes=[]))


CHAIN = {
    "chain": {
        "family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop",
    }
}  # fmt: skip


def test_a_chain_that_drops_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = firewall(tmp_path, monkeypatch, f"echo '{json.dumps({'nftables': [CHAIN]})}'")

    assert [one.check for one in report.findings] == ["forward-policy"]


def test_a_program_that_fails_leaves_that_unchecked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = firewall(tmp_path, monkeypatch, "echo 'no permission' >&2; exit 1")

    assert report.unchecked == ("forward-policy: nft -j list chains: no permission",)


def test_what_is_no_json_leaves_that_unchecked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (said,) = firewall(tmp_path, monkeypatch, "echo what").unchecked

    assert said.startswith("forward-policy: nft -j list chains prints no JSON: ")


def test_without_the_program_that_is_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    report = asyncio.run(probes.check_forwarding([POOL.cidr]))

    assert report.unchecked == (
        "forward-policy: there is no `nft` program on PATH: install nftables",
    )


def test_a_directory_that_can_not_be_read_is_unchecked(tmp_path: Path) -> None:
    (tmp_path / "a.conflist").mkdir()

    (said,) = probes.check_configurations(tmp_path).unchecked

    assert said.endswith("a.conflist: Is a directory")
