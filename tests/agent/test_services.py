"""Services are followed while some of their addresses are to be announced, and not otherwise."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pycni.agent.following import LOST_S, RETRY_S
from pycni.agent.services import ServiceWatch
from pycni.datastore.services_file import follow_file
from pycni.errors import EventsLost, InvalidInput, TryAgain
from pycni.model.services import (
    Service,
    ServiceChanged,
    ServiceNews,
    ServicesListed,
    SlicesListed,
)
from tests.virtual_time import run

SHOP = Service("web/shop")
NONE = [ServicesListed(()), SlicesListed(())]


@dataclass
class Told:
    """A watch over one source, what it is fed with, and what it passes on."""

    stories: asyncio.Queue[ServiceNews | Exception] = field(default_factory=asyncio.Queue)
    posted: list[ServiceNews] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)
    opened: int = 0
    on_end: Callable[[], None] = lambda: None

    async def source(self) -> AsyncIterator[ServiceNews]:
        self.opened += 1
        try:
            while True:
                story = await self.stories.get()
                if isinstance(story, Exception):
                    raise story
                yield story
        finally:
            self.on_end()

    def watch(self) -> ServiceWatch:
        return ServiceWatch(
            {"Services": self.source},
            post=self.posted.append,
            report=self.troubles.__setitem__,
        )


def play(story: Callable[[Told, ServiceWatch], Awaitable[None]]) -> Told:
    async def main() -> Told:
        told = Told()
        watch = told.watch()
        task = asyncio.create_task(watch.run())
        await story(told, watch)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return told

    return run(main())


def test_nothing_is_asked_where_nothing_is_to_be_announced() -> None:
    async def story(_: Told, watch: ServiceWatch) -> None:
        watch.look(False)
        await asyncio.sleep(60)

    told = play(story)

    assert (told.opened, told.posted) == (0, [])


def test_services_are_forgotten_when_nothing_is_announced_any_more() -> None:
    async def story(told: Told, watch: ServiceWatch) -> None:
        watch.look(True)
        told.stories.put_nowait(ServicesListed((SHOP,)))
        await asyncio.sleep(1)
        watch.look(False)
        await asyncio.sleep(1)
        told.stories.put_nowait(ServiceChanged("web/shop", None))
        await asyncio.sleep(1)

    assert play(story).posted == [ServicesListed((SHOP,)), *NONE]


def test_what_is_wanted_again_at_once_is_not_forgotten() -> None:
    async def story(told: Told, watch: ServiceWatch) -> None:
        watch.look(True)
        told.stories.put_nowait(ServicesListed((SHOP,)))
        await asyncio.sleep(1)
        watch.look(False)
        watch.look(True)
        await asyncio.sleep(1)
        assert (told.opened, told.posted) == (1, [ServicesListed((SHOP,))])

        # While what follows them is being ended, too.
        watch.look(False)
        told.on_end = lambda: watch.look(True)
        await asyncio.sleep(1)

    told = play(story)

    assert (told.opened, told.posted) == (2, [ServicesListed((SHOP,))])


def test_what_is_known_stays_while_the_cluster_is_away() -> None:
    async def story(told: Told, watch: ServiceWatch) -> None:
        watch.look(True)
        told.stories.put_nowait(ServicesListed((SHOP,)))
        told.stories.put_nowait(TryAgain("the API server does not answer"))
        await asyncio.sleep(RETRY_S / 2)
        assert told.troubles == {"Services": "the API server does not answer"}
        told.stories.put_nowait(EventsLost("list again"))
        told.stories.put_nowait(ServicesListed(()))
        await asyncio.sleep(RETRY_S)

    told = play(story)

    assert told.posted == [ServicesListed((SHOP,)), ServicesListed(())]
    assert (told.opened, told.troubles) == (3, {"Services": ""})


def test_an_answer_that_makes_no_sense_is_reported_and_not_the_last() -> None:
    async def story(told: Told, watch: ServiceWatch) -> None:
        watch.look(True)
        told.stories.put_nowait(ServicesListed((SHOP,)))
        told.stories.put_nowait(ValueError("invalid literal for int()"))
        await asyncio.sleep(RETRY_S / 2)
        assert told.troubles["Services"].endswith("says: invalid literal for int()")
        told.stories.put_nowait(ServicesListed(()))
        await asyncio.sleep(RETRY_S)

    told = play(story)

    assert told.posted == [ServicesListed((SHOP,)), ServicesListed(())]
    assert told.troubles == {"Services": ""}


def test_where_changes_are_lost_all_the_time_listings_are_few() -> None:
    async def story(told: Told, watch: ServiceWatch) -> None:
        for _ in range(1000):
            told.stories.put_nowait(EventsLost("list again"))
        watch.look(True)
        await asyncio.sleep(10)

    assert 2 < play(story).opened <= 10 / LOST_S + 1


def test_without_a_source_there_are_no_services() -> None:
    async def main() -> list[ServiceNews]:
        posted: list[ServiceNews] = []
        troubles: dict[str, str] = {}
        watch = ServiceWatch({}, post=posted.append, report=troubles.__setitem__)
        task = asyncio.create_task(watch.run())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return posted

    assert run(main()) == NONE


# --- a file in a cluster's place ----------------------------------------------------------------

SERVICE = """
apiVersion: v1
kind: Service
metadata: {namespace: web, name: shop}
spec: {clusterIP: 10.96.0.7}
"""
SLICE = """
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: web, name: shop-1, labels: {kubernetes.io/service-name: shop}}
addressType: IPv4
endpoints: [{nodeName: node-0}]
"""


async def heard(news: AsyncIterator[ServiceNews]) -> tuple[list[str], list[str]]:
    """Return the names of the next listing's Services and slices."""
    services, slices = await anext(news), await anext(news)
    assert isinstance(services, ServicesListed)
    assert isinstance(slices, SlicesListed)
    return [one.name for one in services.values], [one.name for one in slices.values]


