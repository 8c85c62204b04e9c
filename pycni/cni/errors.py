"""The error codes of the CNI specification, and how ours map to them."""

from enum import IntEnum

from pycni.errors import (
    AlreadyExists,
    Conflict,
    DatastoreUnusable,
    DelegateFailed,
    InvalidInput,
    PycniError,
    TryAgain,
    WrongNamespace,
)


class Code(IntEnum):
    """Error codes of the specification (section "Error") and ours from 100 on."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    UNDECODABLE = 6
    INVALID_CONFIGURATION = 7
    TRY_AGAIN = 11
    UNAVAILABLE = 50
    LIMITED_CONNECTIVITY = 51
    INTERNAL = 100
    CHECK_FAILED = 101
    DELEGATE_FAILED = 102


class CniError(Exception):
    """An error as the runtime sees it: a code, one sentence, and details for the log."""

    def __init__(self, code: Code, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.code = code
        self.msg = msg
        self.details = details


def as_cni_error(error: PycniError) -> CniError:
    """Give one of our errors the specification's code."""
    match error:
        case TryAgain() | Conflict():
            code = Code.TRY_AGAIN
        case WrongNamespace():
            return CniError(Code.INVALID_ENVIRONMENT, f"CNI_NETNS: {error}")
        case DatastoreUnusable():
            code = Code.IO_FAILURE
        case DelegateFailed():
            code = Code.DELEGATE_FAILED
        case InvalidInput() | AlreadyExists():
            code = Code.INVALID_CONFIGURATION
        case _:
            code = Code.IO_FAILURE  # the kernel refused
    return CniError(code, str(error))
