"""What an audit found is mended as far as that needs no judgement, also beside other writers."""

from ipaddress import IPv4Network

import pytest

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.ipam import block as arithmetic
from pycni.ipam.audit import audit
from pycni.ipam.findings import Kind
from pycni.ipam.lookup import read_books
from pycni.ipam.mending import Mending
from pycni.model.network import IPNetwork
from pycni.model.resources import (
    AffinityState,
    Block,
    BlockAffinity,
    Handle,
    Node,
    cidr_name,
)
from pycni.model.service_ranges import LOAD_BALANCER
from pycni.ports import Datastore
from tests.agent.ipam.allocators import (
    CIDR,
    POOL,
    SMALL,
    affinities,
    affinity,
    check_books,
    lose_handle,
    new_block,
    no_sleep,
    node,
    take,
)
from tests.agent.ipam.conftest import Play

STRAY = IPv4Network("172.16.0.0/26")


async def kinds(store: Datastore) -> list[Kind]:
    return [one.kind for one in audit(await read_books(store))]


async def mend(store: Datastore) -> list[str]:
    findings = audit(await read_books(store))
    return await Mending(store, sleep=no_sleep).mend(findings)


async def count(store: Datastore, name: str, blocks: tuple[tuple[IPNetwork, int], ...]) -> None:
    """Make a handle count something."""
    stored = await store.get(Handle, name)
    if stored is None:
        await store.create(Handle(name, blocks))
    else:
        await store.update(Handle(name, blocks), if_revision=stored.revision)


def test_sound_books_are_left_alone(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "a")

        assert await kinds(store) == []
        assert await mend(store) == []

    play([POOL, Node("node-0")], story)


def test_missing_handle_is_made_from_the_blocks(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "a")
        await take(node(store), "a")
        await lose_handle(store, "a")

        assert await mend(store) == ["made handle a: 2 of 192.168.39.192/26"]
        assert await kinds(store) == []
        await check_books(store)

    play([POOL, Node("node-0")], story)


def test_wrong_counts_are_recounted(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "a")
        await count(store, "a", ((CIDR, 2), (IPv4Network("192.168.39.192/26"), 5)))

        assert await mend(store) == ["recounted handle a: 1 of 192.168.39.192/26"]
        await check_books(store)

    play([POOL, Node("node-0")], story)


@pytest.mark.parametrize("blocks", [(), ((CIDR, 1),)])
def test_handle_that_holds_nothing_goes(
    play: Play, blocks: tuple[tuple[IPNetwork, int], ...]
) -> None:
    async def story(store: Datastore) -> None:
        await count(store, "left", blocks)

        assert await mend(store) == ["deleted handle left, which holds nothing"]
        assert (await store.list(Handle)).items == ()

    play([POOL], story)


def test_count_of_a_corrupt_block_is_kept(play: Play) -> None:
    async def story(store: Datastore) -> None:
        broken = Block(
            CIDR, None, allocations=(None,) * 4, unallocated=(), sequence_numbers=(0,) * 4
        )
        await store.create(broken)
        await count(store, "a", ((CIDR, 1), (STRAY, 1)))

        assert await mend(store) == [f"recounted handle a: 1 of {CIDR}"]
        assert await kinds(store) == [Kind.BLOCK_CORRUPT]

    play([SMALL], story)


