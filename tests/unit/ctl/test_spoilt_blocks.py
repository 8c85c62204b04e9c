"""Commands on objects beside a block that contradicts itself."""

import pytest

from pycni.ctl.main import main
from pycni.model.resources import Block, IPPool
from tests.unit.ctl.conftest import Machine
from tests.unit.spoilt_blocks import SPOILS, Spoil
from tests.unit.written_books import CIDR, POOL, full_block

each_way = pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)


def run(machine: Machine, *words: str) -> int:
    return main(["--datastore", str(machine.database), *words])


@each_way
def test_nothing_is_counted_in_a_spoilt_block(machine: Machine, spoil: Spoil) -> None:
    machine.write(POOL, spoil(full_block()))

    assert run(machine, "get", "blocks") == 0

    row = machine.capsys.readouterr().out.splitlines()[1]
    assert row.split() == [str(CIDR), "node-0", "corrupt", "corrupt", "corrupt"]


@each_way
@pytest.mark.parametrize("words", [("pool", POOL.name), ("block", str(CIDR))])
def test_a_spoilt_block_and_its_pool_are_not_deleted(
    machine: Machine, spoil: Spoil, words: tuple[str, str]
) -> None:
    machine.write(POOL, spoil(full_block()))

    assert run(machine, "delete", *words) == 1

    assert f"error: block {CIDR} is corrupt: " in machine.capsys.readouterr().err
    assert len(machine.kinds(IPPool)) == len(machine.kinds(Block)) == 1
