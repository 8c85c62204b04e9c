"""Follow a source that lists what there is, and then tells of changes: for ever, whatever fails."""

import logging
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from pycni.errors import EventsLost, PycniError
from pycni.ipam.retries import Sleep

_log = logging.getLogger(__name__)

RETRY_S = 5.0
LOST_S = 1.0
"""How long a listing is waited with after changes were lost: it costs the API server most."""

T = TypeVar("T")


async def follow(
    what: str,
    source: Callable[[], AsyncIterator[T]],
    *,
    heed: Callable[[T], None],
    report: Callable[[str, str], None],
    sleep: Sleep,
) -> None:
    """Hand everything to `heed` until cancelled; trouble is reported, and what is known stays."""
    while True:
        try:
            async for one in source():
                heed(one)
        except EventsLost:
            await sleep(LOST_S)
        except (PycniError, OSError) as exc:
            report(what, str(exc))
            await sleep(RETRY_S)
        except ValueError as exc:
            # Others write what comes, and servers of other versions: one answer that can't be read
            # is not to be the last that is asked for.
            _log.exception("cannot make sense of an answer", extra={"what": what})
            report(what, f"cannot make sense of what the source of {what} says: {exc}")
            await sleep(RETRY_S)
