"""DEL: everything goes, however often it is asked and whatever is known."""

from pathlib import Path

import pytest

from pycni.cni.debts import pay_debts
from pycni.errors import TryAgain
from pycni.model.endpoints import PendingRelease
from pycni.model.network import SetLink
from pycni.model.resources import Block, IPAMConfig
from tests.agent.cluster import NETWORK, NodeAgent
from tests.agent.verbs.stories import KEY, POD, address_in, ask, held, leftovers, play


def test_a_del_takes_everything_back(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)

        await node.delete(POD)

        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_del_of_anything_is_success_again_and_again(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.delete(POD)
        await node.add(POD)
        for _ in range(3):
            await node.delete(POD)

        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_del_without_record_releases_by_what_the_request_says(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        node.endpoints.remove(KEY)

        await node.delete(POD)

        assert await leftovers(node) == []

    play(tmp_path, story)


@pytest.mark.parametrize(("first", "second"), [("abc", "ABC"), ("ABC", "abc")])
def test_a_del_spares_a_container_whose_name_differs_in_capitals(
    tmp_path: Path, first: str, second: str
) -> None:
    async def story(node: NodeAgent) -> None:
        await node.cni("ADD", first)
        kept = address_in(await node.cni("ADD", second))

        assert (await node.cni("DEL", first)).status == 0

        assert await held(node) == [f"{kept} {NETWORK}.{second}"]
        assert (await node.cni("DEL", second)).status == 0
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_add_and_del_spare_a_pod_of_another_network_whose_handle_reads_alike(
    tmp_path: Path,
) -> None:
    async def story(node: NodeAgent) -> None:
        kept = address_in(await node.cni("ADD", "c", config={"name": "a.b"}))
        given = address_in(await node.cni("ADD", "b.c", config={"name": "a"}))
        assert sorted(await held(node)) == sorted([f"{kept} a.b.c", f"{given} a.b.c"])

        for _ in range(2):
            assert (await node.cni("DEL", "b.c", config={"name": "a"})).status == 0
            assert await held(node) == [f"{kept} a.b.c"]

        assert (await node.cni("DEL", "c", config={"name": "a.b"})).status == 0
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_links_are_never_set_by_the_verbs_themselves(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        await node.delete(POD)

        assert [op for op in node.kernel.applied if isinstance(op, SetLink)] == []

    play(tmp_path, story)


RESTING = IPAMConfig(cooldown_s=60)


async def resting(node: NodeAgent) -> list[str]:
    """Return the addresses that nobody holds and nobody gets."""
    return [
        str(block.value.cidr[ordinal])
        for block in (await node.datastore.list(Block)).items
        for ordinal, at in enumerate(block.value.allocations)
        if at is not None and block.value.attributes[at].released_at is not None
    ]


def test_an_address_that_a_pod_had_rests(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.datastore.create(RESTING)
        address = await node.add(POD)

        await node.delete(POD)

        assert await resting(node) == [address]

    play(tmp_path, story)


def test_an_address_that_no_pod_had_needs_no_rest(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.datastore.create(RESTING)
        node.podnet.fail_next(TryAgain("no memory"))

        assert (await ask(node, "ADD")).status == 1

        assert await resting(node) == []

    play(tmp_path, story)


@pytest.mark.parametrize("has_address", [True, False])
def test_an_address_rests_after_its_debt_is_paid(tmp_path: Path, has_address: bool) -> None:
    async def story(node: NodeAgent) -> None:
        await node.datastore.create(RESTING)
        address = await node.add(POD)
        record = node.endpoints.get(KEY)
        assert record is not None
        addresses = record.addresses if has_address else ()
        node.endpoints.journal(PendingRelease(KEY, record.handle_id, addresses))

        assert await pay_debts(node.engine) == []

        assert await resting(node) == [address]

    play(tmp_path, story)
