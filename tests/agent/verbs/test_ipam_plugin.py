"""Addresses for other main plugins: given, checked, taken back, and never without need."""

import errno
import json
import os
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from pycni.cni.janitor import Janitor
from pycni.kernel.netns import is_gone, sight
from pycni.model.endpoints import EndpointState, NetnsSight
from pycni.model.resources import Block, IPPool
from tests.agent.cluster import POOL, NodeAgent
from tests.agent.verbs.lending import (
    GATEWAY,
    HANDLE,
    OWN_NETNS,
    SIX,
    check,
    ips,
    lend,
    of_bridge,
    watched,
)
from tests.agent.verbs.stories import (
    KEY,
    VETH,
    Proxy,
    ask,
    held,
    leftovers,
    play,
    reason,
    remembered,
)


def test_an_address_is_lent_without_an_interface(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await lend(node, dns={"domain": "example.org"})

        assert json.loads(reply.output) == {
            "cniVersion": "1.1.0",
            "ips": [{"address": "192.168.39.192/32"}],
            "routes": [],
            "dns": {"domain": "example.org"},
        }
        record = node.endpoints.get(KEY)
        assert record is not None
        assert (record.state, record.has_interface) == (EndpointState.READY, False)
        assert await leftovers(node) == [f"192.168.39.192 {HANDLE}", HANDLE, str(KEY)]
        assert (await check(node, reply)).status == 0
        assert (await lend(node)).status == 0
        for _ in range(2):
            assert (await lend(node, "DEL")).status == 0
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_block_gives_its_prefix_and_one_gateway_for_all(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        first = await lend(node, subnet="block")
        second = await node.cni("ADD", "second", config=of_bridge(subnet="block"))

        assert ips(first) == [{"address": "192.168.39.193/26", "gateway": "192.168.39.194"}]
        assert ips(second) == [{"address": "192.168.39.195/26", "gateway": "192.168.39.194"}]
        assert (await lend(node, subnet="block")).output == first.output
        assert (await check(node, first, subnet="block")).status == 0

    play(tmp_path, story)


def test_a_pool_gives_its_prefix_in_both_families(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await lend(node, subnet="pool", assign_ipv6=True)

        assert [one["address"].partition("/")[2] for one in ips(reply)] == ["16", "48"]
        assert all("gateway" not in one for one in ips(reply))

    play(tmp_path, story, pools=(POOL, SIX))


def test_both_families_have_gateways(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await lend(node, subnet="block", assign_ipv6=True)

        for one in ips(reply):
            assert ip_address(one["gateway"]) in ip_interface(one["address"]).network
        assert [line for line in await held(node) if GATEWAY in line] != []

    play(tmp_path, story, pools=(POOL, SIX))


def test_a_block_of_one_address_has_no_room_for_a_gateway(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        assert reason(await lend(node, subnet="block"))[0] == 7
        assert await leftovers(node) == []

    play(tmp_path, story, pools=(replace(POOL, block_size=32),))


def test_a_full_block_without_gateway_gives_the_address_back(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        assert (await node.cni("ADD", "before", config=of_bridge())).status == 0
        last = {"runtimeConfig": {"ips": ["10.0.0.1"]}}

        code, text = reason(await ask(node, "ADD", config=of_bridge(subnet="block") | last))

        assert code == 11
        assert "is full, and has no gateway" in text
        assert [line for line in await held(node) if HANDLE in line] == []

    play(tmp_path, story, pools=(IPPool("small", ip_network("10.0.0.0/31"), block_size=31),))


def test_a_borrowed_address_has_no_gateway(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        (stored,) = (await node.datastore.list(Block)).items
        theirs = replace(stored.value, affinity="node-9")
        await node.datastore.update(theirs, if_revision=stored.revision)

        code, text = reason(await lend(node, subnet="block"))

        assert code == 11
        assert "lies in a block of another node" in text

    async def with_a_block(node: NodeAgent) -> None:
        await node.cni("ADD", "before", config=of_bridge())
        await story(node)

    play(tmp_path, with_a_block, pools=(IPPool("one", ip_network("10.0.0.0/26")),))


@pytest.mark.parametrize("whose", [HANDLE, GATEWAY])
def test_check_finds_what_is_no_longer_held(tmp_path: Path, whose: str) -> None:
    async def story(node: NodeAgent) -> None:
        result = await lend(node, subnet="block")
        await node.allocator.release_by_handle(whose)

        code, text = reason(await check(node, result, subnet="block"))

        assert code == 101
        assert "is free in the datastore" in text

    play(tmp_path, story)


def test_what_cannot_be_released_is_owed(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await lend(node)
        node.switch.is_away = True

        assert (await lend(node, "DEL")).status == 0

        assert await remembered(node) == [f"{KEY} ['192.168.39.192']"]

    play(tmp_path, story)


def test_an_address_stays_where_its_record_can_not_be_marked(tmp_path: Path) -> None:
    """Released, it would look held to a repeated ADD, if we died before the record goes."""

    async def story(node: NodeAgent) -> None:
        def full(_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        assert (await lend(node)).status == 0
        node.engine.endpoints = Proxy(node.endpoints, put=full)

        assert reason(await lend(node, "DEL"))[0] == 5

        assert len(await held(node)) == 1
        node.engine.endpoints = node.endpoints
        assert (await lend(node, "DEL")).status == 0
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_pod_of_ours_that_turns_into_anothers_is_made_anew(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await ask(node, "ADD")
        await lend(node)
        assert await node.routes() == []
        assert node.kernel.link(VETH) is None

        await ask(node, "ADD")
        assert node.kernel.link(VETH) is not None
        assert len(await held(node)) == 1

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("change", "is_same"),
    [
        ({}, True),
        ({"netns": "/run/elsewhere"}, True),
        ({"sight": None}, True),
        ({"sight": None, "netns": "/run/elsewhere"}, False),
        ({"sight": NetnsSight(1, 2)}, False),
    ],
)
def test_a_repeated_add_gives_the_same_address_to_the_same_namespace(
    tmp_path: Path, change: dict[str, Any], is_same: bool
) -> None:
    async def story(node: NodeAgent) -> None:
        fd = os.open(OWN_NETNS, os.O_RDONLY)
        options = {"config": of_bridge(), "variables": {"CNI_NETNS": OWN_NETNS}, "fd": fd}
        first = await ask(node, "ADD", **options)
        record = node.endpoints.get(KEY)
        assert record is not None
        assert record.sight is not None
        seen = replace(record.sight, mount_namespace=1)  # by another's eyes
        node.endpoints.put(replace(record, **{"sight": seen, **change}))

        again = await ask(node, "ADD", **options)

        assert (again.output == first.output) is is_same
        assert len(await held(node)) == 1
        os.close(fd)

    play(tmp_path, story)


# --- life -----------------------------------------------------------------------------------------


async def lend_in(node: NodeAgent, path: Path) -> None:
    """Lend an address to a pod whose namespace is seen under a path."""
    await lend(node)
    record = node.endpoints.get(KEY)
    assert record is not None
    fd = os.open(path, os.O_RDONLY)
    seen = sight(str(path), fd)
    os.close(fd)
    assert seen is not None
    node.endpoints.put(replace(record, netns=str(path), sight=seen))


def test_an_allocation_lives_as_long_as_the_namespace_is_where_it_was(tmp_path: Path) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        path = tmp_path / "netns"
        path.touch()
        await lend_in(node, path)

        for _ in range(3):
            await janitor.once()
        assert len(await held(node)) == 1
        path.rename(tmp_path / "old")
        path.touch()  # another namespace of that name
        for _ in range(2):
            await janitor.once()

        assert await leftovers(node) == []

    watched(tmp_path, story)


def test_gc_without_a_list_takes_only_what_is_certainly_gone(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        path = tmp_path / "netns"
        path.touch()
        await lend_in(node, path)
        # Its path does not exist, and never was in sight.
        unseen = await node.cni("ADD", "unseen", config=of_bridge())
        assert unseen.status == 0

        for left in (2, 1):
            assert (await node.cni("GC", "", config=of_bridge())).status == 0
            assert len(await held(node)) == left
            path.unlink(missing_ok=True)

    play(tmp_path, story)


def test_a_pod_whose_record_is_lost_lives_as_long_as_its_namespace(tmp_path: Path) -> None:
    path = tmp_path / "netns"

    async def story(node: NodeAgent, janitor: Janitor) -> None:
        path.touch()
        lent = await ask(node, "ADD", config=of_bridge(), variables={"CNI_NETNS": str(path)})
        assert lent.status == 0
        node.endpoints.remove(KEY)

        for _ in range(3):
            await janitor.once()
        assert len(await held(node)) == 1
        path.unlink()
        for _ in range(2):
            await janitor.once()

        assert await held(node) == []

    watched(tmp_path, story)


def test_an_allocation_whose_namespace_was_never_seen_is_left_to_its_runtime(
    tmp_path: Path,
) -> None:
    async def story(node: NodeAgent, janitor: Janitor) -> None:
        await lend(node)  # its path does not exist, its descriptor is made up
        record = node.endpoints.get(KEY)
        assert record is not None
        assert record.sight is None

        for _ in range(3):
            await janitor.once()

        assert len(await held(node)) == 1

    watched(tmp_path, story)


def test_where_a_namespace_is_seen(tmp_path: Path) -> None:
    fd = os.open(OWN_NETNS, os.O_RDONLY)
    seen = sight(OWN_NETNS, fd)
    assert seen is not None
    assert seen.mount_namespace == Path("/proc/self/ns/mnt").stat().st_ino
    assert sight(str(tmp_path), fd) is None  # another file
    assert sight(str(tmp_path / "none"), fd) is None
    os.close(fd)


def test_what_is_certainly_gone(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        path = tmp_path / "netns"
        path.touch()
        await lend_in(node, path)
        record = node.endpoints.get(KEY)
        assert record is not None
        assert record.sight is not None

        assert not is_gone(record)
        # A loop of links can't be judged: it may be a file system that is away.
        assert not is_gone(replace(record, netns=loop(tmp_path)))
        assert is_gone(replace(record, netns=str(path / "below")))
        path.unlink()
        assert is_gone(record)
        assert not is_gone(replace(record, sight=NetnsSight(1, record.sight.inode)))
        assert not is_gone(replace(record, sight=None))

    play(tmp_path, story)


def loop(directory: Path) -> str:
    path = directory / "loop"
    path.symlink_to("loop")
    return str(path)


def test_an_interface_is_not_torn_down_for_addresses_alone(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        added = json.loads((await ask(node, "ADD")).output)
        before = await leftovers(node)
        chained = {"type": "macvlan", "ipam": {"type": "pycni-ipam"}, "prevResult": added}

        refused = await ask(node, "ADD", config=chained)

        code, text = reason(refused)
        assert (code, "has an interface of pycni's already" in text) == (7, True)
        assert await leftovers(node) == before
        assert (await ask(node, "CHECK", config={"prevResult": added})).status == 0

    play(tmp_path, story)
