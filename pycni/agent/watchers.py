"""Tasks that follow one source each and tell the reconciler: datastore, records, kernel, BGP.

Each subscribes first and lists then; whatever is lost or fails ends in listing again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from math import inf

from pycni.agent.messages import (
    BgpTold,
    Changed,
    Doubt,
    EndpointChanged,
    EndpointsListed,
    KernelTold,
    Listed,
    Message,
    SysctlsRead,
)
from pycni.endpoints import FileEndpoints
from pycni.errors import EventsLost, PycniError
from pycni.inotify import DirectoryWatch
from pycni.model.endpoints import EndpointKey
from pycni.model.resources import Resource
from pycni.ports import Datastore, Kernel, Speaker

_log = logging.getLogger(__name__)

Post = Callable[[Message], None]
FIRST_RETRY_S = 0.2
LAST_RETRY_S = 10.0
GATHER_S = 0.003
BUSY_GATHER_S = 0.02
"""A request writes its record several times, and only the last version counts; in a series of
requests the processors have better to do than to read each of them at once."""
SERIES_S = 0.05
SYSCTL_PERIOD_S = 0.5
SYSCTLS_PER_PERIOD = 150
"""A bound on the work of one look; with more sysctls than this a full round takes longer."""


async def watch_kind(
    datastore: Datastore, kind: type[Resource], *, post: Post, report: Callable[[str, str], None]
) -> None:
    """List one kind and follow its changes for ever; `report` hears of trouble and its end."""
    delay = FIRST_RETRY_S
    while True:
        try:
            listing = await datastore.list(kind)
            post(Listed(kind, tuple(s.value for s in listing.items)))
            report(kind.__name__, "")
            delay = FIRST_RETRY_S
            async for change in datastore.watch(kind, after=listing.cursor):
                value = change.stored.value if change.stored is not None else None
                post(Changed(kind, change.name, value))
        except EventsLost:
            continue
        except (PycniError, OSError) as exc:
            report(kind.__name__, str(exc))
            await asyncio.sleep(delay)
            delay = min(delay * 2, LAST_RETRY_S)


async def watch_endpoints(
    endpoints: FileEndpoints, *, post: Post, report: Callable[[str, str], None]
) -> None:
    """Follow the directory of endpoint records, which the in-process engine writes, too.

    While a record can't be read, nothing is said of any: no pod route is deleted on half a truth.
    """
    while True:
        try:
            with contextlib.closing(DirectoryWatch(endpoints.directory)) as watch:
                await _follow_records(endpoints, watch, post=post, report=report)
        except EventsLost:
            continue
        except (PycniError, OSError) as exc:
            report("endpoint records", str(exc))
            await asyncio.sleep(LAST_RETRY_S)


async def _follow_records(
    endpoints: FileEndpoints,
    watch: DirectoryWatch,
    *,
    post: Post,
    report: Callable[[str, str], None],
) -> None:
    records = endpoints.list()
    keys = {endpoints.file_name(e.key): e.key for e in records}
    post(EndpointsListed(records))
    report("endpoint records", "")
    clock, last = asyncio.get_running_loop().time, -inf
    async for events in watch:
        for name in dict.fromkeys(event.name for event in events):
            _tell_record(endpoints, name, keys, post)
        is_series = clock() - last < SERIES_S
        await asyncio.sleep(BUSY_GATHER_S if is_series else GATHER_S)
        last = clock()


def _tell_record(
    endpoints: FileEndpoints, name: str, keys: dict[str, EndpointKey], post: Post
) -> None:
    if not name.endswith(".json"):
        return
    record = endpoints.read_file(name)
    if record is not None:
        keys[name] = record.key
        post(EndpointChanged(record.key, record))
        return
    key = keys.pop(name, None)
    if key is not None:
        post(EndpointChanged(key, None))


async def watch_kernel(kernel: Kernel, *, post: Post) -> None:
    """Pass on the kernel's events; after a loss, everything is read again."""
    while True:
        try:
            events = kernel.events()
            post(Doubt("subscribed to the kernel's events"))
            async for event in events:
                post(KernelTold(event))
        except EventsLost as exc:
            _log.info("kernel events were lost", extra={"reason": str(exc)})
        except (PycniError, OSError) as exc:
            _log.warning("cannot follow the kernel's events now", extra={"reason": str(exc)})
            await asyncio.sleep(FIRST_RETRY_S)


async def watch_speaker(speaker: Speaker, *, post: Post) -> None:
    """Pass on what the BGP engine says."""
    async for event in speaker.events():
        post(BgpTold(event))


async def watch_sysctls(kernel: Kernel, *, names: Callable[[], list[str]], post: Post) -> None:
    """Look at the wanted sysctls in turn: the kernel tells of hardly any change of one."""
    position = 0
    while True:
        await asyncio.sleep(SYSCTL_PERIOD_S)
        wanted = names()
        if not wanted:
            continue
        position = position if position < len(wanted) else 0
        part = wanted[position : position + SYSCTLS_PER_PERIOD]
        position += SYSCTLS_PER_PERIOD
        post(SysctlsRead(kernel.read_sysctls(part)))
