"""Writes that are done by a datastore's calls for single objects."""

from typing import Any

from pycni.ports import Creation, Datastore, Deletion, Replacement, Stored, Write


async def write_one(datastore: Datastore, write: Write) -> Stored[Any] | None:
    """Do one of several writes by itself; return what is stored now, None after a deletion."""
    match write:
        case Creation(value):
            return await datastore.create(value)
        case Replacement(value, revision):
            return await datastore.update(value, if_revision=revision)
        case Deletion(kind, name, revision):
            await datastore.delete(kind, name, if_revision=revision)
            return None


def sort_of(write: Write) -> tuple[type[Write], type[Any]]:
    """Return what tells writes apart that have to stay in order from those that are alike."""
    return type(write), write.kind if isinstance(write, Deletion) else type(write.value)
