"""`ipam configure`: settings are shown, and changed one by one."""

import asyncio

import pytest

from pycni.ctl.ipam_configure import change_config
from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore
from pycni.model.resources import (
    IPAMConfig,
)
from tests.unit.ctl.conftest import Machine
from tests.unit.written_books import (
    POOL,
)


def test_settings_are_shown(machine: Machine) -> None:
    machine.write(POOL)

    assert machine.said("configure").splitlines() == [
        "SETTING VALUE",
        "strictAffinity false",
        "autoAllocateBlocks true",
        "maxBlocksPerHost 0",
        "ipCooldownSeconds 0",
    ]
    assert machine.kinds(IPAMConfig) == []


def test_what_is_named_is_changed_and_nothing_else(machine: Machine) -> None:
    machine.write(IPAMConfig(max_blocks_per_host=4))

    said = machine.said("configure", "--strict-affinity", "true", "--cooldown", "60")

    assert said.splitlines() == [
        "SETTING OLD NEW",
        "strictAffinity false true",
        "autoAllocateBlocks true true",
        "maxBlocksPerHost 4 4",
        "ipCooldownSeconds 0 60",
    ]
    assert machine.kinds(IPAMConfig) == [
        IPAMConfig(is_strict_affinity=True, max_blocks_per_host=4, cooldown_s=60)
    ]


def test_settings_are_made_where_there_are_none(machine: Machine) -> None:
    machine.write(POOL)

    document = machine.document("configure", "--auto-allocate-blocks", "false", "--max-blocks", "3")

    assert document["before"]["autoAllocateBlocks"] is True
    assert document["after"]["autoAllocateBlocks"] is False
    assert machine.document("configure") == document["after"]
    assert machine.document("configure", "--max-blocks", "3")["before"] == document["after"]


@pytest.mark.parametrize(
    "words", [["--cooldown", "1201"], ["--cooldown", "-1"], ["--max-blocks", "-1"]]
)
def test_bad_settings_exit_with_2_and_change_nothing(machine: Machine, words: list[str]) -> None:
    machine.write(POOL)

    assert machine.ctl("configure", *words) == 2
    assert machine.kinds(IPAMConfig) == []


def test_setting_that_another_changes_meanwhile_is_kept() -> None:
    store = MemoryDatastore()

    async def change_meanwhile(call: Call) -> None:
        stored = await store.get(IPAMConfig, "default")
        if call.is_write and stored is not None and not stored.value.cooldown_s:
            await store.update(IPAMConfig(cooldown_s=5), if_revision=stored.revision)

    async def story() -> tuple[IPAMConfig, IPAMConfig]:
        await store.create(IPAMConfig())
        faulty = FaultyDatastore(store, before=change_meanwhile)
        return await change_config(faulty, {"is_strict_affinity": True})

    assert asyncio.run(story()) == (
        IPAMConfig(cooldown_s=5),
        IPAMConfig(is_strict_affinity=True, cooldown_s=5),
    )
