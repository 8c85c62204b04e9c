"""Endpoint records, locks and journal, as two engines share them."""

import asyncio
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from ipaddress import ip_interface
from pathlib import Path

import pytest

from pycni.endpoints import FileEndpoints
from pycni.errors import DatastoreUnusable, TryAgain
from pycni.model.endpoints import (
    AssignedAddress,
    EndpointKey,
    EndpointState,
    PendingRelease,
    WorkloadEndpoint,
)
from tests import virtual_time

KEY = EndpointKey("net", "c0ffee", "eth0")
ADDRESSES = (
    AssignedAddress(ip_interface("192.168.39.193/32"), 7),
    AssignedAddress(ip_interface("fd00::1/128"), None),
)
RECORD = WorkloadEndpoint(
    key=KEY,
    node="node-0",
    netns="/run/netns/c0ffee",
    host_veth="cali1",
    handle_id="net.c0ffee",
    state=EndpointState.READY,
    addresses=ADDRESSES,
    mtu=1480,
    host_mac="ee:ee:ee:ee:ee:ee",
    pod_mac="02:00:00:00:00:01",
    pod_namespace="default",
    pod_name="nginx",
)
DEBT = PendingRelease(KEY, handle_id="net.c0ffee", addresses=ADDRESSES)

Directories = tuple[Path, Path]


def other(directories: Directories) -> FileEndpoints:
    """Return the door as another process has it."""
    return FileEndpoints(run_dir=directories[0], state_dir=directories[1])


def keyed(name: str) -> EndpointKey:
    return EndpointKey("net", name, "eth0")


# --- records ------------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written(endpoints: FileEndpoints) -> None:
    endpoints.put(RECORD)

    assert endpoints.get(KEY) == RECORD


def test_an_absent_record_is_none(endpoints: FileEndpoints) -> None:
    assert endpoints.get(KEY) is None


def test_a_record_is_replaced(endpoints: FileEndpoints) -> None:
    endpoints.put(replace(RECORD, state=EndpointState.INTENT, addresses=()))

    endpoints.put(RECORD)

    assert endpoints.get(KEY) == RECORD
    assert endpoints.list() == [RECORD]


def test_records_are_listed_in_the_order_of_their_keys(endpoints: FileEndpoints) -> None:
    for name in "bca":
        endpoints.put(replace(RECORD, key=keyed(name)))

    assert [r.key.container_id for r in endpoints.list()] == ["a", "b", "c"]


def test_a_removed_record_is_gone_and_removing_it_again_is_success(
    endpoints: FileEndpoints,
) -> None:
    endpoints.put(RECORD)

    endpoints.remove(KEY)
    endpoints.remove(KEY)

    assert endpoints.get(KEY) is None


def test_another_process_sees_the_same(endpoints: FileEndpoints, directories: Directories) -> None:
    endpoints.put(RECORD)

    assert other(directories).get(KEY) == RECORD


def test_a_key_longer_than_a_file_name_is_kept(endpoints: FileEndpoints) -> None:
    key = EndpointKey("n" * 200, "c" * 400, "eth0")

    endpoints.put(replace(RECORD, key=key))

    assert endpoints.get(key) == replace(RECORD, key=key)


