"""How many workers delete interfaces at a time; the kernel itself is far away."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from pycni.kernel import unplug
from pycni.kernel.netlink import NetlinkSocket


class Paused(unplug.GroupDelete):
    """Deletes nothing, and lets one deletion end for each word; more are asked for just then."""

    def __init__(self) -> None:
        super().__init__()
        self.began: asyncio.Queue[None] = asyncio.Queue()
        self.words: asyncio.Queue[None] = asyncio.Queue()
        self.later: list[Coroutine[Any, Any, bool]] = []

    @property
    def workers(self) -> int:
        """How many there are by now: each has a socket of its own."""
        return len(self._all_sockets)

    async def _delete(self, _: NetlinkSocket, batch: Sequence[unplug._Wish]) -> None:
        self.began.put_nowait(None)
        await self.words.get()
        for wish in batch:
            wish.fulfil(was_there=True)
        # Comes before anybody hears that this worker is done.
        asyncio.get_running_loop().call_soon(self._ask_for_more)

    def _ask_for_more(self) -> None:
        for number in range(3):
            one = self.delete(f"more{number}", alias="")
            one.send(None)
            self.later.append(one)


async def workers_after_a_rush() -> int:
    deletions = Paused()
    first = asyncio.create_task(deletions.delete("veth0", alias=""))
    await deletions.began.get()
    second = asyncio.create_task(deletions.delete("veth1", alias=""))
    await deletions.began.get()
    deletions.words.put_nowait(None)
    await first
    second.cancel()
    for one in deletions.later:
        one.close()
    deletions.close()
    return deletions.workers


def test_no_more_workers_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unplug, "WORKERS", 2)

    assert asyncio.run(workers_after_a_rush()) == 2
