"""Endpoint records in fresh directories."""

from pathlib import Path

import pytest

from pycni.endpoints import FileEndpoints


@pytest.fixture
def directories(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "run", tmp_path / "state"


@pytest.fixture
def endpoints(directories: tuple[Path, Path]) -> FileEndpoints:
    run_dir, state_dir = directories
    return FileEndpoints(run_dir=run_dir, state_dir=state_dir)
