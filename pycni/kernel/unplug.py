"""Delete veth pairs, many in one kernel transaction, off the event loop.

Deleting a pair takes 16 to 24 ms until the kernel answers, nearly all of it spent waiting for a
grace period of RCU before memory is freed.  By then the interface is long gone: the kernel unlists
it, flushes its routes and addresses, tells everybody (RTM_DELLINK) and lets go of its lock first.
So whoever asked is answered on that message, and only the worker waits for the rest.  While all
workers wait, requests gather, and the next transaction takes them all as one device group.
"""

import asyncio
import errno
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from math import inf
from time import monotonic

from pycni.errors import PycniError
from pycni.kernel import wire_link
from pycni.kernel.birthmark import bears
from pycni.kernel.event_filter import hear_only
from pycni.kernel.names import pairs_by_alias
from pycni.kernel.netlink import KernelError, NetlinkSocket, join_group, open_socket
from pycni.kernel.wire import messages

# Group numbers of ours are drawn from here.  0 is every interface's default; administrators use
# small ones, and pairs are born below (`pycni.kernel.birthmark`).
FIRST_GROUP = 0x7000_0000
_GROUPS = 0x1000_0000
_GROUPS_AGE_S = 1.0

WORKERS = 12
"""Deletions that wait at the same time; the kernel lets their grace periods overlap."""

RTNLGRP_LINK = 1
_BUFFER = 1 << 16


@dataclass(slots=True)
class _Wish:
    name: str
    alias: str
    done: "asyncio.Future[bool]"
    index: int | None = None

    def fulfil(self, *, was_there: bool) -> None:
        """Answer the one who asked, unless that has happened or nobody waits any more."""
        if not self.done.done():
            self.done.set_result(was_there)


class Groups:
    """Draws group numbers that no interface has: whatever is in the group will be deleted."""

    def __init__(self) -> None:
        self._taken: frozenset[int] = frozenset()
        self._listed_at = -inf

    def draw(self, socket: NetlinkSocket) -> int:
        """Return a number; several threads may draw at once.

        Listing all interfaces costs more than deleting a few, so it is done once a second.
        Meanwhile a stranger would have to begin using the very one of 2^28 numbers.
        """
        now = monotonic()
        if now - self._listed_at > _GROUPS_AGE_S:
            links = socket.dump(wire_link.dump_links())
            self._taken = frozenset(wire_link.read_group(message.body) for message in links)
            self._listed_at = now
        while True:
            group = FIRST_GROUP + secrets.randbelow(_GROUPS)
            if group not in self._taken:
                return group


