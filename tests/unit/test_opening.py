"""Opening the datastore that a setting names."""

import asyncio
import sys
from pathlib import Path

import pytest

from pycni.config import KUBERNETES
from pycni.datastore.opening import open_datastore
from pycni.errors import DatastoreUnusable


def refused(place: str, *, kubeconfig: str = "") -> str:
    async def main() -> str:
        with pytest.raises(DatastoreUnusable) as caught:
            await open_datastore(place, kubeconfig=kubeconfig)
        return str(caught.value)

    return asyncio.run(main())


def test_a_client_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycni.datastore.kubernetes", None)

    assert "run ./install.sh --datastore kubernetes, or pip install" in refused(KUBERNETES)


def test_a_cluster_needs_a_kubeconfig_or_a_pods_account(tmp_path: Path) -> None:
    assert "cannot use the service account of this pod" in refused(KUBERNETES)
    assert "cannot use the kubeconfig" in refused(KUBERNETES, kubeconfig=str(tmp_path / "none"))
