"""Small files that are there whole or not at all."""

import os
from pathlib import Path

from pycni.files import put


def test_a_file_that_is_as_it_should_be_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"

    assert put(path, b"one", mode=0o600)
    first = path.stat()
    assert not put(path, b"one", mode=0o600)

    then = path.stat()
    # Not the time of the last access: it has been read.
    assert (then.st_ino, then.st_ctime_ns) == (first.st_ino, first.st_ctime_ns)
    assert put(path, b"one", mode=0o755)
    assert put(path, b"two", mode=0o755)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o755)


def test_what_a_crash_left_of_a_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".file.new").write_bytes(b"hal")

    assert put(tmp_path / "file", b"whole", mode=0o600)

    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "whole"}


def test_a_program_that_runs_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "program"
    put(path, Path("/bin/sleep").read_bytes(), mode=0o755)
    running = os.posix_spawn(path, [str(path), "20"], {})
    try:
        assert put(path, b"#!/bin/sh\n", mode=0o755)
    finally:
        os.kill(running, 9)
        os.waitpid(running, 0)
