"""Locks of endpoints, as two engines and their deaths meet in them."""

import asyncio
import gc
import os
import shutil
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from pycni.endpoints import FileEndpoints
from pycni.errors import TryAgain
from tests import virtual_time
from tests.contract.endpoints.processes import Child, forked
from tests.contract.endpoints.samples import KEY, Directories, keyed, other


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


def test_the_lock_of_a_killed_process_is_free(
    endpoints: FileEndpoints, directories: Directories
) -> None:
    read_end, write_end = os.pipe()

    async def hold() -> None:
        async with other(directories).lock(KEY, timeout_s=1):
            os.write(write_end, b"x")
            signal.pause()

    async def story(child: Child) -> None:
        with pytest.raises(TryAgain):
            async with endpoints.lock(KEY, timeout_s=0):
                pass
        assert child.kill() == -signal.SIGKILL
        async with endpoints.lock(KEY, timeout_s=0):
            pass

    with forked(lambda: virtual_time.run(hold())) as child:
        os.close(write_end)  # or a child that ended early would never be heard of
        assert os.read(read_end, 1) == b"x"
        virtual_time.run(story(child))
    os.close(read_end)


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
