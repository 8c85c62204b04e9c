"""A datastore in Kubernetes whose server, history or token goes away under it."""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pycni.datastore.kubernetes import KubernetesDatastore
from pycni.datastore.kubernetes_objects import PATHS
from pycni.errors import AlreadyExists, EventsLost, NotFound, ServerAway, TryAgain
from pycni.model.resources import Handle
from pycni.ports import Change, Cursor
from tests.contract.datastore.kubernetes_stories import told
from tests.contract.datastore.stories import handle, stop, take
from tests.kube.apiserver import ApiServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]


def test_a_rotated_token_is_read_again_and_a_refused_one_is_told(own_server: ApiServer) -> None:
    async def story(store: KubernetesDatastore) -> None:
        watch = store.watch(Handle, after=(await store.list(Handle)).cursor)
        await store.create(handle("a"))
        own_server.kill_apiserver()
        own_server.set_tokens("second-token")
        own_server.use_token("wrong")
        own_server.start_apiserver(token="second-token")  # noqa: S106
        with pytest.raises(TryAgain, match="the API server denies it") as denied:
            await store.list(Handle)
        assert not isinstance(denied.value, ServerAway)
        own_server.use_token("second-token")

        await asyncio.gather(*(store.create(handle(f"b{number}")) for number in range(5)))

        assert len((await store.list(Handle)).items) == 6
        await stop(watch)

    told(own_server, story)


