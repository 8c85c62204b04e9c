"""Turns at a block: one at a time, in order, whoever gives up."""

import asyncio
from ipaddress import ip_network

import pytest

from pycni.ipam.turns import Turns
from pycni.model.network import IPNetwork

BLOCK, OTHER = ip_network("10.0.0.0/26"), ip_network("10.0.0.64/26")


class Queue:
    """Some who want turns at a block, and in which order they had them."""

    def __init__(self) -> None:
        self.turns = Turns[IPNetwork]()
        self.order: list[str] = []
        self.having = 0

    async def want(self, name: str, *, rounds: int = 3) -> None:
        async with self.turns.at(BLOCK):
            self.having += 1
            assert self.having == 1
            self.order.append(name)
            try:
                for _ in range(rounds):
                    await asyncio.sleep(0)
            finally:
                self.having -= 1


def test_turns_come_one_after_the_other_in_order() -> None:
    queue = Queue()

    async def play() -> None:
        await asyncio.gather(*(queue.want(name) for name in "abcd"))
        await queue.want("e")

    asyncio.run(play())

    assert queue.order == ["a", "b", "c", "d", "e"]


def test_each_block_has_turns_of_its_own() -> None:
    queue = Queue()

    async def play() -> None:
        async with queue.turns.at(OTHER):
            await asyncio.wait_for(queue.want("a"), 1)

    asyncio.run(play())

    assert queue.order == ["a"]


@pytest.mark.parametrize("gone", ["a", "b", "c"])
@pytest.mark.parametrize("rounds", [0, 1, 2, 3, 4, 5, 6])
def test_whoever_is_cancelled_holds_nobody_up(gone: str, rounds: int) -> None:
    queue = Queue()

    async def play() -> None:
        tasks = {name: asyncio.create_task(queue.want(name)) for name in "abcd"}
        for _ in range(rounds):
            await asyncio.sleep(0)
        tasks[gone].cancel()
        await asyncio.wait(tasks.values(), timeout=5)
        await asyncio.wait_for(queue.want("e"), 5)

    asyncio.run(play())

    assert [name for name in queue.order if name != gone] == [n for n in "abcde" if n != gone]


def test_a_turn_that_comes_to_someone_who_is_gone_goes_on() -> None:
    queue = Queue()

    async def play() -> None:
        await queue.turns.take(BLOCK)
        waiting = asyncio.create_task(queue.want("late"))
        await asyncio.sleep(0)
        queue.turns.give(BLOCK)
        waiting.cancel()  # it has been told already, and hasn't run yet
        await asyncio.wait([waiting])
        await asyncio.wait_for(queue.want("next"), 1)

    asyncio.run(play())

    assert queue.order == ["next"]
