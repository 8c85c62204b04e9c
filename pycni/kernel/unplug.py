"""Delete veth pairs, many in one kernel transaction, off the event loop.

Deleting one pair costs about 16 ms, nearly all of it waiting inside the kernel (for a grace period
of RCU); deleting a device group of forty costs little more.  So while one deletion runs, requests
gather, and the next one takes them all.
"""

import asyncio
import errno
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pycni.errors import PycniError
from pycni.kernel import wire_link
from pycni.kernel.netlink import KernelError, NetlinkSocket

# Group numbers of ours are drawn from here.  0 is every interface's default; administrators use
# small ones.
_FIRST_GROUP = 0x7079_0000
_GROUPS = 0x1_0000


@dataclass(slots=True)
class _Wish:
    name: str
    alias: str
    done: "asyncio.Future[bool]"


class GroupDelete:
    """Gathers deletions; only links whose alias was verified are ever touched."""

    def __init__(self) -> None:
        # Opened here, because here we are in the right namespace; used by the worker only.
        self._socket = NetlinkSocket()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="unplug")
        self._wishes: list[_Wish] = []
        self._running: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Let a deletion under way end, and stop."""
        self._thread.shutdown(wait=True)
        self._socket.close()

    async def delete(self, name: str, *, alias: str) -> bool:
        """Delete the link when its alias matches; return whether there was one, once it is gone."""
        loop = asyncio.get_running_loop()
        wish = _Wish(name, alias, loop.create_future())
        self._wishes.append(wish)
        if self._running is None or self._running.done():
            self._running = loop.create_task(self._work(), name="unplug")
        return await wish.done

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._wishes:
            batch, self._wishes = self._wishes, []
            targets = [(wish.name, wish.alias) for wish in batch]
            try:
                deleted = await loop.run_in_executor(
                    self._thread, delete_verified, self._socket, targets
                )
            except OSError as exc:
                _fail(batch, cause=exc)
                continue
            except BaseException:
                # Cancelled with the loop: nobody must wait for ever.
                for wish in (*batch, *self._wishes):
                    wish.done.cancel()
                raise
            for wish, was_there in zip(batch, deleted, strict=True):
                if not wish.done.done():
                    wish.done.set_result(was_there)


def _fail(batch: Sequence[_Wish], *, cause: OSError) -> None:
    for wish in batch:
        if not wish.done.done():
            error = PycniError(f"cannot delete interface {wish.name}: {cause.strerror}")
            error.__cause__ = cause
            wish.done.set_exception(error)


def delete_verified(socket: NetlinkSocket, targets: Sequence[tuple[str, str]]) -> list[bool]:
    """Delete those (name, alias) pairs that exist with that alias; say for each whether it did."""
    found: list[int | None] = []
    for name, alias in targets:
        acks, replies = socket.exchange([wire_link.get_link(name=name)])
        link = wire_link.read_link(replies[0].body) if not acks[0].errno and replies else None
        is_ours = link is not None and link.kind == "veth" and link.alias == alias
        found.append(link.index if link is not None and is_ours else None)
    indexes = sorted({index for index in found if index is not None})
    if len(indexes) > 1:
        _delete_together(socket, indexes)
    elif indexes:
        _delete_one(socket, indexes[0])
    return [index is not None for index in found]


def _delete_one(socket: NetlinkSocket, index: int) -> None:
    ack = socket.send([wire_link.delete_link(index=index)])[0]
    if ack.errno not in {0, errno.ENODEV}:
        raise KernelError(ack.errno, ack.text)


def _delete_together(socket: NetlinkSocket, indexes: Sequence[int]) -> None:
    group = _free_group(socket)
    # By index, so that it is the verified link even if names change hands meanwhile; one that is
    # gone by now answers ENODEV, and that is as well.
    socket.send([wire_link.set_link(index=index, group=group) for index in indexes])
    ack = socket.send([wire_link.delete_group(group)])[0]
    if ack.errno:
        # All gone already, or the kernel refused the group as a whole.
        for index in indexes:
            _delete_one(socket, index)


def _free_group(socket: NetlinkSocket) -> int:
    """Draw a group number that no interface has: whatever is in the group will be deleted."""
    taken = {wire_link.read_group(message.body) for message in socket.dump(wire_link.dump_links())}
    while True:
        group = _FIRST_GROUP + secrets.randbelow(_GROUPS)
        if group not in taken:
            return group