def test_a_reader_never_sees_half_a_record(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    child = os.fork()
    if child == 0:
        writer = other(directories)
        for number in range(500):
            writer.put(replace(RECORD, mtu=number, pod_name="x" * (number % 500)))
        os._exit(0)

    seen = [endpoints.get(KEY) for _ in range(500)]
    os.waitpid(child, 0)

    assert all(r is None or r.key == KEY for r in seen)


def test_only_the_owner_can_look(endpoints: FileEndpoints, directories: Directories) -> None:
    endpoints.put(RECORD)
    endpoints.journal(DEBT)

    paths = [p for d in directories for p in d.rglob("*")]
    assert {oct(p.stat().st_mode & 0o777) for p in paths if p.is_file()} == {"0o600"}
    assert {oct(p.stat().st_mode & 0o777) for p in paths if p.is_dir()} == {"0o700"}


DAMAGES = {
    "empty": "",
    "half": '{"key": {',
    "list": "[]",
    "lacking": "{}",
    "state": "READY-ish",
    "address": "300.0.0.1/32",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_an_error_that_names_the_file(
    endpoints: FileEndpoints, damage: str
) -> None:
    endpoints.put(RECORD)
    (path,) = endpoints.directory.iterdir()
    text = {
        "state": path.read_text().replace('"ready"', '"READY-ish"'),
        "address": path.read_text().replace("192.168.39.193/32", "300.0.0.1/32"),
    }.get(damage, DAMAGES[damage])
    path.write_text(text)

    for look in (lambda: endpoints.get(KEY), endpoints.list):
        with pytest.raises(DatastoreUnusable, match=str(path)):
            look()


def test_a_failed_writing_leaves_the_old_record_and_nothing_else(
    endpoints: FileEndpoints,
) -> None:
    endpoints.put(RECORD)

    with pytest.raises(TypeError):
        endpoints.put(replace(RECORD, mtu={1}))  # type: ignore[arg-type]  # no JSON

    assert endpoints.get(KEY) == RECORD
    assert len(list(endpoints.directory.iterdir())) == 1


# --- whose writing ------------------------------------------------------------------------------


def test_the_others_writing_is_not_its_own_even_with_the_same_inode(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    endpoints.put(RECORD)
    name = endpoints.file_name(KEY)
    before = (endpoints.directory / name).stat().st_ino
    writer = other(directories)
    for _ in range(10):  # a file system gives a number again soon
        time.sleep(0.002)  # a file's time moves with the kernel's tick
        writer.put(replace(RECORD, mtu=1))
        if (endpoints.directory / name).stat().st_ino == before:
            break

    assert endpoints.get(KEY) == replace(RECORD, mtu=1)


def test_the_latest_record_is_found_whoever_wrote_it(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    endpoints.put(RECORD)
    writer = other(directories)
    for mtu in range(1, 10):
        writer.put(replace(RECORD, mtu=mtu))
        assert endpoints.get(KEY) == replace(RECORD, mtu=mtu)
        endpoints.put(replace(RECORD, mtu=100 + mtu))
        assert writer.get(KEY) == endpoints.get(KEY) == replace(RECORD, mtu=100 + mtu)

    writer.remove(KEY)

    assert endpoints.get(KEY) is None


def test_what_was_written_here_is_not_read_again(endpoints: FileEndpoints) -> None:
    endpoints.put(RECORD)

    assert endpoints.get(KEY) is RECORD


def test_ever_so_many_records_are_found(endpoints: FileEndpoints) -> None:
    for number in range(1030):
        endpoints.put(replace(RECORD, key=keyed(f"c{number}")))

    for name in ("c0", "c1029"):
        assert endpoints.get(keyed(name)) == replace(RECORD, key=keyed(name))


# --- locks --------------------------------------------------------------------------------------


def test_a_lock_is_held_against_another_process(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    async def story() -> None:
        async with endpoints.lock(KEY, timeout_s=1):
            with pytest.raises(TryAgain, match="another request for net/c0ffee/eth0"):
                async with other(directories).lock(KEY, timeout_s=0.5):
                    pass

    virtual_time.run(story())


def test_a_lock_without_patience_fails_at_once(endpoints: FileEndpoints) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        async with endpoints.lock(KEY, timeout_s=1):
            began = loop.time()
            with pytest.raises(TryAgain):
                async with endpoints.lock(KEY, timeout_s=0):
                    pass
            assert loop.time() == began

    virtual_time.run(story())


def test_locks_of_different_keys_do_not_meet(endpoints: FileEndpoints) -> None:
    async def story() -> None:
        async with AsyncExitStack() as stack:
            for name in "abc":
                await stack.enter_async_context(endpoints.lock(keyed(name), timeout_s=0))

    virtual_time.run(story())


def test_who_waits_gets_the_lock_when_it_is_free(endpoints: FileEndpoints) -> None:
    order: list[str] = []

    async def one(name: str) -> None:
        async with endpoints.lock(KEY, timeout_s=60):
            order.append(f"{name} in")
            await asyncio.sleep(1)
            order.append(f"{name} out")

    async def story() -> None:
        async with asyncio.TaskGroup() as group:
            for name in "abcdefgh":
                group.create_task(one(name))

    virtual_time.run(story())

    assert len(order) == 16
    assert all(a[0] == b[0] for a, b in zip(order[::2], order[1::2], strict=True))


def locks_held(directories: Directories) -> int:
    """Count the locks that anybody holds, as the kernel lists them."""
    path = directories[0] / "endpoints.lock"
    inode = f":{path.stat().st_ino}"
    lines = Path("/proc/locks").read_text().splitlines()
    return sum(line.split()[5].endswith(inode) for line in lines if "->" not in line)


def test_no_lock_is_left(endpoints: FileEndpoints, directories: Directories) -> None:
    async def story() -> None:
        async with endpoints.lock(KEY, timeout_s=1), endpoints.lock(keyed("b"), timeout_s=1):
            assert locks_held(directories) == 2

    virtual_time.run(story())

    assert locks_held(directories) == 0
    assert [p.name for p in directories[0].iterdir() if "lock" in p.name] == ["endpoints.lock"]


def test_a_deleted_lock_file_parts_nobody(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    """Whoever held a lock in the old file still holds it; all later ones meet in the new file."""

    async def story() -> None:
        async with endpoints.lock(keyed("a"), timeout_s=0):
            (directories[0] / "endpoints.lock").unlink()
            async with endpoints.lock(KEY, timeout_s=0):
                with pytest.raises(TryAgain):
                    async with other(directories).lock(KEY, timeout_s=0):
                        pass
            with pytest.raises(TryAgain):
                async with endpoints.lock(keyed("a"), timeout_s=0):
                    pass
        async with other(directories).lock(KEY, timeout_s=0):
            with pytest.raises(TryAgain):
                async with endpoints.lock(KEY, timeout_s=0):
                    pass

    before = len(list(Path("/proc/self/fd").iterdir()))
    virtual_time.run(story())
    gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1  # the file itself stays open


def test_a_lock_file_that_cannot_be_opened_again_is_tried_again(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    async def story() -> None:
        aside = directories[0].with_name("aside")
        directories[0].rename(aside)
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                async with endpoints.lock(KEY, timeout_s=0):
                    pass
        aside.rename(directories[0])
        async with endpoints.lock(KEY, timeout_s=0):
            assert locks_held(directories) == 1

    virtual_time.run(story())


def test_a_lock_is_freed_by_an_error_inside(endpoints: FileEndpoints) -> None:
    async def story() -> None:
        with pytest.raises(RuntimeError):
            async with endpoints.lock(KEY, timeout_s=1):
                raise RuntimeError
        async with endpoints.lock(KEY, timeout_s=0):
            pass

    virtual_time.run(story())


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_the_lock_of_a_killed_process_is_free(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:

        async def hold() -> None:
            async with other(directories).lock(KEY, timeout_s=1):
                os.write(write_end, b"x")
                signal.pause()

        virtual_time.run(hold())
    os.read(read_end, 1)

    async def story() -> None:
        with pytest.raises(TryAgain):
            async with endpoints.lock(KEY, timeout_s=0):
                pass
        kill(child)
        async with endpoints.lock(KEY, timeout_s=0):
            pass

    virtual_time.run(story())
    os.close(read_end)
    os.close(write_end)


def test_a_lock_directory_that_can_not_be_used_is_no_lock(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    async def story() -> None:
        shutil.rmtree(directories[0])
        with pytest.raises(FileNotFoundError):
            async with endpoints.lock(KEY, timeout_s=1):
                pass

    virtual_time.run(story())


COUNTER = """
import asyncio, sys
from pathlib import Path
from pycni.endpoints import FileEndpoints
from pycni.model.endpoints import EndpointKey

async def main(run, state, counter):
    endpoints = FileEndpoints(run_dir=Path(run), state_dir=Path(state))
    for _ in range(50):
        async with endpoints.lock(EndpointKey("net", "c0ffee", "eth0"), timeout_s=60):
            value = int(Path(counter).read_text())
            await asyncio.sleep(0)
            Path(counter).write_text(str(value + 1))

asyncio.run(main(*sys.argv[1:]))
"""


def test_processes_exclude_each_other(directories: Directories, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNTER, *map(str, (*directories, counter))]

    processes = [subprocess.Popen(command) for _ in range(4)]
    statuses = [process.wait(timeout=60) for process in processes]

    assert statuses == [0] * 4
    assert counter.read_text() == "200"
    assert locks_held(directories) == 0


# --- journal ------------------------------------------------------------------------------------


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


def test_a_long_record_is_read_whole(endpoints: FileEndpoints) -> None:
    long = replace(RECORD, pod_name="x" * 200_000)

    endpoints.put(long)

    assert endpoints.get(KEY) == long


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
from tests.contract.endpoints.test_contract import DEBT, other

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
