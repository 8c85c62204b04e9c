"""What nobody holds any more is taken back, slowly; what shows life stays."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from pycni.cni.janitor import BOOT_ID, PERIOD_S, Boots, Janitor
from pycni.ipam.requests import AssignRequest, DatastoreView
from pycni.model.endpoints import PendingRelease
from pycni.model.network import NextHop, Route, RouteKey, Scope
from pycni.model.resources import BlockAffinity, IPPool, affinity_name
from tests.agent.cluster import NETWORK, POOL, NodeAgent
from tests.agent.verbs.stories import CONTAINER, KEY, POD, VETH, ask, held, leftovers, play

Story = Callable[[NodeAgent, Janitor], Awaitable[None]]


def watched(directory: Path, story: Story, **options: tuple[IPPool, ...]) -> None:
    async def main(node: NodeAgent) -> None:
        await story(node, Janitor(node.engine, view=DatastoreView(node.datastore)))

    play(directory, main, **options)


def lost(node: str = "node-0") -> AssignRequest:
    """Ask for an address as an ADD does whose record is lost afterwards."""
    said = {"network": NETWORK, "container": "lost", "interface": "eth0", "node": node}
    return AssignRequest(f"{NETWORK}.lost", attributes=tuple(said.items()))


# --- endpoints ----------------------------------------------------------------------------------


def test_a_pod_that_is_gone_is_taken_back_at_the_second_look(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await node.add(POD)
        node.kernel.delete_link(VETH)  # as with its namespace

        await janitor.once()
        assert await held(node) != []
        await janitor.once()

        assert await leftovers(node) == []

    watched(tmp_path, story)


def test_a_living_interface_keeps_its_endpoint_though_the_namespace_is_out_of_sight(
    tmp_path: Path,
) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await node.add(POD)
        record = node.endpoints.get(KEY)
        assert record is not None
        assert record.netns.startswith("/run/netns/default.")  # which does not exist

        for _ in range(3):
            await janitor.once()

        assert node.endpoints.get(KEY) == record

    watched(tmp_path, story)


def test_a_namespace_keeps_its_endpoint_though_the_interface_is_gone(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await node.add(POD)
        record = node.endpoints.get(KEY)
        assert record is not None
        node.endpoints.put(replace(record, netns="/proc/self/ns/net"))
        node.kernel.delete_link(VETH)

        for _ in range(3):
            await janitor.once()

        assert node.endpoints.get(KEY) is not None

    watched(tmp_path, story)


def test_a_pod_that_was_added_again_between_two_looks_stays(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await node.add(POD)
        node.kernel.delete_link(VETH)
        await janitor.once()
        await node.add(POD)
        before = node.endpoints.get(KEY)

        await janitor.once()

        assert node.endpoints.get(KEY) == before
        assert len(await held(node)) == 1

    watched(tmp_path, story)


def test_what_a_request_has_in_hand_waits(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await node.add(POD)
        node.kernel.delete_link(VETH)
        await janitor.once()
        async with node.endpoints.lock(KEY, timeout_s=0):
            await janitor.once()
            assert await held(node) != []

        await janitor.once()

        assert await leftovers(node) == []

    watched(tmp_path, story)


# --- addresses ----------------------------------------------------------------------------------


def test_an_address_without_endpoint_is_released_at_the_second_look(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await node.allocator.assign(lost())

        await janitor.once()
        assert await held(node) != []
        await janitor.once()

        assert await leftovers(node) == []

    watched(tmp_path, story)


def test_what_is_taken_back_is_counted(tmp_path: Path) -> None:
    events: list[str] = []

    async def story(node: NodeAgent) -> None:
        janitor = Janitor(node.engine, view=DatastoreView(node.datastore), observe=events.append)
        await node.allocator.assign(lost())
        await janitor.once()
        assert events == []

        await janitor.once()
        await janitor.once()

        assert events == ["collected"]

    play(tmp_path, story)


def test_after_a_reboot_an_address_without_endpoint_is_released_at_once(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await node.allocator.assign(lost())
        await node.add(POD)

        await janitor.once(is_certain=True)

        assert await held(node) == [f"192.168.39.193 {NETWORK}.{CONTAINER}"]

    watched(tmp_path, story)


def test_an_address_of_another_node_or_of_no_endpoint_stays(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await node.allocator.assign(lost("node-1"))
        await node.allocator.assign(AssignRequest("by-hand", attributes=(("node", "node-0"),)))

        for _ in range(3):
            await janitor.once()

        assert len(await held(node)) == 2

    watched(tmp_path, story)


def test_an_address_that_is_given_anew_between_two_looks_stays(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        given = await node.allocator.assign(lost())
        await janitor.once()
        await node.allocator.release_by_handle(f"{NETWORK}.lost")
        again = await node.allocator.assign(
            replace(lost(), addresses=(given.addresses[0].interface.ip,))
        )
        assert again.addresses[0].interface == given.addresses[0].interface

        await janitor.once()

        assert len(await held(node)) == 1

    watched(tmp_path, story)


def test_a_record_keeps_every_address_of_its_endpoint(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await node.add(POD, config={"ipam": {"assign_ipv6": True}})
        record = node.endpoints.get(KEY)
        assert record is not None
        # As if nobody but the datastore knew of the other one.
        node.endpoints.put(replace(record, addresses=record.addresses[:1]))

        for _ in range(3):
            await janitor.once()

        assert len(await held(node)) == 2

    six = IPPool("six", ip_network("fd00::/48"), block_size=122)
    watched(tmp_path, story, pools=(POOL, six))


def test_a_debt_is_not_the_janitors(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        given = await node.allocator.assign(lost())
        key = replace(KEY, container_id="lost")
        node.endpoints.journal(PendingRelease(key, f"{NETWORK}.lost", given.addresses))

        for _ in range(3):
            await janitor.once()

        assert len(await held(node)) == 1

    watched(tmp_path, story)


@pytest.mark.parametrize("sign", ["interface", "route"])
def test_what_shows_life_in_the_kernel_stays(tmp_path: Path, sign: str) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        given = await node.allocator.assign(lost())
        if sign == "interface":
            node.kernel.add_link("cali7", alias=f"pycni:{NETWORK}/lost/eth0")
        else:
            node.kernel.add_link("cali7")
            dst = ip_network(given.addresses[0].interface.ip)
            hop = frozenset({NextHop("cali7")})
            node.kernel.create_route(Route(RouteKey(dst), scope=Scope.LINK, next_hops=hop))

        for _ in range(3):
            await janitor.once()

        assert len(await held(node)) == 1

    watched(tmp_path, story)


def test_borrowed_addresses_are_found_by_a_look_at_all_blocks_only(tmp_path: Path) -> None:
    small = IPPool("small", ip_network("10.0.0.0/31"), block_size=31)

    async def story(node: NodeAgent, janitor: Janitor) -> None:
        other = type(node.allocator)(node.datastore, node="node-1")
        await other.assign(AssignRequest("theirs"))
        await node.allocator.assign(lost())
        for _ in range(3):
            await janitor.once(is_whole=False)
        assert len(await held(node)) == 2

        await janitor.once(is_whole=True)
        await janitor.once(is_whole=True)

        assert await held(node) == ["10.0.0.0 theirs"]

    watched(tmp_path, story, pools=(small,))


# --- the whole ----------------------------------------------------------------------------------


def test_a_datastore_that_is_away_costs_a_look_only(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await node.allocator.assign(lost())
        await janitor.once()
        node.switch.is_away = True
        with pytest.raises(Exception, match="can't be reached"):
            await janitor.once()
        node.switch.is_away = False
        await janitor.once()

        assert await leftovers(node) == []

    watched(tmp_path, story)


def test_it_looks_again_and_again(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await node.allocator.assign(lost())
        task = asyncio.create_task(janitor.run())
        await asyncio.sleep(2.5 * PERIOD_S)
        task.cancel()

        # The first and the sixteenth look are at all blocks, the others at the node's own.
        assert await leftovers(node) == []

    watched(tmp_path, story)


def test_a_damaged_record_is_nobodys_leak_and_keeps_no_other(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await ask(node, "ADD")
        await node.allocator.assign(lost())
        node.kernel.delete_link(VETH)
        path = node.endpoints.directory / node.endpoints.file_name(KEY)
        path.write_text("{")

        for _ in range(3):
            await janitor.once()

        assert len(await held(node)) == 1

    watched(tmp_path, story)


def test_a_boot_is_new_once(tmp_path: Path) -> None:
    current = tmp_path / "boot_id"
    current.write_text("one\n")
    boots = Boots(tmp_path, current=current)

    assert not boots.is_new()  # nobody knows
    assert not boots.is_new()
    current.write_text("two\n")
    assert boots.is_new()
    assert not boots.is_new()
    (tmp_path / "boot-id").write_bytes(b"\xff")
    assert not boots.is_new()


def test_a_boot_that_cannot_be_noted_is_not_new(tmp_path: Path) -> None:
    """Or else each start of the CNI server on a full disk would take it for certain again."""
    current = tmp_path / "boot_id"
    current.write_text("two\n")
    (tmp_path / "boot-id").write_text("one")
    (tmp_path / ".boot-id.new").mkdir()  # nobody writes there
    boots = Boots(tmp_path, current=current)

    assert not boots.is_new()

    (tmp_path / ".boot-id.new").rmdir()
    assert boots.is_new()


def test_the_kernel_has_an_id_for_each_boot() -> None:
    assert len(BOOT_ID.read_text().strip()) == 36


def test_a_block_to_which_the_node_has_no_affinity_is_taken_up(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await ask(node, "ADD")
        (affinity,) = (await node.datastore.list(BlockAffinity)).items
        name = affinity_name(node.name, cidr=affinity.value.cidr)
        await node.datastore.delete(BlockAffinity, name, if_revision=affinity.revision)

        await janitor.once()

        (again,) = (await node.datastore.list(BlockAffinity)).items
        assert again.value == affinity.value

    watched(tmp_path, story)
