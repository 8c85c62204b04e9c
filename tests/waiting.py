"""Waiting for what can be observed."""

import asyncio
from collections.abc import Callable


async def until(is_so: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110  # it comes from another process
            await asyncio.sleep(0.005)
