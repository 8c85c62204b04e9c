"""What is remembered of BGP for people who watch."""

from dataclasses import replace

from pycni.bgp.news import MAX_ITEMS, News
from pycni.model.bgp import BgpEvent, PathsChanged, PeerUp, SpeakerUp
from tests.unit.bgp.ribs import BLOCK, EOR_4, LOST, A, announce, down, opened, path


def told(*events: BgpEvent) -> list[str]:
    news = News()
    for event in events:
        news.note(event, now=7.0)
    return [item.what for item in news.items()]


def test_each_event_that_people_care_for_is_a_sentence() -> None:
    rich = replace(path(), as_path=(65000, 65001), communities=frozenset({"1:2", "1:1"}))

    assert told(
        SpeakerUp(),
        opened(),
        PeerUp(A),
        announce(path(), rich),
        EOR_4,
        PathsChanged(A, withdrawn=(BLOCK,)),
        down(),
        LOST,
    ) == [
        "ExaBGP begins",
        "is up",
        "announces 192.168.1.0/26 by 10.0.0.1",
        "announces 192.168.1.0/26 by 10.0.0.1 (AS path 65000 65001, communities 1:1 1:2)",
        "has told all of ipv4 unicast",
        "withdraws 192.168.1.0/26",
        "is down: closing connection",
        "ExaBGP ended: killed",
    ]


def test_of_a_long_update_a_few_prefixes_are_named() -> None:
    paths = [path(f"10.{number}.0.0/24") for number in range(5)]

    assert told(announce(*paths), PathsChanged(A, withdrawn=tuple(p.nlri for p in paths))) == [
        "announces 10.0.0.0/24 by 10.0.0.1",
        "announces 10.1.0.0/24 by 10.0.0.1",
        "announces 10.2.0.0/24 by 10.0.0.1",
        "announces 2 more",
        "withdraws 10.0.0.0/24",
        "withdraws 10.1.0.0/24",
        "withdraws 10.2.0.0/24",
        "withdraws 2 more",
    ]


def test_items_are_numbered_and_the_oldest_go() -> None:
    news = News()
    for _ in range(MAX_ITEMS + 2):
        news.note(PeerUp(A), now=1.5)
    items = news.items()

    assert [items[0].number, items[-1].number, len(items)] == [3, MAX_ITEMS + 2, MAX_ITEMS]
    assert (items[0].at, items[0].peer) == (1.5, A)


def test_what_concerns_the_engine_has_no_peer() -> None:
    news = News()
    news.note(SpeakerUp(), now=0)

    assert [item.peer for item in news.items()] == [None]
