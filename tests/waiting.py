"""Waiting for what can be observed."""

import asyncio
from collections.abc import Callable


async def until(is_so: Callable[[], object], *, within_s: float = 20) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(within_s):
        while not is_so():  # noqa: ASYNC110  # it comes from another process
            await asyncio.sleep(0.005)
