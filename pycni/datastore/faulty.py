"""A datastore with switches for failures, around any other: for tests, as `kernel.fake` is.

`before` and `after` are awaited around each call.  Raising in `before` means that the call never
reached the store; raising in `after`, that it did and nobody heard the answer.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, TypeVar

from pycni.datastore.singly import sort_of, write_one
from pycni.errors import PycniError
from pycni.model.resources import Resource, resource_name
from pycni.ports import (
    Change,
    Cursor,
    Datastore,
    Deletion,
    Listing,
    Revision,
    Stored,
    Write,
)

T = TypeVar("T", bound=Resource)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a door's method: get, list, create, update, delete, or several as one (write).

    A list names nothing.
    """

    verb: str
    kind: type[object]
    name: str = ""

    @property
    def is_write(self) -> bool:
        """Whether the call changes something."""
        return self.verb in {"create", "update", "delete", "write"}


Hook = Callable[[Call], Awaitable[None]]


async def do_nothing(call: Call) -> None:
    """Let a call pass."""
    del call


class FaultyDatastore:
    """Passes every call on to `inner`, between two hooks; see `pycni.ports.Datastore`.

    Several writes are done one after the other, as by a store that has no transactions, or, with
    `is_atomic`, as one call of verb "write" that has the name of the first.
    """

    def __init__(
        self,
        inner: Datastore,
        *,
        before: Hook = do_nothing,
        after: Hook = do_nothing,
        is_atomic: bool = False,
    ) -> None:
        self.inner = inner
        self.is_atomic = is_atomic
        self.before = before
        self.after = after

    async def get(self, kind: type[T], name: str) -> Stored[T] | None:
        """Return the object, or None."""
        call = Call("get", kind, name)
        await self.before(call)
        result = await self.inner.get(kind, name)
        await self.after(call)
        return result

    async def list(self, kind: type[T]) -> Listing[T]:
        """Return all objects of a kind, in the order of their names."""
        call = Call("list", kind)
        await self.before(call)
        result = await self.inner.list(kind)
        await self.after(call)
        return result

    async def create(self, value: T) -> Stored[T]:
        """Create an object."""
        call = Call("create", type(value), resource_name(value))
        await self.before(call)
        result = await self.inner.create(value)
        await self.after(call)
        return result

    async def update(self, value: T, *, if_revision: Revision) -> Stored[T]:
        """Replace an object."""
        call = Call("update", type(value), resource_name(value))
        await self.before(call)
        result = await self.inner.update(value, if_revision=if_revision)
        await self.after(call)
        return result

    async def delete(self, kind: type[T], name: str, *, if_revision: Revision) -> None:
        """Delete an object."""
        call = Call("delete", kind, name)
        await self.before(call)
        await self.inner.delete(kind, name, if_revision=if_revision)
        await self.after(call)

    async def write(self, writes: Sequence[Write]) -> Sequence[Stored[Any] | None]:
        """Do several writes, one after the other or as one."""
        if not self.is_atomic:
            results: list[Stored[Any] | None] = []
            for _, alike in groupby(writes, key=sort_of):
                results += await self._all(alike)
            return results
        first = writes[0]
        if isinstance(first, Deletion):
            call = Call("write", first.kind, first.name)
        else:
            call = Call("write", type(first.value), resource_name(first.value))
        await self.before(call)
        written = await self.inner.write(writes)
        await self.after(call)
        return written

    async def _all(self, writes: Iterable[Write]) -> Sequence[Stored[Any] | None]:
        """Do writes that are alike, all of them even when one is refused."""
        results = []
        refused = []
        for one in writes:
            try:
                results.append(await write_one(self, one))
            except PycniError as exc:
                refused.append(exc)
        if refused:
            raise refused[0]
        return results

    def watch(self, kind: type[T], *, after: Cursor) -> AsyncIterator[Change[T]]:
        """Yield each change after the cursor; hooks don't apply."""
        return self.inner.watch(kind, after=after)

    async def close(self) -> None:
        """Close the datastore inside."""
        await self.inner.close()
