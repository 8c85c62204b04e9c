"""What every implementation of the `Datastore` door does with objects, whatever it is made of."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Network

import pytest

from pycni.errors import AlreadyExists, Conflict, NotFound, TryAgain
from pycni.model.resources import (
    AffinityState,
    AllocationAttribute,
    AssignmentMode,
    Block,
    BlockAffinity,
    Handle,
    IPAMConfig,
    IPPool,
    IPReservation,
    Node,
    PoolUse,
    Resource,
    TunnelMode,
    resource_name,
)
from pycni.model.resources_bgp import (
    BGPConfiguration,
    BGPFilter,
    BGPPeer,
    FilterAction,
    FilterRule,
    MatchOperator,
    PrefixAdvertisement,
    PrefixMatch,
)
from pycni.ports import Creation, Datastore, Deletion, Replacement, Revision, Write
from tests.contract.datastore.conftest import Session
from tests.contract.datastore.stories import V4, handle, run, run_two, stop, take

V6 = IPv6Network("fd00::/126")

VALUES: list[Resource] = [
    IPPool(
        "pool",
        IPv4Network("192.168.0.0/16"),
        ipip_mode=TunnelMode.CROSS_SUBNET,
        nat_outgoing=True,
        is_disabled=True,
        disable_bgp_export=True,
        node_selector="!all()",
        allowed_uses=frozenset({PoolUse.TUNNEL}),
        assignment_mode=AssignmentMode.MANUAL,
    ),
    IPPool("six", IPv6Network("fd00::/48"), block_size=122),
    Node(
        "node-0",
        ipv4=IPv4Interface("10.10.7.20/20"),
        as_number=65001,
        ipip_tunnel_address=IPv4Address("192.168.39.192"),
        labels=(("a", "b"), ("c", "")),
        reflector_cluster_id=IPv4Address("10.0.0.9"),
    ),
    IPReservation("kept", (IPv4Network("192.168.0.0/30"), IPv6Network("fd00::1/128"))),
    Node("bare"),
    BGPPeer("peer", IPv4Address("10.0.0.1"), 65001, node="node-0", port=1179, is_called_back=False),
    BGPPeer(
        "reflectors",
        node_selector="!has(reflects)",
        peer_selector="has(reflects)",
        local_as=65002,
        restart_time_s=90,
        allowed_own_as=1,
        hops=3,
        filters=("one", "two"),
    ),
    BGPFilter(
        "one",
        export_v4=(
            FilterRule(
                FilterAction.ACCEPT,
                PrefixMatch(IPv4Network("10.0.0.0/8"), MatchOperator.IN, 16, 24),
                interface="cali*",
            ),
            FilterRule(FilterAction.REJECT),
        ),
        import_v6=(
            FilterRule(
                FilterAction.REJECT,
                PrefixMatch(IPv6Network("fd00::/48"), MatchOperator.NOT_EQUAL),
                is_for_learned=True,
            ),
        ),
    ),
    BGPConfiguration(
        as_number=65000,
        is_node_mesh_enabled=False,
        listen_port=1179,
        mesh_restart_time_s=300,
        communities=(("one", "1:2"), ("large", "1:2:4294967295")),
        prefix_advertisements=(PrefixAdvertisement(V4, ("one", "65535:0")),),
    ),
    IPAMConfig(
        is_strict_affinity=True,
        is_auto_allocating_blocks=False,
        max_blocks_per_host=3,
        cooldown_s=60,
    ),
    BlockAffinity("node-0", V4, AffinityState.PENDING_DELETION),
    Block(
        V4,
        "node-0",
        allocations=(None, 0, 1, 0),
        unallocated=(0,),
        attributes=(
            AllocationAttribute("h", (("node", "n"), ("pod", "ü\u2028"))),
            AllocationAttribute(None, released_at="2026-01-01T00:00:00Z"),
        ),
        sequence_number=2**63 - 1,
        sequence_numbers=(None, 5, 2**62, None),
    ),
    Block(V6, None, (None,) * 4, (3, 2, 1, 0), sequence_numbers=(None,) * 4),
    Handle("Net.ABC", ((V4, 2), (V6, 1))),
    Handle("empty"),
]
# Kubernetes holds no text that is no Unicode, no larger numbers, and no secrets in plain sight.
LOCAL_VALUES: list[Resource] = [
    BGPPeer("peer", IPv4Address("10.0.0.1"), 65001, password="p"),  # noqa: S106
    BGPConfiguration(mesh_password="p"),  # noqa: S106
    Block(
        V4,
        "node-0",
        allocations=(None, 0, None, None),
        unallocated=(0, 2, 3),
        attributes=(AllocationAttribute("h", (("pod", "\ud800"),)),),
        sequence_number=2**63 + 1,
        sequence_numbers=(None, 2**63, None, None),
    ),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_every_kind_comes_back_as_it_went_in(session: Session, value: Resource) -> None:
    async def story(one: Datastore, other: Datastore) -> None:
        created = await one.create(value)

        assert await other.get(type(value), resource_name(value)) == created
        assert (await other.list(type(value))).items == (created,)
        assert created.value == value
        updated = await other.update(value, if_revision=created.revision)
        assert await one.get(type(value), resource_name(value)) == updated
        await one.delete(type(value), resource_name(value), if_revision=updated.revision)
        assert await other.get(type(value), resource_name(value)) is None

    run_two(session, story)


@pytest.mark.parametrize("value", LOCAL_VALUES, ids=lambda value: type(value).__name__)
def test_what_only_a_local_store_holds_comes_back_too(
    local_session: Session, value: Resource
) -> None:
    test_every_kind_comes_back_as_it_went_in(local_session, value)


def test_absent_objects_are_none(session: Session) -> None:
    async def story(store: Datastore) -> None:
        await store.create(handle("a"))

        assert await store.get(Handle, "b") is None
        assert await store.get(Node, "a") is None
        assert (await store.list(Node)).items == ()

    run(session, story)


def test_lists_are_in_the_order_of_names(session: Session) -> None:
    async def story(store: Datastore) -> None:
        for name in ("b", "a.10", "a", "a.9", "c-d"):
            await store.create(handle(name))

        listing = await store.list(Handle)

        assert [one.value.id for one in listing.items] == ["a", "a.10", "a.9", "b", "c-d"]

    run(session, story)


def test_a_name_is_created_once(session: Session) -> None:
    async def story(one: Datastore, other: Datastore) -> None:
        first = await one.create(handle("A"))

        with pytest.raises(AlreadyExists, match="cannot create IPAMHandle a: it exists"):
            await other.create(handle("a", 2))
        assert await one.get(Handle, "a") == first

    run_two(session, story)


def test_an_update_needs_the_current_revision(session: Session) -> None:
    async def story(one: Datastore, other: Datastore) -> None:
        first = await one.create(handle("a"))
        second = await other.update(handle("a", 2), if_revision=first.revision)

        with pytest.raises(Conflict, match="cannot update IPAMHandle a: it was changed"):
            await one.update(handle("a", 3), if_revision=first.revision)
        assert await one.get(Handle, "a") == second
        assert second.revision != first.revision

    run_two(session, story)


def test_a_delete_needs_the_current_revision(session: Session) -> None:
    async def story(store: Datastore) -> None:
        first = await store.create(handle("a"))
        second = await store.update(handle("a", 2), if_revision=first.revision)

        with pytest.raises(Conflict):
            await store.delete(Handle, "a", if_revision=first.revision)
        await store.delete(Handle, "a", if_revision=second.revision)
        assert await store.get(Handle, "a") is None

    run(session, story)


def test_what_is_gone_is_not_found(session: Session) -> None:
    async def story(store: Datastore) -> None:
        first = await store.create(handle("a"))
        await store.delete(Handle, "a", if_revision=first.revision)

        with pytest.raises(NotFound, match="cannot update IPAMHandle a: it does not exist"):
            await store.update(handle("a"), if_revision=first.revision)
        with pytest.raises(NotFound):
            await store.delete(Handle, "a", if_revision=first.revision)

    run(session, story)


def test_several_writes_are_done_in_order(session: Session) -> None:
    async def story(one: Datastore, other: Datastore) -> None:
        a = await one.create(handle("a"))
        b = await one.create(handle("b"))

        written = await one.write(
            [
                Creation(handle("c")),
                Replacement(handle("a", 2), a.revision),
                Deletion(Handle, "b", b.revision),
                Creation(handle("b", 7)),
            ]
        )

        assert [None if s is None else s.value for s in written] == [
            handle("c"),
            handle("a", 2),
            None,
            handle("b", 7),
        ]
        for stored in written:
            if stored is not None:
                assert await other.get(Handle, stored.value.id) == stored

    run_two(session, story)


@pytest.mark.parametrize("refused", [AlreadyExists, Conflict, NotFound])
def test_of_several_writes_none_is_done_when_one_is_refused(
    local_session: Session, refused: type[Exception]
) -> None:
    async def story(one: Datastore, other: Datastore) -> None:
        a = await one.create(handle("a"))
        b = await one.create(handle("b"))
        newer = await other.update(handle("b", 5), if_revision=b.revision)
        lasts: dict[type[Exception], Write] = {
            AlreadyExists: Creation(handle("b", 3)),
            Conflict: Deletion(Handle, "b", b.revision),
            NotFound: Replacement(handle("d"), b.revision),
        }

        with pytest.raises(refused):
            await one.write(
                [Creation(handle("c")), Replacement(handle("a", 2), a.revision), lasts[refused]]
            )

        for store in (one, other):
            assert await store.get(Handle, "a") == a
            assert await store.get(Handle, "b") == newer
            assert await store.get(Handle, "c") is None
        cursor = (await one.list(Handle)).cursor
        assert (await other.create(handle("c"))).value == handle("c")
        watch = one.watch(Handle, after=cursor)
        assert [change.name for change in await take(watch, 1)] == ["c"]
        await stop(watch)

    run_two(local_session, story)


def test_a_recreated_object_has_another_revision(session: Session) -> None:
    async def story(store: Datastore) -> None:
        first = await store.create(handle("a"))
        await store.delete(Handle, "a", if_revision=first.revision)
        second = await store.create(handle("a"))

        assert second.revision != first.revision
        with pytest.raises(Conflict):
            await store.update(handle("a", 2), if_revision=first.revision)

    run(session, story)


@pytest.mark.parametrize(
    "kind", [BlockAffinity, Block, Handle], ids=lambda kind: str(kind.__name__)
)
def test_a_recreated_object_is_not_deleted_by_who_has_seen_the_former(
    session: Session, kind: type[Resource]
) -> None:
    value = next(one for one in VALUES if isinstance(one, kind))

    async def story(one: Datastore, other: Datastore) -> None:
        name = resource_name(value)
        former = await one.create(value)
        await other.delete(kind, name, if_revision=former.revision)
        current = await other.create(value)

        with pytest.raises(Conflict):
            await one.delete(kind, name, if_revision=former.revision)
        with pytest.raises(Conflict):
            await one.write([Deletion(kind, name, former.revision)])
        assert await one.get(kind, name) == current

    run_two(session, story)


def test_a_foreign_revision_is_a_conflict(session: Session) -> None:
    async def story(store: Datastore) -> None:
        await store.create(handle("a"))

        with pytest.raises(Conflict):
            await store.update(handle("a", 2), if_revision=Revision("no such thing"))

    run(session, story)


def test_a_closed_handle_refuses_work(session: Session) -> None:
    async def story(one: Datastore, other: Datastore) -> None:
        await one.close()

        with pytest.raises(TryAgain, match="closed"):
            await one.get(Handle, "a")
        assert await other.get(Handle, "a") is None

    run_two(session, story)
