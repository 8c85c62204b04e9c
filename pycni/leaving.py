"""The wish that a node leave the network for good: a file, so that whoever starts next obeys it.

Agent, CNI server and the engine in process look at the same file.  Who makes a pod writes its
record first and looks here then; who wishes to leave writes here first and looks for records then.
So one of them always sees the other.
"""

import os
from pathlib import Path

from pycni.errors import PycniError
from pycni.files import flush_directory

REFUSAL = (
    "this node is leaving the network for good, so no pod gets an address here:"
    " `pycnictl node join` takes it back"
)


class LeaveWish:
    """Kept in the state directory: it outlives a reboot."""

    __slots__ = ("_path",)

    def __init__(self, state_dir: Path) -> None:
        self._path = str(state_dir / "leaving")

    def is_there(self) -> bool:
        """Tell whether the node is to leave, or has left."""
        return os.path.exists(self._path)  # noqa: PTH110  # each ADD asks, and a Path costs more

    def keep(self) -> None:
        """Write it, flushed to disk; there already is success."""
        try:
            with Path(self._path).open("w", encoding="ascii") as file:
                file.write("pycnictl node join takes it back\n")
                file.flush()
                os.fsync(file.fileno())
            flush_directory(Path(self._path).parent)
        except OSError as exc:
            raise self._failed("write", exc) from exc

    def drop(self) -> None:
        """Forget it, also for the time after a power cut; absent is success."""
        try:
            Path(self._path).unlink(missing_ok=True)
            flush_directory(Path(self._path).parent)
        except FileNotFoundError:
            return  # nor is there a directory: no agent has ever been here
        except OSError as exc:
            raise self._failed("remove", exc) from exc

    def _failed(self, doing: str, cause: OSError) -> PycniError:
        return PycniError(
            f"cannot {doing} {self._path}: {cause.strerror}; see to that disk, then say it again"
        )
