"""The journal of releases that are owed: kept until they are settled, over reboots."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pycni.endpoints import FileEndpoints
from tests.contract.endpoints.samples import DEBT, KEY, Directories, keyed, other


def test_a_debt_is_kept_until_it_is_settled(endpoints: FileEndpoints) -> None:
    endpoints.journal(DEBT)
    kept = endpoints.pending()
    kept_for_key = endpoints.get_pending(KEY)

    endpoints.settle(DEBT)
    endpoints.settle(DEBT)

    assert (kept, kept_for_key) == ([DEBT], DEBT)
    assert (endpoints.pending(), endpoints.get_pending(KEY)) == ([], None)


def test_a_debt_of_another_key_is_not_meant(endpoints: FileEndpoints) -> None:
    endpoints.journal(replace(DEBT, key=keyed("other")))

    assert endpoints.get_pending(KEY) is None
    assert endpoints.get_pending(keyed("other")) is not None


def test_a_damaged_debt_of_a_key_is_set_aside(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    endpoints.journal(DEBT)
    (path,) = (directories[1] / "journal").iterdir()
    path.write_text("{}")

    assert endpoints.get_pending(KEY) is None
    assert path.with_name(f"{path.name}.damaged").exists()


def test_a_damaged_debt_is_set_aside_and_blocks_nobody(
    endpoints: FileEndpoints, directories: Directories, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        endpoints.journal(replace(DEBT, key=keyed(name)))
    damaged, good = sorted((directories[1] / "journal").iterdir())
    survivor = json.loads(good.read_text())
    damaged.write_text("{}")

    found = endpoints.pending()

    assert [d.key.container_id for d in found] == [survivor["key"]["containerID"]]
    assert damaged.with_name(f"{damaged.name}.damaged").exists()
    assert "a journalled release is damaged" in caplog.text
    assert endpoints.pending() == found


def test_the_journal_lies_where_a_reboot_leaves_it(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    endpoints.journal(DEBT)
    for path in directories[0].rglob("*"):
        assert "journal" not in path.name

    assert other((directories[0] / "next-boot", directories[1])).pending() == [DEBT]


JOURNAL = """
import sys
from pathlib import Path
from tests.contract.endpoints.samples import DEBT, other

other((Path(sys.argv[1]), Path(sys.argv[2]))).journal(DEBT)
"""


def test_a_debt_is_on_disk_before_the_answer(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    root = Path(__file__).parents[3]
    command = ["strace", "-qq", "-f", "-e", "trace=fsync,rename", sys.executable, "-c", JOURNAL]
    try:
        ran = subprocess.run(
            [*command, *map(str, directories)],
            capture_output=True,
            text=True,
            check=False,
            cwd=root,
            env={"PYTHONPATH": str(root), "PATH": os.defpath},
        )
    except FileNotFoundError:
        pytest.skip("strace is not installed")

    calls = [line.partition("(")[0].split()[-1] for line in ran.stderr.splitlines() if "(" in line]
    assert ran.returncode == 0, ran.stderr
    assert calls[-3:] == ["fsync", "rename", "fsync"]
    assert endpoints.pending() == [DEBT]
