"""ADD: what it makes, the same when it is repeated, and what it refuses."""

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from pycni.cni.main import Reply
from pycni.ipam.requests import AssignRequest
from pycni.model.endpoints import EndpointState
from pycni.model.resources import Block, IPPool
from tests.agent.cluster import NETWORK, POOL, NodeAgent
from tests.agent.verbs.lending import lend
from tests.agent.verbs.stories import (
    CONTAINER,
    KEY,
    POD,
    VETH,
    address_in,
    ask,
    held,
    leftovers,
    play,
    reason,
)

SIX = IPPool("six", ip_network("fd00::/48"), block_size=122)


def test_an_add_gives_address_interface_route_and_record(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await ask(node, "ADD")

        result = json.loads(reply.output)
        record = node.endpoints.get(KEY)
        assert reply.status == 0
        assert result["ips"] == [
            {"address": "192.168.39.192/32", "interface": 1, "gateway": "169.254.1.1"}
        ]
        assert result["interfaces"][1]["mtu"] == 1500
        assert await node.routes() == [f"192.168.39.192 dev {VETH} scope link"]
        assert await held(node) == [f"192.168.39.192 {NETWORK}.{CONTAINER}"]
        assert record is not None
        assert (record.state, record.host_veth, record.pod_name) == (
            EndpointState.READY,
            VETH,
            "web",
        )

    play(tmp_path, story)


def test_the_address_says_whose_it_is(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        node.engine.clock = lambda: 0.0
        await node.add(POD)

        (stored,) = (await node.datastore.list(Block)).items
        assert dict(stored.value.attributes[0].secondary) == {
            "network": NETWORK,
            "container": CONTAINER,
            "interface": "eth0",
            "namespace": "default",
            "node": "node-0",
            "pod": "web",
            "timestamp": "1970-01-01 00:00:00.000000 +0000 UTC",
        }

    play(tmp_path, story)


def test_a_repeated_add_gives_the_same_result(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        replies = [await ask(node, "ADD", fd=7) for _ in range(3)]

        assert replies[0].status == 0
        assert len({r.output for r in replies}) == 1
        assert len(await held(node)) == 1

    play(tmp_path, story)


def test_a_repeated_add_repairs_what_was_broken(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        first = await node.add(POD, fd=7)
        node.kernel.delete_link(VETH)

        again = await node.add(POD, fd=7)

        assert again == first
        assert await node.routes() == [f"{again} dev {VETH} scope link"]
        assert len(await held(node)) == 1

    play(tmp_path, story)


def test_a_repeated_add_after_the_host_end_was_renamed_keeps_the_address(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        first = await node.add(POD, fd=7)
        node.kernel.rename_link(VETH, to="lan0")

        assert await node.add(POD, fd=7) == first
        assert node.kernel.link("lan0") is None
        assert await node.routes() == [f"{first} dev {VETH} scope link"]
        assert len(await held(node)) == 1

    play(tmp_path, story)


def test_a_repeated_add_gives_another_address_for_one_that_is_somebody_elses_by_now(
    tmp_path: Path,
) -> None:
    async def story(node: NodeAgent) -> None:
        first = await node.add(POD, fd=7)
        await node.allocator.release_by_handle(f"{NETWORK}.{CONTAINER}")
        node.kernel.delete_link(VETH)
        assert await node.add("default/other", args=f"IP={first}") == first

        again = await node.add(POD, fd=7)

        assert await held(node) == [
            f"{first} {NETWORK}.default.other",
            f"{again} {NETWORK}.{CONTAINER}",
        ]

    play(tmp_path, story)


def test_a_requested_address_is_given(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        assert await node.add(POD, args="IP=192.168.200.7") == "192.168.200.7"

    play(tmp_path, story)


def test_both_families_are_given_on_request(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        config = {"ipam": {"assign_ipv6": True}}

        reply = await ask(node, "ADD", config=config)

        assert json.loads(reply.output)["ips"][0]["address"] == "192.168.39.192/32"
        assert len(await held(node)) == 2
        assert [line for line in await node.ip_route(6) if VETH in line]

    play(tmp_path, story, pools=(POOL, SIX))


def test_ipv6_alone_is_given_on_request(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await ask(
            node, "ADD", config={"ipam": {"assign_ipv4": "false", "assign_ipv6": "true"}}
        )

        (ip,) = json.loads(reply.output)["ips"]
        address, _, length = ip["address"].partition("/")
        assert (ip_address(address) in SIX.cidr, length) == (True, "128")
        assert await held(node) == [f"{address} {NETWORK}.{CONTAINER}"]
        assert [line for line in await node.ip_route(6) if VETH in line]
        assert await node.routes() == []
        await node.delete(POD)
        assert await leftovers(node) == []

    play(tmp_path, story, pools=(POOL, SIX))


@pytest.mark.parametrize("named", [{"ipv4_pools": [POOL.name]}, {"ipv6_pools": ["fd00::/48"]}])
def test_naming_pools_of_one_family_leaves_the_other_one_free(
    tmp_path: Path, named: dict[str, Any]
) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await ask(node, "ADD", config={"ipam": {"assign_ipv6": "true", **named}})

        assert reply.status == 0, reply.output
        assert len(await held(node)) == 2

    play(tmp_path, story, pools=(POOL, SIX))


def test_a_stated_mtu_counts(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await ask(node, "ADD", config={"mtu": 1400})

        assert json.loads(reply.output)["interfaces"][0]["mtu"] == 1400

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"config": {"nodename": "node-9"}}, 7, "this node is 'node-0'"),
        ({"config": {"ipam": {"ipv4_pools": ["nothing"]}}}, 7, "nothing"),
        ({"args": "IP=10.9.9.9"}, 7, "10.9.9.9"),
        ({"config": {"mtu": 60}}, 7, "mtu"),
        (
            {"config": {"ipam": {"ipv4_pools": ["six"]}}},
            7,
            "six (fd00::/48): name it in ipv6_pools",
        ),
        ({"fd": -1}, 4, "CNI_NETNS: the pod's network namespace is the host's own"),
    ],
)
def test_a_bad_request_leaves_the_node_unchanged(
    tmp_path: Path, options: dict[str, Any], code: int, words: str
) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await ask(node, "ADD", **options)

        assert reply.status == 1
        assert reason(reply)[0] == code
        assert words in reason(reply)[1]
        assert await leftovers(node) == []

    play(tmp_path, story, pools=(POOL, SIX))


def test_an_exhausted_pool_says_try_again(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        for number in range(4):
            await node.add(f"default/web-{number}")

        reply = await ask(node, "ADD")

        assert reason(reply)[0] == 11
        assert len(await held(node)) == 4
        assert node.endpoints.get(KEY) is None

    tiny = replace(POOL, cidr=ip_network("192.168.0.0/30"), block_size=30)
    play(tmp_path, story, pools=(tiny,))


@pytest.mark.parametrize("is_lent", [False, True])
def test_a_repeated_add_gives_no_address_that_is_no_longer_held(
    tmp_path: Path, *, is_lent: bool
) -> None:
    """Such as after `pycnictl ipam release`: the next pod may have got it."""

    async def story(node: NodeAgent) -> None:
        async def add() -> Reply:
            return await lend(node) if is_lent else await ask(node, "ADD")

        await add()
        record = node.endpoints.get(KEY)
        assert record is not None
        await node.allocator.release(record.addresses, handle_id=record.handle_id)
        lost = [str(one.interface.ip) for one in record.addresses]
        others = await node.allocator.assign(
            AssignRequest("other", addresses=(ip_address(lost[0]),))
        )
        assert [str(one.interface.ip) for one in others.addresses] == lost

        again = await add()

        assert again.status == 0
        assert address_in(again) not in lost
        mine, theirs = sorted(await held(node), key=lambda line: line.endswith(" other"))
        assert mine.startswith(f"{address_in(again)} ")
        assert theirs == f"{lost[0]} other"

    play(tmp_path, story)
