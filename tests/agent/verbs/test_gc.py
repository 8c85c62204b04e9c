"""GC: what nobody lists goes, what belongs to others stays."""

from dataclasses import replace
from pathlib import Path

from pycni.datastore.faulty import Call
from pycni.errors import TryAgain
from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import AssignRequest
from pycni.model.endpoints import EndpointKey
from pycni.model.resources import Block
from tests.agent.cluster import NETWORK, NodeAgent
from tests.agent.verbs.stories import (
    CONTAINER,
    KEY,
    POD,
    VETH,
    Proxy,
    address_in,
    collect,
    faulty,
    held,
    incur_debt,
    leftovers,
    play,
    reason,
    remembered,
)


def test_gc_removes_what_is_not_listed_and_leaves_other_networks(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        kept = await node.add("default/kept")
        await node.add("default/gone")
        other = await node.add("default/other", config={"name": "other"})

        reply = await collect(node, "default.kept")

        assert reply.status == 0, reply.output
        assert await held(node) == [
            f"{kept} {NETWORK}.default.kept",
            f"{other} other.default.other",
        ]
        assert [e.key.container_id for e in node.endpoints.list()] == [
            "default.kept",
            "default.other",
        ]

    play(tmp_path, story)


def lost(node: str, *, container: str = "lost", network: str = NETWORK) -> AssignRequest:
    """Ask for an address as an ADD does whose record is lost afterwards."""
    said = {"network": network, "container": container, "interface": "eth0", "node": node}
    return AssignRequest(f"{network}.{container}", attributes=tuple(sorted(said.items())))


def test_gc_releases_handles_that_lost_their_record(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.allocator.assign(lost("node-0"))
        elsewhere = Allocator(node.datastore, node="node-1")
        await elsewhere.assign(lost("node-1", container="theirs"))

        await collect(node)

        assert [line.split()[1] for line in await held(node)] == [f"{NETWORK}.theirs"]

    play(tmp_path, story)


def test_gc_spares_what_another_network_has_under_the_same_handle(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        other = await node.cni("ADD", "c", config={"name": f"{NETWORK}.b"})
        await node.allocator.assign(lost("node-0", container="b.c"))

        await collect(node)

        assert await held(node) == [f"{address_in(other)} {NETWORK}.b.c"]

    play(tmp_path, story)


def test_gc_of_one_network_spares_another_whose_name_begins_alike(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.allocator.assign(lost("node-0", network=f"{NETWORK}.blue"))

        await collect(node)

        assert [line.split()[1] for line in await held(node)] == [f"{NETWORK}.blue.lost"]

    play(tmp_path, story)


def test_gc_without_a_list_removes_only_what_is_evidently_dead(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        out_of_sight = await node.add("default/out-of-sight")  # its path does not exist
        living = await node.add("default/without-interface")
        for record in node.endpoints.list():
            if record.pod_name == "without-interface":
                node.endpoints.put(replace(record, netns=str(tmp_path)))
                node.kernel.delete_link(record.host_veth)
        node.kernel.delete_link(VETH)  # as with its namespace

        reply = await node.cni("GC", "")

        assert reply.status == 0
        assert await held(node) == [
            f"{out_of_sight} {NETWORK}.default.out-of-sight",
            f"{living} {NETWORK}.default.without-interface",
        ]

    play(tmp_path, story)


def test_gc_pays_debts(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await incur_debt(node)
        node.switch.is_away = False

        await node.cni("GC", "")

        assert await remembered(node) == []
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_gc_that_can_not_do_all_does_the_rest_and_says_so(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add("default/one")
        await node.add("default/two")
        key = EndpointKey(NETWORK, "default.one", "eth0")

        async with node.other_engine().lock(key, timeout_s=0):
            reply = await collect(node)

        assert reason(reply)[0] == 11
        assert "default.one" in reason(reply)[1]
        assert [e.key.container_id for e in node.endpoints.list()] == ["default.one"]

    play(tmp_path, story)


def test_gc_names_handles_that_could_not_be_released(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.allocator.assign(lost("node-0"))

        async def away(_handle: str, *, key: EndpointKey, was_used: bool) -> None:
            assert (key.container_id, was_used) == ("lost", True)
            raise TryAgain("the datastore is away")

        node.engine.allocator = Proxy(node.allocator, release_by_handle=away)  # type: ignore[assignment]  # by delegation

        assert reason(await collect(node)) == (
            11,
            f"GC could not remove everything: {NETWORK}.lost: the datastore is away",
        )

    play(tmp_path, story)


def test_a_damaged_record_keeps_no_other_from_being_collected(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        await node.add("default/other")
        (node.endpoints.directory / node.endpoints.file_name(KEY)).write_text("{")

        code, text = reason(await collect(node))

        assert code == 11
        assert "cannot read" in text
        assert node.endpoints.readable()[0] == []
        assert await held(node) == [f"192.168.39.192 {NETWORK}.{CONTAINER}"]

    play(tmp_path, story)


def test_an_add_that_runs_beside_a_gc_keeps_its_address(tmp_path: Path) -> None:
    """The GC has looked at the records; then an ADD takes its address; then it looks at handles."""

    async def story(node: NodeAgent) -> None:
        datastore = faulty(node)
        given: list[str] = []

        async def add_meanwhile(call: Call) -> None:
            if call.verb == "list" and call.kind is Block:
                datastore.before = node.switch.check
                given.append(await node.add(POD))

        datastore.before = add_meanwhile

        reply = await collect(node)

        assert reply.status == 0, reply.output
        assert await held(node) == [f"{address} {NETWORK}.{CONTAINER}" for address in given]
        (record,) = node.endpoints.list()
        assert (record.key, [str(a.interface.ip) for a in record.addresses]) == (KEY, given)

    play(tmp_path, story)
