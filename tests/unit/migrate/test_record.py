"""The file that says what a migration has done."""

import pytest

from pycni.errors import InvalidInput
from pycni.migrate.record import Migration, Moved, Stage, migration_text, parse_migration

MOVED = Moved("10-calico.conflist", "10-calico.conflist.before-pycni")
MIGRATION = Migration("node-0", Stage.DONE, (MOVED,), (("192.168.84.128/26", 80),))


def test_a_migration_is_read_as_it_was_written() -> None:
    assert parse_migration(migration_text(MIGRATION), source="file") == MIGRATION


def test_what_was_first_stays_when_more_is_done() -> None:
    more = MIGRATION.with_more(
        moved=(MOVED,), protocols=(("192.168.84.128/26", 12), ("192.168.1.0/26", 80))
    )

    assert more.moved == (MOVED,)
    assert more.protocols == (("192.168.1.0/26", 80), ("192.168.84.128/26", 80))


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"kind": "Migration", "version": 2}', '{"kind": "Migration", "version": 1}'],
)
def test_another_file_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"cannot read /var/lib/pycni/migration\.json: "):
        parse_migration(text, source="/var/lib/pycni/migration.json")
