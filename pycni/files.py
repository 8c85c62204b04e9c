"""Small files that are there whole or not at all, whatever ends a process or the power."""

import os
from pathlib import Path


def put(path: Path, content: bytes, *, mode: int, is_flushed: bool = True) -> bool:
    """Write a file, atomically, unless it is so already; tell whether it was written.

    What a new start writes anew, or a reboot makes void, needs no flush to disk.
    """
    try:
        if path.read_bytes() == content and path.stat().st_mode & 0o777 == mode:
            return False
    except FileNotFoundError:
        pass
    # Runtimes go by the ending of a name: this is none of theirs.
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with new.open("xb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(content)
        file.flush()
        if is_flushed:
            os.fsync(file.fileno())
    new.replace(path)
    return True


def flush_directory(directory: Path | str) -> None:
    """Have the disk know of what was written there, renamed and removed so far."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