def test_a_file_is_read_whenever_it_changes(tmp_path: Path) -> None:
    file, new = tmp_path / "services.yaml", tmp_path / "new"

    async def main() -> None:
        news = follow_file(file)
        assert await heard(news) == ([], [])
        file.write_text(SERVICE)
        assert await heard(news) == (["web/shop"], [])
        (tmp_path / "other").touch()
        new.write_text(SERVICE + SLICE)
        new.replace(file)
        assert await heard(news) == (["web/shop"], ["web/shop-1"])
        await news.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


def test_a_file_may_be_a_list_with_objects_of_others(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    pod = "- {kind: Pod, metadata: {name: shop}}\n- 7\n"
    items = f"- {SERVICE.strip()}".replace("\n", "\n  ")
    file.write_text(f"kind: List\nitems:\n{pod}{items}\n")

    async def main() -> None:
        assert await heard(follow_file(file)) == (["web/shop"], [])

    asyncio.run(main())


def test_a_file_that_can_not_be_read_is_trouble_and_what_was_known_stays(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text(SERVICE)
    posted: list[ServiceNews] = []
    troubles: dict[str, str] = {}

    async def main() -> None:
        watch = ServiceWatch(
            {"services_file": lambda: follow_file(file)},
            post=posted.append,
            report=troubles.__setitem__,
        )
        task = asyncio.create_task(watch.run())
        watch.look(True)
        await asyncio.sleep(1)
        file.write_bytes(b"kind: [")
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(main())

    assert len(posted) == 2
    assert troubles["services_file"].startswith(f"cannot read services_file {file}: line 1")


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_bytes(b"\xff")

    with pytest.raises(InvalidInput, match=r"cannot read services_file .*services.yaml"):
        asyncio.run(heard(follow_file(file)))
