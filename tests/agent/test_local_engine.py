"""The engine in process, called as the relay does: no agent, the same files and datastore."""

import asyncio
import io
import json
import os
import subprocess
import sys
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from pycni.cni import local
from pycni.datastore.sqlite import open_sqlite
from pycni.kernel.underlay import underlay_link
from pycni.model.resources import IPPool, Node, TunnelMode
from tests.agent.own_node import needs_root, node

__all__ = ["node"]  # the fixture, for pytest to find


def prepare(tmp_path: Path, *, is_registered: bool = True) -> None:
    async def write() -> None:
        datastore = await open_sqlite(tmp_path / "state" / "pycni.db")
        await datastore.create(
            IPPool("pool", ip_network("192.168.0.0/16"), ipip_mode=TunnelMode.ALWAYS)
        )
        if is_registered:
            await datastore.create(Node("node-0", ipv4=ip_interface("10.10.7.20/20")))
        await datastore.close()

    (tmp_path / "state").mkdir(mode=0o700)
    asyncio.run(write())


def call(
    tmp_path: Path, verb: str, *, netns: str, nodename: str = "node-0", **more: object
) -> tuple[int, dict[str, Any]]:
    environment = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": netns,
        "CNI_IFNAME": "eth0",
    }
    configuration = {
        "cniVersion": "1.1.0",
        "name": "net",
        "type": "pycni",
        "nodename": nodename,
        "run_dir": str(tmp_path / "run"),
        "state_dir": str(tmp_path / "state"),
        **more,
    }
    reply = asyncio.run(local.serve(environment, json.dumps(configuration).encode()))
    return reply.status, json.loads(reply.output) if reply.output else {}


def path_of(fd: int) -> str:
    return f"/proc/{os.getpid()}/fd/{fd}"


@needs_root
@pytest.mark.parametrize("is_registered", [True, False], ids=["registered", "unknown"])
def test_pod_comes_and_goes_without_an_agent(
    node: int, tmp_path: Path, capfd: pytest.CaptureFixture[str], *, is_registered: bool
) -> None:
    prepare(tmp_path, is_registered=is_registered)

    status, result = call(tmp_path, "ADD", netns=path_of(node))
    assert status == 0, result
    # The very first one on this node complains of nothing that isn't there yet.
    assert capfd.readouterr() == ("", "")
    checked = call(tmp_path, "CHECK", netns=path_of(node), prevResult=result)
    again = call(tmp_path, "ADD", netns=path_of(node))
    deleted = call(tmp_path, "DEL", netns=path_of(node))
    repeated = call(tmp_path, "DEL", netns="")

    assert result["ips"][0]["address"] == "192.168.39.192/32"
    assert result["interfaces"][0]["mtu"] == 1480
    assert checked == (0, {})
    assert again == (0, result)
    assert deleted == repeated == (0, {})
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True)
    assert "cali" not in links.stdout


@needs_root
def test_name_that_an_agent_left_is_used(node: int, tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "state" / "nodename").write_text("node-0\n")

    status, result = call(tmp_path, "ADD", netns=path_of(node), nodename="")

    assert status == 0
    assert result["ips"][0]["address"] == "192.168.39.192/32"  # node-0's first block
    call(tmp_path, "DEL", netns=path_of(node))


@needs_root
def test_namespace_that_is_gone_is_named(tmp_path: Path) -> None:
    prepare(tmp_path)

    status, error = call(tmp_path, "ADD", netns="/nonexistent/netns")

    assert status == 1
    assert error["code"] == 4
    assert "/nonexistent/netns" in error["msg"]


@needs_root
def test_corrupt_datastore_is_refused_and_left_alone(node: int, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    database = tmp_path / "state" / "pycni.db"
    database.write_bytes(b"this is no database" * 1000)

    status, error = call(tmp_path, "ADD", netns=path_of(node))

    assert status == 1
    assert error["code"] == 5
    assert database.read_bytes() == b"this is no database" * 1000


@pytest.mark.usefixtures("node")
@needs_root
def test_underlay_is_the_interface_that_has_the_address() -> None:
    by_address = underlay_link(ip_interface("10.10.7.20/20").ip)
    assert by_address is not None
    assert by_address.name == "eth0"
    assert underlay_link(None) is None  # nothing but veths here to guess from


def test_main_reads_the_environment_and_standard_input(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setenv("CNI_COMMAND", "VERSION")
    stdin = io.TextIOWrapper(io.BytesIO(b'{"cniVersion": "1.0.0"}'))
    monkeypatch.setattr(sys, "stdin", stdin)

    status = local.main()

    assert status == 0
    said = json.loads(capfdbinary.readouterr().out)
    assert said["cniVersion"] == "1.0.0"
    assert "1.1.0" in said["supportedVersions"]


@needs_root
def test_what_others_owe_fails_no_pod_that_is_made(node: int, tmp_path: Path) -> None:
    """After the pod, debts are paid; a disk that refuses that is no defect of the pod's."""
    prepare(tmp_path)
    entry = tmp_path / "state" / "journal" / f"{'0' * 40}.json"
    entry.mkdir(parents=True)  # which nobody can read

    status, result = call(tmp_path, "ADD", netns=path_of(node))

    assert status == 0, result
    call(tmp_path, "DEL", netns=path_of(node))
