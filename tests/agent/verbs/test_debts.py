"""Releases that the datastore did not hear of: owed, and paid once it is back."""

import errno
from pathlib import Path
from typing import Any

from pycni.cni.debts import pay_debts
from pycni.errors import TryAgain
from pycni.model.endpoints import EndpointKey, PendingRelease
from tests.agent.cluster import NETWORK, NodeAgent
from tests.agent.verbs.crashes import crash
from tests.agent.verbs.stories import (
    CONTAINER,
    KEY,
    POD,
    Proxy,
    ask,
    held,
    incur_debt,
    leftovers,
    play,
    reason,
    remembered,
)


def test_a_del_without_datastore_succeeds_and_owes_the_release(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        address = await node.add(POD)
        node.switch.is_away = True

        await node.delete(POD)

        assert await remembered(node) == [f"{KEY} {[address]}"]
        assert await node.routes() == []
        assert node.endpoints.get(KEY) is None

    play(tmp_path, story)


def test_a_debt_is_paid_when_the_datastore_is_back(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await incur_debt(node)
        problems = await pay_debts(node.engine)

        node.switch.is_away = False
        after = await pay_debts(node.engine)

        assert len(problems) == 1
        assert after == []
        assert await remembered(node) == []
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_an_add_settles_the_debt_of_its_key_first(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await incur_debt(node)
        refused = await ask(node, "ADD")
        node.switch.is_away = False

        address = await node.add(POD)

        assert reason(refused)[0] == 11
        assert await remembered(node) == []
        assert await held(node) == [f"{address} {NETWORK}.{CONTAINER}"]

    play(tmp_path, story)


def test_a_debt_never_takes_a_newer_pods_address(tmp_path: Path) -> None:
    """The journal was read, then an ADD settled the debt and was given an address again."""

    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        node.endpoints.remove(KEY)
        node.switch.is_away = True
        await node.delete(POD)  # without record: it owes whatever the handle holds
        node.switch.is_away = False
        (debt,) = node.endpoints.pending()
        pending = node.endpoints.pending()
        await node.add(POD)
        looks = iter([pending])
        node.engine.endpoints = Proxy(
            node.endpoints, pending=lambda: next(looks, node.endpoints.pending())
        )

        await pay_debts(node.engine)

        assert debt.addresses == ()
        assert len(await held(node)) == 1

    play(tmp_path, story)


def test_a_release_that_fails_within_an_add_is_settled_before_the_new_address(
    tmp_path: Path,
) -> None:
    async def story(node: NodeAgent) -> None:
        await crash(node, "ADD", "assigned")
        is_first = True

        async def hiccup(*_args: Any, **_options: Any) -> Any:  # noqa: ANN401 - like the real one.
            nonlocal is_first
            if is_first:
                is_first = False
                raise TryAgain("the datastore is away for a moment")
            return await node.allocator.release_by_handle(*_args, **_options)

        node.engine.allocator = Proxy(node.allocator, release_by_handle=hiccup)  # type: ignore[assignment]  # by delegation

        address = await node.add(POD)
        await pay_debts(node.engine)

        assert await held(node) == [f"{address} {NETWORK}.{CONTAINER}"]

    play(tmp_path, story)


def test_a_debt_waits_while_its_key_is_busy(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        node.endpoints.journal(PendingRelease(KEY, handle_id="x"))
        async with node.endpoints.lock(KEY, timeout_s=0):
            problems = await pay_debts(node.engine)

        assert problems == []  # nothing is wrong: whoever holds the key settles it or leaves it
        assert len(node.endpoints.pending()) == 1

    play(tmp_path, story)


# --- whole DELs: what the relay journals where neither agent nor engine is there ----------------


def owe_all(node: NodeAgent) -> None:
    """Journal a DEL as the relay does, which knows names only."""
    node.endpoints.journal(PendingRelease(KEY, handle_id=f"{NETWORK}.{CONTAINER}"))


def test_a_whole_del_is_done_when_it_is_paid(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        owe_all(node)

        problems = await pay_debts(node.engine)

        assert problems == []
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_whole_del_keeps_the_address_until_the_datastore_hears_of_it(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        address = await node.add(POD)
        owe_all(node)
        node.switch.is_away = True

        problems = await pay_debts(node.engine)

        assert len(problems) == 1
        assert node.endpoints.get(KEY) is None
        assert await node.routes() == []
        assert await remembered(node) == [f"{KEY} {[address]}"]
        node.switch.is_away = False
        assert await pay_debts(node.engine) == []
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_an_add_after_a_whole_del_that_is_owed_makes_all_of_it_anew(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        (before,) = node.endpoints.list()
        owe_all(node)

        address = await node.add(POD)
        assert await pay_debts(node.engine) == []

        (after,) = node.endpoints.list()
        assert after.pod_mac != before.pod_mac
        assert await remembered(node) == []
        assert await held(node) == [f"{address} {NETWORK}.{CONTAINER}"]

    play(tmp_path, story)


def test_a_debt_that_the_kernel_refuses_holds_up_no_other(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        node.endpoints.journal(PendingRelease(KEY, handle_id="x"))  # the relay's: of a whole DEL
        others = [EndpointKey(NETWORK, f"c{number}", "eth0") for number in range(8)]
        for other in others:
            node.endpoints.journal(PendingRelease(other, handle_id="y"))

        async def refused(**_: object) -> bool:
            raise OSError(errno.EMFILE, "Too many open files")

        node.engine.podnet = Proxy(node.podnet, unplug=refused)

        problems = await pay_debts(node.engine)

        assert [pending.key for pending in node.endpoints.pending()] == [KEY]
        assert len(problems) == 1
        assert "Too many open files" in problems[0]

    play(tmp_path, story)
