"""Passwords of sessions that a cluster keeps: read while wanted, told of when missing."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest

from pycni.agent.messages import SecretsRead
from pycni.agent.secrets import SecretWatch
from pycni.errors import EventsLost, TryAgain
from pycni.model.resources_bgp import SecretKey
from tests.agent.told_cluster import Held, ToldCluster
from tests.virtual_time import run

TOR, MESH = SecretKey("bgp-passwords", "tor"), SecretKey("bgp-passwords", "mesh")
OTHER = SecretKey("others", "tor")


class Scene:
    """A watch with a cluster that tells what the test says."""

    def __init__(self, *, has_cluster: bool = True) -> None:
        self.cluster = ToldCluster()
        self.posted: list[Mapping[SecretKey, str]] = []
        self.troubles: dict[str, str] = {}
        self.watch = SecretWatch(
            self.cluster if has_cluster else None,
            post=self._post,
            report=self.troubles.__setitem__,
        )

    def _post(self, message: SecretsRead) -> None:
        self.posted.append(dict(message.passwords))

    async def want(self, *places: SecretKey) -> None:
        self.watch.look(frozenset(places))
        await asyncio.sleep(1)

    async def tell(self, held: Held, *, name: str = "bgp-passwords") -> None:
        self.cluster.secrets.setdefault(name, asyncio.Queue()).put_nowait(held)
        await asyncio.sleep(10)

    @property
    def said(self) -> dict[str, str]:
        return {what: why for what, why in self.troubles.items() if why}


def play(story: Callable[[Scene], Awaitable[None]], *, has_cluster: bool = True) -> None:
    async def main() -> None:
        scene = Scene(has_cluster=has_cluster)
        task = asyncio.create_task(scene.watch.run())
        try:
            await story(scene)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    run(main())


def test_nothing_is_asked_for_while_no_password_is_named() -> None:
    async def story(scene: Scene) -> None:
        await asyncio.sleep(60)
        assert (scene.cluster.secrets, scene.posted, scene.said) == ({}, [], {})

    play(story)


def test_passwords_are_posted_and_other_keys_are_nobodys() -> None:
    async def story(scene: Scene) -> None:
        await scene.want(TOR, OTHER)
        await scene.tell({"tor": b"one", "mesh": b"two"})
        await scene.tell({"tor": b"three"}, name="others")
        assert scene.posted == [{TOR: "one"}, {OTHER: "three"}]
        assert scene.said == {}

    play(story)


def test_a_key_that_is_named_later_is_found_in_what_is_known() -> None:
    async def story(scene: Scene) -> None:
        await scene.want(TOR)
        await scene.tell({"tor": b"one", "mesh": b"two"})
        await scene.want(TOR, MESH)
        assert scene.posted[-1] == {TOR: "one", MESH: "two"}

    play(story)


def test_a_password_that_changes_is_posted_anew() -> None:
    async def story(scene: Scene) -> None:
        await scene.want(TOR)
        await scene.tell({"tor": b"one"})
        await scene.tell({"tor": b"two"})
        assert scene.posted == [{TOR: "one"}, {TOR: "two"}]

    play(story)


@pytest.mark.parametrize(
    ("held", "words"),
    [
        (None, "there is no Secret bgp-passwords beside the agents"),
        ({"mesh": b"one"}, "Secret bgp-passwords has no key tor, only: mesh"),
        ({}, "Secret bgp-passwords has no key tor, only: none"),
        ({"tor": b"hunter2\n"}, "bgp-passwords/tor: a password has 1 to 80 printable ASCII"),
        ({"tor": b"hunter\xff2"}, "bgp-passwords/tor: a password has ASCII characters alone"),
        ({"tor": b""}, "bgp-passwords/tor: a password has 1 to 80"),
    ],
)
def test_what_is_no_password_is_told_without_it(
    held: Held, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(scene: Scene) -> None:
        await scene.want(TOR)
        await scene.tell(held)
        assert scene.posted == []
        assert scene.said["BGP password bgp-passwords/tor"].startswith(words)
        assert "hunter" not in str(scene.said) + caplog.text
        await scene.tell({"tor": b"one"})
        assert scene.posted == [{TOR: "one"}]
        assert scene.said == {}

    play(story)


def test_a_password_that_is_gone_goes_on_and_is_told_of() -> None:
    async def story(scene: Scene) -> None:
        await scene.want(TOR)
        await scene.tell({"tor": b"one"})
        await scene.tell(None)
        assert scene.posted == [{TOR: "one"}]
        assert "there is no Secret" in scene.said["BGP password bgp-passwords/tor"]

    play(story)


def test_who_may_not_read_it_says_so_and_asks_again() -> None:
    async def story(scene: Scene) -> None:
        await scene.want(TOR)
        await scene.tell(TryAgain("denied: is deploy/bgp-passwords.yaml applied?"))
        assert scene.said == {
            "Secret bgp-passwords": "denied: is deploy/bgp-passwords.yaml applied?"
        }
        await scene.tell(EventsLost("too old"))
        await scene.tell({"tor": b"one"})
        assert scene.posted == [{TOR: "one"}]
        assert scene.said == {}

    play(story)


def test_what_nobody_names_any_more_is_no_trouble() -> None:
    async def story(scene: Scene) -> None:
        await scene.want(TOR, OTHER)
        await scene.tell(TryAgain("denied"))
        await scene.tell({}, name="others")
        assert len(scene.said) == 2
        await scene.want()
        assert scene.said == {}
        # It is read again for who names it later.
        await scene.want(OTHER)
        await scene.tell({"tor": b"one"}, name="others")
        assert scene.posted == [{OTHER: "one"}]

    play(story)


def test_without_a_cluster_there_is_nothing_to_read() -> None:
    async def story(scene: Scene) -> None:
        await scene.want(TOR)
        assert "write the password itself" in scene.said["BGP password bgp-passwords/tor"]
        await scene.want()
        assert scene.said == {}

    play(story, has_cluster=False)