class GroupDelete:
    """Gathers deletions; only links whose alias was verified are ever touched."""

    def __init__(self) -> None:
        self._all_sockets: list[NetlinkSocket] = []
        self._idle_sockets: list[NetlinkSocket] = []
        self._groups = Groups()
        self._threads = ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="unplug")
        self._told = open_socket()
        # Every ADD makes half a dozen other messages about its links.
        hear_only(self._told, wire_link.RTM_DELLINK)
        join_group(self._told, RTNLGRP_LINK)
        self._told.setblocking(False)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wishes: list[_Wish] = []
        self._waiting: dict[int, _Wish] = {}  # workers add, the loop takes away
        self._running: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Let deletions under way end, and stop."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._told)
        self._threads.shutdown(wait=True)
        self._told.close()
        for socket in self._all_sockets:
            socket.close()

    async def delete(self, name: str, *, alias: str) -> bool:
        """Delete the link when its alias matches; return whether there was one, once it is gone."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            loop.add_reader(self._told, self._read_events)
        socket = self._take_socket()
        wish = _Wish(name, alias, loop.create_future())
        self._wishes.append(wish)
        if socket is not None:
            task = loop.create_task(self._work(socket), name="unplug")
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await wish.done

    def _take_socket(self) -> NetlinkSocket | None:
        """Return a socket for one worker; None when as many work as may."""
        if self._idle_sockets:
            return self._idle_sockets.pop()
        # Not by the sockets: threads of an event loop that has ended may have some for a while.
        if len(self._running) >= WORKERS:
            return None
        # Opened by the loop's thread, because that is in the right namespace.
        socket = NetlinkSocket()
        self._all_sockets.append(socket)
        return socket

    async def _work(self, socket: NetlinkSocket) -> None:
        while self._wishes:
            batch, self._wishes = self._wishes, []
            await self._delete(socket, batch)
        self._idle_sockets.append(socket)

    async def _delete(self, socket: NetlinkSocket, batch: Sequence[_Wish]) -> None:
        loop = asyncio.get_running_loop()
        targets = [(wish.name, wish.alias) for wish in batch]
        expect = partial(self._expect, loop, batch)
        job = self._threads.submit(delete_verified, socket, targets, self._groups, expect)
        try:
            deleted = await asyncio.wrap_future(job)
        except (OSError, PycniError) as exc:
            _fail(batch, cause=exc)
            return
        except BaseException:
            # Cancelled with the loop: nobody must wait for ever.  The thread goes on, and nobody
            # else may read from its socket, or each would wait for what the other has read.
            job.add_done_callback(lambda _: self._idle_sockets.append(socket))
            for wish in batch:
                wish.done.cancel()
            raise
        finally:
            for wish in batch:
                if wish.index is not None:
                    self._waiting.pop(wish.index, None)
        for wish, was_there in zip(batch, deleted, strict=True):
            wish.fulfil(was_there=was_there)

    def _expect(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: Sequence[_Wish],
        found: Sequence[int | None],
    ) -> None:
        """Get ready, in the worker's thread: it hasn't deleted yet, so no report can be missed."""
        for wish, index in zip(batch, found, strict=True):
            if index is not None:
                wish.index = index
                self._waiting[index] = wish
        if None in found:
            loop.call_soon_threadsafe(_tell_absent, batch)

    def _read_events(self) -> None:
        """Fulfil the wishes for links that the kernel reports as deleted.

        After an overrun nothing is lost: the worker's own answer comes, only later.
        """
        while True:
            try:
                datagram = self._told.recv(_BUFFER)
            except OSError:  # nothing more, or events were dropped
                return
            for message in messages(datagram):
                if message.type != wire_link.RTM_DELLINK:
                    continue
                index = wire_link.gone_index(message.body)
                wish = self._waiting.pop(index, None) if index is not None else None
                if wish is not None:
                    wish.fulfil(was_there=True)


def _tell_absent(batch: Sequence[_Wish]) -> None:
    for wish in batch:
        if wish.index is None:
            wish.fulfil(was_there=False)


def _fail(batch: Sequence[_Wish], *, cause: Exception) -> None:
    for wish in batch:
        if not wish.done.done():
            error = PycniError(
                f"cannot delete interface {wish.name}: {getattr(cause, 'strerror', cause)}"
            )
            error.__cause__ = cause
            wish.done.set_exception(error)


def delete_verified(
    socket: NetlinkSocket,
    targets: Sequence[tuple[str, str]],
    groups: Groups,
    expect: Callable[[Sequence[int | None]], None] = lambda _found: None,
) -> list[bool]:
    """Delete those (name, alias) pairs that exist with that alias; say for each whether it did.

    The alias decides: a pair that has another name by now is found by it.

    `expect` hears the indexes that are about to be deleted (None: no such link of ours).
    """
    found = _find(socket, targets)
    expect(found)
    indexes = sorted({index for index in found if index is not None})
    if len(indexes) > 1:
        _delete_together(socket, indexes, groups)
    elif indexes:
        _delete_one(socket, indexes[0])
    return [index is not None for index in found]


def _find(socket: NetlinkSocket, targets: Sequence[tuple[str, str]]) -> list[int | None]:
    found: list[int | None] = []
    links = socket.ask([wire_link.get_link(name=name) for name, _ in targets])
    for (_, alias), answer in zip(targets, links, strict=True):
        found.append(None if answer is None else _index_of(answer.body, alias))
    if None in found:  # gone, mostly; but somebody may have renamed it
        indexes = pairs_by_alias(socket)
        return [
            indexes.get(alias) if index is None else index
            for (_, alias), index in zip(targets, found, strict=True)
        ]
    return found


def _index_of(body: bytes, alias: str) -> int | None:
    """Return the index of the link that a message is about, if it is the pair of that alias."""
    link = wire_link.read_link(body)
    if link is None or link.kind != "veth":
        return None
    is_ours = bears(alias, found=link.alias, group=wire_link.read_group(body))
    return link.index if is_ours else None


def _delete_one(socket: NetlinkSocket, index: int) -> None:
    ack = socket.send([wire_link.delete_link(index=index)])[0]
    if ack.errno not in {0, errno.ENODEV}:
        raise KernelError(ack.errno, ack.text)


def _delete_together(socket: NetlinkSocket, indexes: Sequence[int], groups: Groups) -> None:
    group = groups.draw(socket)
    # By index, so that it is the verified link even if names change hands meanwhile; one that is
    # gone by now answers ENODEV, and that is as well.
    socket.send([wire_link.set_link(index=index, group=group) for index in indexes])
    ack = socket.send([wire_link.delete_group(group)])[0]
    if ack.errno:
        # All gone already, or the kernel refused the group as a whole.
        for index in indexes:
            _delete_one(socket, index)