def test_nothing_of_a_kubeconfig_is_left_in_files(
    own_server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert "certificate-authority-data" in own_server.kubeconfig.read_text()

    async def story(store: KubernetesDatastore) -> None:
        await store.list(Handle)
        assert list(temporary.iterdir()) == []

        # Credentials are read anew, and with them the certificate that stands beside them.
        own_server.kill_apiserver()
        own_server.set_tokens("second-token")
        own_server.use_token("second-token")
        own_server.start_apiserver(token="second-token")  # noqa: S106
        await store.list(Handle)
        assert list(temporary.iterdir()) == []

    told(own_server, story)


# --- a server that comes and goes -----------------------------------------------------------------


def test_a_server_that_is_killed_at_any_step_loses_and_doubles_nothing(
    own_server: ApiServer,
) -> None:
    """Each step may be done or not when its answer is lost; what is found afterwards decides."""
    lives = Lives()

    async def kill() -> None:
        for _ in range(3):
            await asyncio.sleep(0.2)
            own_server.kill_apiserver()
            await asyncio.to_thread(own_server.start_apiserver)

    async def story(store: KubernetesDatastore) -> None:
        killing = asyncio.ensure_future(kill())
        while not killing.done():
            await asyncio.gather(*(lives.live(store) for _ in range(10)))
        await killing

        listing = await store.list(Handle)
        assert {one.value for one in listing.items} == lives.kept
        assert len(own_server.ask("GET", PATHS[Handle])["items"]) == len(listing.items)
        assert lives.repetitions > 0

    told(own_server, story)


class Lives:
    """Handles that are made, changed, and every other one deleted, as often as it takes."""

    def __init__(self) -> None:
        self.numbers = itertools.count()
        self.repetitions = 0
        self.kept: set[Handle] = set()

    async def live(self, store: KubernetesDatastore) -> None:
        number = next(self.numbers)
        name = f"h{number}"
        await self.retried(lambda: store.create(handle(name)))
        await self.retried(lambda: change(store, name))
        if number % 2:
            await self.retried(lambda: remove(store, name))
        else:
            self.kept.add(handle(name, 2))

    async def retried(self, step: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await step()
            except TryAgain:
                self.repetitions += 1
                await asyncio.sleep(0.05)
            except (AlreadyExists, NotFound):
                return  # it was done, and only the answer was lost
            else:
                return


async def change(store: KubernetesDatastore, name: str) -> None:
    stored = await store.get(Handle, name)
    assert stored is not None
    if stored.value == handle(name):
        await store.update(handle(name, 2), if_revision=stored.revision)


async def remove(store: KubernetesDatastore, name: str) -> None:
    stored = await store.get(Handle, name)
    if stored is not None:
        assert stored.value == handle(name, 2)
        await store.delete(Handle, name, if_revision=stored.revision)


def test_a_watch_ends_with_its_server_and_goes_on_after_it(own_server: ApiServer) -> None:
    async def story(store: KubernetesDatastore) -> None:
        watch = store.watch(Handle, after=(await store.list(Handle)).cursor)
        await store.create(handle("a"))
        (seen,) = await take(watch, 1)
        own_server.kill_apiserver()

        with pytest.raises(TryAgain):
            await take(watch, 1)
        with pytest.raises(ServerAway, match="does not answer"):
            await store.get(Handle, "a")
        await asyncio.to_thread(own_server.start_apiserver)
        await store.create(handle("b"))
        again = store.watch(Handle, after=seen.cursor)

        # A server that has just started knows no changes from before: then the list tells.
        try:
            names = [change.name for change in await take(again, 1)]
        except EventsLost:
            names = [one.value.id for one in (await store.list(Handle)).items[1:]]
        assert names == ["b"]
        await stop(again)

    told(own_server, story)


def test_a_watch_from_before_a_compaction_loses_events(own_server: ApiServer) -> None:
    async def story(store: KubernetesDatastore) -> None:
        cursor = (await store.list(Handle)).cursor
        for number in range(5):
            await store.create(handle(f"h{number}"))
        # A running server remembers more than etcd; one that starts knows what etcd knows.
        own_server.compact()
        own_server.kill_apiserver()
        await asyncio.to_thread(own_server.start_apiserver)

        with pytest.raises(EventsLost, match="list again"):
            await _first(store, after=cursor)

    told(own_server, story)


async def _first(store: KubernetesDatastore, *, after: Cursor) -> Change[Handle]:
    """Return a watch's first change; a server that has just started says for a while "not yet"."""
    async with asyncio.timeout(20):
        while True:
            try:
                (change,) = await take(store.watch(Handle, after=after), 1)
            except TryAgain:
                await asyncio.sleep(0.2)
            else:
                return change


def test_a_history_that_a_backup_has_undone_is_noticed(
    own_server: ApiServer, tmp_path: Path
) -> None:
    etcd, backup = own_server.directory / "etcd", tmp_path / "backup"

    def while_down(change: Callable[[], object]) -> None:
        own_server.stop()
        change()
        own_server.start_etcd()
        own_server.start_apiserver()

    def restore() -> None:
        shutil.rmtree(etcd)
        shutil.copytree(backup, etcd)

    async def story(store: KubernetesDatastore) -> None:
        await store.create(handle("kept"))
        await asyncio.to_thread(while_down, lambda: shutil.copytree(etcd, backup))
        # More than a server writes for itself when it starts.
        await asyncio.gather(*(store.create(handle(f"undone{number}")) for number in range(200)))
        cursor = (await store.list(Handle)).cursor

        await asyncio.to_thread(while_down, restore)

        with pytest.raises(EventsLost, match="list again"):
            await take(store.watch(Handle, after=cursor), 1)
        assert [one.value.id for one in (await store.list(Handle)).items] == ["kept"]

    told(own_server, story)


def test_a_watch_goes_on_when_etcd_is_compacted_below_it(
    cluster: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pycni.datastore.kubernetes_watch.PERIOD_S", 1)

    async def story(store: KubernetesDatastore) -> None:
        watch = store.watch(Handle, after=(await store.list(Handle)).cursor)
        for number in range(3):
            await store.create(handle(f"h{number}"))
            cluster.compact()
            await asyncio.sleep(1.2)  # the server ends the watch meanwhile

        assert [change.name for change in await take(watch, 3)] == ["h0", "h1", "h2"]
        await stop(watch)

    told(cluster, story)
