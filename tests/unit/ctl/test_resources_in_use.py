"""Pools and blocks with addresses in use or at rest: deleted or not, and shown."""

import asyncio
import json
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from pycni.datastore.sqlite import open_sqlite
from pycni.ipam.allocator import Allocator
from pycni.ipam.block import new_block
from pycni.ipam.requests import AssignRequest
from tests.unit.ctl.test_resources import PEER, POOL, Run, apply, database, run

__all__ = ["apply", "database", "run"]  # the fixtures, for pytest to find


def assign(database: Path, handle: str) -> None:
    async def main() -> None:
        store = await open_sqlite(database)
        await Allocator(store, node="node-0").assign(AssignRequest(handle, (("pod", "nginx"),)))
        await store.close()

    asyncio.run(main())


def free(database: Path, handle: str, *, was_used: bool = False) -> None:
    async def main() -> None:
        store = await open_sqlite(database)
        await Allocator(store, node="node-0").release_by_handle(handle, was_used=was_used)
        await store.close()

    asyncio.run(main())


def disown(database: Path) -> None:
    async def main() -> None:
        store = await open_sqlite(database)
        await Allocator(store, node="node-0").release_affinity(IPv4Network("192.168.39.192/26"))
        await store.close()

    asyncio.run(main())


def test_what_is_in_use_is_not_deleted(
    run: Run,
    apply: Callable[[str], int],
    database: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    apply(f"{POOL}---{PEER}")
    assign(database, "h")

    assert run("delete", "pool", "default") == 1
    assert run("delete", "block", "192.168.39.192/26") == 1
    assert "1 of its addresses are in use" in capsys.readouterr().err
    free(database, "h")
    assert run("delete", "block", "192-168-39-192-26") == 0
    assert run("delete", "pool", "default") == 0
    assert run("delete", "peer", "rack") == 0
    assert capsys.readouterr().out.splitlines() == [
        "IPAMBlock 192-168-39-192-26 deleted",
        "IPPool default deleted",
        "BGPPeer rack deleted",
    ]
    run("get", "blocks")
    assert capsys.readouterr().out == "CIDR  NODE  USED  RESTING  FREE\n"


def test_a_block_is_not_deleted_while_addresses_rest_in_it(
    run: Run,
    apply: Callable[[str], int],
    database: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    apply(f"{POOL}---{COOLDOWN}")
    assign(database, "h")
    free(database, "h", was_used=True)
    capsys.readouterr()

    run("get", "blocks")
    shown = capsys.readouterr().out.splitlines()[1].split()
    assert shown == ["192.168.39.192/26", "node-0", "0", "1", "63"]
    assert run("delete", "block", "192.168.39.192/26") == 1
    assert "1 of its addresses rest still" in capsys.readouterr().err

    apply(COOLDOWN.replace("600", "0"))
    assert run("delete", "block", "192.168.39.192/26") == 0


COOLDOWN = """
apiVersion: projectcalico.org/v3
kind: IPAMConfiguration
metadata: {name: default}
spec: {ipCooldownSeconds: 600}
"""


def test_an_empty_block_that_its_owner_does_not_claim_is_deleted(
    run: Run, apply: Callable[[str], int], database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def strand() -> None:
        store = await open_sqlite(database)
        await store.create(
            new_block(IPv4Network("192.168.1.0/26"), affinity="node-0", sequence_number=1)
        )
        await store.close()

    apply(POOL)
    asyncio.run(strand())

    assert run("delete", "block", "192.168.1.0/26") == 0
    capsys.readouterr()
    run("get", "blocks")
    assert capsys.readouterr().out == "CIDR  NODE  USED  RESTING  FREE\n"


def test_a_block_without_owner_can_be_looked_at(
    run: Run,
    apply: Callable[[str], int],
    database: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    apply(POOL)
    assign(database, "h")
    disown(database)
    capsys.readouterr()

    run("get", "blocks")

    assert capsys.readouterr().out.splitlines()[1] == "192.168.39.192/26  -     1     0        63"


def test_ipam_show_counts_pools_blocks_and_addresses(
    run: Run,
    apply: Callable[[str], int],
    database: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    apply(POOL)
    assign(database, "h")
    capsys.readouterr()

    assert run("ipam", "show", "--addresses") == 0

    assert capsys.readouterr().out == (
        "POOL     CIDR            ADDRESSES  USED  BLOCKS  OF\n"
        "default  192.168.0.0/16  65536      1     1       1024\n"
        "\n"
        "BLOCK              NODE    USED  RESTING  FREE\n"
        "192.168.39.192/26  node-0  1     0        63\n"
        "\n"
        "ADDRESS         HANDLE  DETAILS\n"
        "192.168.39.192  h       pod=nginx\n"
    )
    run("ipam", "show", "--addresses", "-o", "json")
    assert json.loads(capsys.readouterr().out)["addresses"][0]["handle"] == "h"
    assert run("ipam", "show", "-o", "yaml") == 0
