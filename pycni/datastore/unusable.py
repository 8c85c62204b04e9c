"""The datastore that could not be opened: each use of it fails with the reason."""

from collections.abc import AsyncIterator, Sequence
from typing import NoReturn, TypeVar

from pycni.errors import PycniError
from pycni.model.resources import Resource
from pycni.ports import Change, Cursor, Revision, Write

T = TypeVar("T", bound=Resource)


class UnusableDatastore:
    """Implements `pycni.ports.Datastore` by raising `why`."""

    def __init__(self, why: PycniError) -> None:
        self._why = why

    async def get(self, kind: type[T], name: str) -> NoReturn:
        """Raise."""
        del kind, name
        raise self._why

    async def list(self, kind: type[T]) -> NoReturn:
        """Raise."""
        del kind
        raise self._why

    async def create(self, value: T) -> NoReturn:
        """Raise."""
        del value
        raise self._why

    async def update(self, value: T, *, if_revision: Revision) -> NoReturn:
        """Raise."""
        del value, if_revision
        raise self._why

    async def delete(self, kind: type[T], name: str, *, if_revision: Revision) -> NoReturn:
        """Raise."""
        del kind, name, if_revision
        raise self._why

    async def write(self, writes: Sequence[Write]) -> NoReturn:
        """Raise."""
        del writes
        raise self._why

    def watch(self, kind: type[T], *, after: Cursor) -> AsyncIterator[Change[T]]:
        """Raise."""
        del kind, after
        raise self._why

    async def close(self) -> None:
        """Do nothing: nothing is held."""
