"""Errors named by what the caller should do next.

Every exception that crosses a door (see `pycni.ports`) is one of these; library exceptions are
translated where they appear, with the original chained as the cause.  The class decides what
happens next, the text says what was attempted, with what, and what a person can do about it.
"""


class PycniError(Exception):
    """Base of all errors that pycni raises on purpose."""


class InvalidInput(PycniError):
    """Give up: the same request can never succeed; somebody has to change it."""


class WrongNamespace(InvalidInput):
    """The network namespace named for a pod is none, or no pod's."""


class NotFound(PycniError):
    """The thing named does not exist (which is success for a removal)."""


class AlreadyExists(PycniError):
    """Something with that name exists already."""


class Conflict(PycniError):
    """Somebody else wrote first: read again, decide again, retry."""


class TryAgain(PycniError):
    """Nothing is wrong with the request, but it can't be served now; later it may be."""


class ServerAway(TryAgain):
    """The cluster's API server serves nobody: no pod can be placed on any node meanwhile."""


class Exhausted(TryAgain):
    """No address is free where the request allows one to be taken from."""


class DatastoreUnusable(PycniError):
    """The datastore is corrupt, unreadable or of a newer version: refuse it, never overwrite it."""


class DelegateFailed(PycniError):
    """Another plugin, which was run for a part of the work, refused it or broke."""


class EventsLost(PycniError):
    """Events were dropped; what was remembered is doubtful, list everything again."""
