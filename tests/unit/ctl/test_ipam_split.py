"""`ipam split`: parts in place of a pool, written at once, whatever happens meanwhile."""

import asyncio
from dataclasses import replace

import pytest

from pycni.ctl.ipam_split import split_pool
from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore
from pycni.errors import TryAgain
from pycni.ipam.splitting import Split, parts_of
from pycni.model.resources import Block, IPPool, TunnelMode
from tests.unit.ctl.conftest import Machine
from tests.unit.written_books import POOL, full_block


def test_parts_take_the_pools_place_and_blocks_stay(machine: Machine) -> None:
    machine.write(POOL, full_block())

    said = machine.said("split", "default", "2")

    assert said.splitlines() == [
        "POOL CIDR BLOCKS",
        "default-0 192.168.0.0/17 1",
        "default-1 192.168.128.0/17 0",
    ]
    assert machine.kinds(IPPool) == list(parts_of(POOL, 2))
    assert machine.kinds(Block) == [full_block()]


def test_dry_run_shows_the_parts_and_writes_nothing(machine: Machine) -> None:
    machine.write(POOL, full_block())

    document = machine.document("split", "192.168.0.0/16", "2", "--dry-run")

    assert document == {
        "pool": {"name": "default", "cidr": "192.168.0.0/16"},
        "dryRun": True,
        "parts": [
            {"name": "default-0", "cidr": "192.168.0.0/17", "blocks": 1},
            {"name": "default-1", "cidr": "192.168.128.0/17", "blocks": 0},
        ],
    }
    assert machine.kinds(IPPool) == [POOL]


def test_split_says_what_else_has_to_change(machine: Machine) -> None:
    machine.write(POOL)

    machine.ctl("split", "default", "2")

    told = machine.capsys.readouterr().err
    assert told.startswith("pool default is split; network configurations that name it")


def test_second_time_is_done_already(machine: Machine) -> None:
    machine.write(POOL)
    first = machine.document("split", "default", "4")
    pools = machine.kinds(IPPool)

    second = machine.document("split", "default", "4")

    assert second == first | {"pool": None}
    assert machine.kinds(IPPool) == pools


@pytest.mark.parametrize("count", ["0", "1", "3", "-4", "2048"])
def test_bad_count_exits_with_2(machine: Machine, count: str) -> None:
    machine.write(POOL)

    assert machine.ctl("split", "default", "--", count) == 2

    assert "use a power of two from 2 to 1024" in machine.capsys.readouterr().err
    assert machine.kinds(IPPool) == [POOL]


def test_empty_name_exits_with_2(machine: Machine) -> None:
    machine.write(POOL)

    assert machine.ctl("split", "", "2") == 2


def test_too_many_parts_exit_with_1_and_change_nothing(machine: Machine) -> None:
    small = replace(POOL, block_size=20)
    machine.write(small)

    assert "cut it into 16 at most" in machine.said("split", "default", "32", status=1)
    assert machine.kinds(IPPool) == [small]


def test_pool_that_there_isnt_is_named(machine: Machine) -> None:
    machine.write(POOL)

    assert machine.said("split", "absent", "2", status=1) == (
        "error: there is no pool absent: see pycnictl get pools"
    )


def test_change_of_the_pool_meanwhile_is_in_the_parts() -> None:
    store = MemoryDatastore()
    changed = replace(POOL, ipip_mode=TunnelMode.ALWAYS)

    async def change_meanwhile(call: Call) -> None:
        stored = await store.get(IPPool, "default")
        if call.is_write and stored is not None and stored.value != changed:
            await store.update(changed, if_revision=stored.revision)

    async def story() -> tuple[Split, list[IPPool]]:
        await store.create(POOL)
        faulty = FaultyDatastore(store, before=change_meanwhile, is_atomic=True)
        split = await split_pool(faulty, "default", 2)
        return split, [one.value for one in (await store.list(IPPool)).items]

    split, pools = asyncio.run(story())

    assert split.pool == changed
    assert pools == list(parts_of(changed, 2))


@pytest.mark.parametrize("death", range(5))
def test_interrupted_split_is_finished_by_the_same_command(death: int) -> None:
    """A store without transactions may have written all pools but one."""
    store = MemoryDatastore()
    writes = 0

    async def die(call: Call) -> None:
        nonlocal writes
        if call.is_write:
            writes += 1
            if writes == death + 1:
                raise TryAgain("the datastore went away")

    async def story() -> tuple[list[IPPool], list[IPPool]]:
        await store.create(POOL)
        with pytest.raises(TryAgain):
            await split_pool(FaultyDatastore(store, before=die), "default", 4)
        left = [one.value for one in (await store.list(IPPool)).items]
        await split_pool(store, "default", 4)
        return left, [one.value for one in (await store.list(IPPool)).items]

    left, pools = asyncio.run(story())

    others = [part for at, part in enumerate(parts_of(POOL, 4)) if at != death]
    assert left == [POOL, *others]
    assert pools == list(parts_of(POOL, 4))
