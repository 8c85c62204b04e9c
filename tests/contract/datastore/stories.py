"""Stories on one store, told with one handle on it or with two."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import IPv4Network
from typing import TypeVar

from pycni.model.resources import Handle, Resource
from pycni.ports import Change, Datastore
from tests.contract.datastore.conftest import Session

T = TypeVar("T", bound=Resource)

V4 = IPv4Network("192.168.39.192/30")


def run(session: Session, story: Callable[[Datastore], Awaitable[None]]) -> None:
    async def main() -> None:
        async with session() as handles:
            await story(await handles.one())

    asyncio.run(main())


def run_two(session: Session, story: Callable[[Datastore, Datastore], Awaitable[None]]) -> None:
    async def main() -> None:
        async with session() as handles:
            await story(await handles.one(), await handles.one())

    asyncio.run(main())


def handle(name: str, count: int = 1) -> Handle:
    return Handle(name, ((V4, count),))


async def take(watch: AsyncIterator[Change[T]], count: int) -> list[Change[T]]:
    async with asyncio.timeout(25):
        return [await anext(watch) for _ in range(count)]


async def stop(*watches: AsyncIterator[Change[T]]) -> None:
    for watch in watches:
        await watch.aclose()  # type: ignore[attr-defined]  # Each is an asynchronous generator.