def test_confirmed_affinity_without_a_block_goes(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await store.create(affinity())

        assert await mend(store) == [f"dropped node-0's affinity for {CIDR}"]
        assert await affinities(store) == []

    play([SMALL, Node("node-0")], story)


def test_confirmed_affinity_for_anothers_block_goes_and_the_block_stays(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await store.create(affinity())
        await store.create(new_block(owner="node-1"))
        await store.create(BlockAffinity("node-1", CIDR, AffinityState.CONFIRMED))

        assert await mend(store) == [f"dropped node-0's affinity for {CIDR}"]
        assert await affinities(store) == [("node-1", str(CIDR), "confirmed")]
        assert await kinds(store) == []

    play([SMALL, Node("node-0"), Node("node-1")], story)


def test_block_without_affinity_is_claimed_for_its_owner(play: Play) -> None:
    used = arithmetic.assign(new_block(), CIDR[1], handle_id="x")

    async def story(store: Datastore) -> None:
        assert await kinds(store) == [Kind.BLOCK_WITHOUT_AFFINITY]

        assert await mend(store) == ["claimed block 10.0.0.4/30 for node-0"]

        assert await affinities(store) == [("node-0", "10.0.0.4/30", "confirmed")]
        assert await kinds(store) == []

    handle = Handle("x", ((CIDR, 1),))
    play([SMALL, Node("node-0"), used, handle], story)


def test_block_of_services_without_affinity_is_claimed_though_they_are_no_node(play: Play) -> None:
    async def story(store: Datastore) -> None:
        assert await kinds(store) == [Kind.BLOCK_WITHOUT_AFFINITY]

        assert await mend(store) == [f"claimed block {CIDR} for {LOAD_BALANCER}"]

        assert await kinds(store) == []

    play([SMALL, new_block(owner=LOAD_BALANCER)], story)


@pytest.mark.parametrize("is_there", [True, False])
def test_block_without_affinity_of_a_node_that_is_gone_is_not_claimed(
    play: Play, *, is_there: bool
) -> None:
    async def story(store: Datastore) -> None:
        findings = audit(await read_books(store))
        if is_there:  # and goes between audit and mending
            stored = await store.get(Node, "node-0")
            assert stored is not None
            await store.delete(Node, "node-0", if_revision=stored.revision)

        assert await Mending(store, sleep=no_sleep).mend(findings) == []

        assert await affinities(store) == []

    play([SMALL, *([Node("node-0")] if is_there else []), new_block()], story)


@pytest.mark.parametrize("owner", ["node-0", "node-1", None])
def test_block_whose_standing_has_changed_by_then_is_not_claimed(
    play: Play, owner: str | None
) -> None:
    async def story(store: Datastore) -> None:
        findings = audit(await read_books(store))
        stored = await store.get(Block, cidr_name(CIDR))
        assert stored is not None
        if owner == "node-0":
            await store.create(affinity(AffinityState.PENDING))
        elif owner is None:
            await store.delete(Block, cidr_name(CIDR), if_revision=stored.revision)
        else:
            await store.update(new_block(owner=owner), if_revision=stored.revision)
        before = await affinities(store)

        assert await Mending(store, sleep=no_sleep).mend(findings) == []

        assert await affinities(store) == before

    play([SMALL, Node("node-0"), new_block()], story)


def test_unfinished_claim_is_left_to_its_node(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await store.create(affinity(AffinityState.PENDING))

        assert await mend(store) == []
        assert await affinities(store) == [("node-0", str(CIDR), "pending")]

    play([SMALL, Node("node-0")], story)


@pytest.mark.parametrize("owner", ["node-0", "node-1", None])
def test_empty_block_in_no_pool_goes_with_its_affinity(play: Play, owner: str | None) -> None:
    async def story(store: Datastore) -> None:
        await store.create(arithmetic.new_block(CIDR, affinity=owner, sequence_number=1))
        if owner == "node-0":
            await store.create(affinity())

        assert await mend(store) == [f"deleted block {CIDR}, which was empty and in no pool"]
        assert await affinities(store) == []
        assert (await store.list(Block)).items == ()

    play([POOL, Node("node-0"), Node("node-1")], story)


def test_used_block_in_no_pool_stays(play: Play) -> None:
    async def story(store: Datastore) -> None:
        used, _ = arithmetic.auto_assign(new_block(), count=1, handle_id="a")
        await store.create(used)
        await store.create(affinity())
        await count(store, "a", ((CIDR, 1),))

        assert await mend(store) == []
        assert await kinds(store) == [Kind.BLOCK_WITHOUT_POOL]

    play([POOL, Node("node-0")], story)


def test_what_is_right_by_then_is_not_touched(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await store.create(new_block())
        await store.create(affinity())
        await count(store, "a", ((CIDR, 1),))
        findings = audit(await read_books(store))
        assert {one.kind for one in findings} == {Kind.BLOCK_WITHOUT_POOL, Kind.HANDLE_MISCOUNTS}
        await store.create(SMALL)
        await lose_handle(store, "a")

        assert await Mending(store, sleep=no_sleep).mend(findings) == []
        assert len((await store.list(Block)).items) == 1

    play([Node("node-0")], story)


def test_affinity_that_got_its_block_meanwhile_stays(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await store.create(affinity())
        findings = audit(await read_books(store))
        await store.create(new_block())

        assert await Mending(store, sleep=no_sleep).mend(findings) == []
        assert await affinities(store) == [("node-0", str(CIDR), "confirmed")]

    play([SMALL, Node("node-0")], story)


# --- beside others ------------------------------------------------------------------------------


def test_claim_that_believed_in_the_dropped_affinity_gets_it_back(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await store.create(affinity())
        findings = audit(await read_books(store))

        async def claim_meanwhile(call: Call) -> None:
            if (call.verb, call.kind) == ("delete", BlockAffinity):
                await store.create(new_block())

        faulty = FaultyDatastore(store, before=claim_meanwhile)

        assert await Mending(faulty, sleep=no_sleep).mend(findings) == []
        assert await affinities(store) == [("node-0", str(CIDR), "confirmed")]
        assert await kinds(store) == []

    play([SMALL, Node("node-0")], story)


def test_address_given_while_a_handle_is_recounted_is_counted(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await take(node(store), "a")
        await count(store, "a", ((CIDR, 1),))
        findings = audit(await read_books(store))
        given: list[str] = []

        async def give_meanwhile(call: Call) -> None:
            if (call.verb, call.kind) == ("update", Handle) and not given:
                given.extend(await take(node(store), "a"))

        faulty = FaultyDatastore(store, before=give_meanwhile)

        assert await Mending(faulty, sleep=no_sleep).mend(findings) == [
            "recounted handle a: 2 of 192.168.39.192/26"
        ]
        await check_books(store)

    play([POOL, Node("node-0")], story)


def test_block_that_is_used_while_it_is_deleted_stays(play: Play) -> None:
    async def story(store: Datastore) -> None:
        await store.create(arithmetic.new_block(STRAY, affinity=None, sequence_number=1))
        findings = audit(await read_books(store))

        async def use_meanwhile(call: Call) -> None:
            if call.verb == "delete":
                stored = await store.get(Block, cidr_name(STRAY))
                assert stored is not None
                used, _ = arithmetic.auto_assign(stored.value, count=1, handle_id="a")
                await store.update(used, if_revision=stored.revision)

        faulty = FaultyDatastore(store, before=use_meanwhile)

        assert await Mending(faulty, sleep=no_sleep).mend(findings) == []
        assert len((await store.list(Block)).items) == 1

    play([POOL], story)
