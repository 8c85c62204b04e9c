"""A tunnel's address of before there were handles and details: nobody's, and yet in use."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from pycni.datastore.faulty import FaultyDatastore
from pycni.errors import Conflict, PycniError, TryAgain
from pycni.ipam import block as arithmetic
from pycni.ipam.giving import assigned
from pycni.ipam.tunnel import tunnel_handle
from pycni.model.resources import (
    AllocationAttribute,
    Block,
    IPAMConfig,
    Node,
    PoolUse,
    Resource,
    TunnelMode,
    cidr_name,
)
from pycni.ports import Datastore
from tests.agent.death import Died
from tests.agent.ipam.allocators import (
    CIDR,
    SMALL,
    TUNNELLED,
    affinity,
    check_books,
    held_by,
    new_block,
    node,
    take,
    tunnel_of,
)
from tests.agent.ipam.conftest import Play
from tests.agent.ipam.faults import Failing
from tests.unit.written_books import SINCE

OLD = CIDR[2]
NODE = Node("node-0", ipip_tunnel_address=OLD)
HANDLE = tunnel_handle("node-0")
OTHER = replace(
    TUNNELLED,
    name="other",
    cidr=IPv4Network("10.9.0.0/24"),
    allowed_uses=frozenset({PoolUse.WORKLOAD}),
)


def old_block(attribute: AllocationAttribute | None = None, *, owner: str = "node-0") -> Block:
    """Return a block in which just the old address is given."""
    block = arithmetic.assign(new_block(owner=owner), OLD, handle_id="x")
    return replace(block, attributes=(attribute or AllocationAttribute(None),))


async def given(store: Datastore) -> list[tuple[str, str | None]]:
    return [
        (str(one.address), one.attribute.handle_id)
        for stored in (await store.list(Block)).items
        for one in arithmetic.given(stored.value)
    ]


@pytest.mark.parametrize("owner", ["node-0", "node-1"])
def test_an_address_that_the_node_uses_and_nobody_holds_gets_handle_and_details(
    play: Play, owner: str
) -> None:
    async def story(store: Datastore) -> None:
        tunnel = await tunnel_of(store, "node-0")

        assert tunnel is not None
        assert tunnel == OLD
        assert await given(store) == [(str(OLD), HANDLE)]
        await check_books(store)
        # From now on it is as any other.
        assert await tunnel_of(store, "node-0") == tunnel
        outcome = await node(store).release([assigned(tunnel, None)], handle_id=HANDLE)
        assert outcome.released == (OLD,)
        await check_books(store)

    claim = [affinity()] if owner == "node-0" else []
    play([TUNNELLED, NODE, old_block(owner=owner), *claim], story)


@pytest.mark.parametrize("has_owner", [True, False])
def test_where_no_pool_wants_a_tunnel_it_is_free_again(play: Play, *, has_owner: bool) -> None:
    async def story(store: Datastore) -> None:
        assert await tunnel_of(store, "node-0") is None

        assert await given(store) == []
        assert len((await store.list(Block)).items) == (1 if has_owner else 0)

    block = old_block() if has_owner else arithmetic.without_affinity(old_block())
    plain = replace(SMALL, ipip_mode=TunnelMode.NEVER)
    play([plain, NODE, block, *([affinity()] if has_owner else [])], story)


@pytest.mark.parametrize(
    "attribute",
    [
        AllocationAttribute("net.pod"),
        AllocationAttribute(None, (("pod", "web"),)),
    ],
    ids=["a handle", "a pod's details"],
)
def test_what_is_anybodys_stays_as_it_is(play: Play, attribute: AllocationAttribute) -> None:
    async def story(store: Datastore) -> None:
        tunnel = await tunnel_of(store, "node-0")

        assert tunnel is not None
        assert tunnel != OLD
        stored = await store.get(Block, cidr_name(CIDR))
        assert stored is not None
        assert attribute in stored.value.attributes

    play([TUNNELLED, NODE, old_block(attribute), affinity()], story)


@pytest.mark.parametrize("named", [None, IPv4Address("10.0.0.7"), IPv4Address("172.16.0.1")])
def test_what_the_node_does_not_name_is_not_its_own(play: Play, named: IPv4Address | None) -> None:
    async def story(store: Datastore) -> None:
        assert await tunnel_of(store, "node-0") is not None

        assert (str(OLD), None) in await given(store)

    other = Node("node-0", ipip_tunnel_address=named)
    play([TUNNELLED, other, old_block(), affinity()], story)


@pytest.mark.parametrize(
    "known",
    [[], [old_block(AllocationAttribute(None, released_at=SINCE)), affinity()]],
    ids=["without a block", "while it rests"],
)
def test_the_address_that_the_node_names_is_given_if_nobody_has_it(
    play: Play, known: list[Resource]
) -> None:
    async def story(store: Datastore) -> None:
        tunnel = await tunnel_of(store, "node-0")

        assert tunnel is not None
        assert await given(store) == [(str(OLD), HANDLE)]
        assert tunnel == OLD
        await check_books(store)

    play([TUNNELLED, NODE, *known, IPAMConfig(cooldown_s=1200)], story)


@pytest.mark.parametrize(
    ("named", "others"),
    [
        (OLD, [old_block(AllocationAttribute("net.pod")), affinity()]),
        (OLD, [new_block(owner="node-1"), IPAMConfig(is_strict_affinity=True)]),
        (OTHER.cidr[9], [OTHER]),
    ],
    ids=["a pod's", "strictly another node's", "of a pool without tunnels"],
)
def test_another_is_given_where_the_one_that_the_node_names_cannot_be(
    play: Play, named: IPv4Address, others: list[Resource]
) -> None:
    async def story(store: Datastore) -> None:
        tunnel = await tunnel_of(store, "node-0")

        assert tunnel is not None
        assert tunnel in TUNNELLED.cidr
        assert tunnel != named

    play([TUNNELLED, replace(NODE, ipip_tunnel_address=named), *others], story)


@pytest.mark.parametrize("is_atomic", [True, False])
@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("error", [TryAgain, Conflict, Died])
def test_whatever_fails_wherever_the_next_attempt_takes_it_over(
    play: Play, error: type[BaseException], *, late: bool, is_atomic: bool
) -> None:
    async def story(store: Datastore) -> None:
        original = await store.get(Block, cidr_name(CIDR))
        assert original is not None
        for at in range(1, 20):
            failing = Failing(store, at=at, error=error, late=late, is_atomic=is_atomic)
            assert isinstance(failing.datastore, FaultyDatastore)
            faulty = failing.datastore
            try:
                await tunnel_of(faulty, "node-0")
            except (PycniError, Died):
                await tunnel_of(store, "node-0")
            assert await held_by(store, HANDLE) == [str(OLD)]
            await check_books(store)
            if not failing.is_over:
                return
            # As it was before.
            await node(store).release_by_handle(HANDLE)
            stored = await store.get(Block, cidr_name(CIDR))
            assert stored is not None
            await store.update(original.value, if_revision=stored.revision)
        pytest.fail("it never got through")

    play([TUNNELLED, NODE, old_block(), affinity()], story)


def test_a_pod_that_is_faster_costs_an_attempt_only(play: Play) -> None:
    async def story(store: Datastore) -> None:
        pods: list[str] = []

        async def give_meanwhile(call: object) -> None:
            if getattr(call, "is_write", False) and not pods:
                pods.extend(await take(node(store), "pod"))

        faulty = FaultyDatastore(store, before=give_meanwhile, is_atomic=True)
        with pytest.raises(Conflict):
            await tunnel_of(faulty, "node-0")
        assert await tunnel_of(store, "node-0") is not None

        assert await held_by(store, HANDLE) == [str(OLD)]
        assert await held_by(store, "pod") == pods
        await check_books(store)

    play([TUNNELLED, NODE, old_block(), affinity()], story)
