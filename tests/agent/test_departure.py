"""A node leaves for good: withdrawn first, then given back."""

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from pycni.agent.departure import WITHDRAW_TIMEOUT_S
from pycni.agent.messages import Leaving
from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore
from pycni.errors import InvalidInput
from pycni.ipam.block import given
from pycni.model.resources import Block, Node
from tests.agent.exercise import exercise
from tests.agent.leaving import THEIRS, Member, empty, learned, under
from tests.virtual_time import run


def test_a_node_that_leaves_gives_back_all_and_costs_others_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, agent):
            member = Member(agent)
            await empty(agent)
            made.nodes["node-1"].kernel.applied.clear()
            async with member.running():
                member.departure.leave()
                await made.settle(2)

            assert member.state() == "left"
            assert await under(made, "node-0") == []
            assert member.retracted == 1
            assert await agent.routes() == []
            assert agent.kernel.link("tunl0") is None
            for name, others in (("node-1", THEIRS[1:]), ("node-2", THEIRS[:1])):
                assert learned(await made.nodes[name].routes()) == others
            assert len(made.nodes["node-1"].kernel.applied) <= 2  # our block's route, nftables

    run(story())


def test_peers_have_heard_before_anything_is_given_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, agent):
            seen: list[list[str]] = []

            async def look(call: Call) -> None:
                if call.is_write:
                    seen.append(learned(await made.nodes["node-1"].routes()))

            member = Member(agent, FaultyDatastore(MemoryDatastore(made.store), before=look))
            await empty(agent)
            async with member.running():
                await made.settle(2)
                seen.clear()
                member.departure.leave()
                await made.settle(2)

            assert len(seen) > 3
            assert {tuple(one) for one in seen} == {(THEIRS[1],)}

    run(story())


def test_nothing_happens_while_pods_are_here(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, agent):
            member = Member(agent)
            before = await under(made, "node-0")
            async with member.running():
                with pytest.raises(InvalidInput, match=r"here: default/web-node-0\. Have them"):
                    member.departure.leave()
                await made.settle(5)

            assert (member.state(), member.wish.is_there()) == ("member", False)
            assert await under(made, "node-0") == before
            assert await agent.add("default/another")

    run(story())


def test_the_last_pod_of_a_node_that_leaves_takes_its_announcements_along(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, agent):
            agent.post(Leaving(is_wanted=True))  # and a pod was let in before the engine knew
            await made.settle(1)
            early = learned(await made.nodes["node-1"].routes())

            await empty(agent)
            await made.settle(2)

            assert early == ["192.168.39.192/26", "192.168.247.0/26"]
            assert learned(await made.nodes["node-1"].routes()) == ["192.168.247.0/26"]

    run(story())


def test_many_pods_are_named_in_part(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (_, agent):
            for number in range(11):
                await agent.add(f"default/x{number}")

            with pytest.raises(InvalidInput, match=r"default/x7 and 2 more\."):
                Member(agent).departure.leave()

    run(story())


def test_a_record_that_cant_be_read_may_be_a_pods(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (_, agent):
            await empty(agent)
            (agent.endpoints.directory / "x.json").write_text("{")

            with pytest.raises(InvalidInput, match="cannot tell which pods are here"):
                Member(agent).departure.leave()

    run(story())


def test_no_pod_is_let_in_until_the_node_joins_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, agent):
            member = Member(agent)
            await empty(agent)
            async with member.running():
                member.departure.leave()
                refused = json.loads((await agent.cni("ADD", "c9", pod="default/late")).output)
                status = json.loads((await agent.cni("STATUS", "")).output)
                await made.settle(2)
                still = json.loads((await agent.cni("ADD", "c9", pod="default/late")).output)
                await agent.delete("default/unknown")

                member.departure.join()
                await made.settle(2)
                await agent.add("default/late")
                await made.settle(2)

            assert (refused["code"], still["code"], status["code"]) == (11, 11, 50)
            assert "pycnictl node join" in refused["msg"]
            assert member.state() == "member"
            assert "node node-0" in await under(made, "node-0")
            assert "192.168.39.192/26" in learned(await made.nodes["node-1"].routes())
            assert agent.troubles["membership"] == ""

    run(story())


def test_a_peer_that_is_down_is_waited_for_and_then_named(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, agent):
            await empty(agent)
            await made.nodes["node-2"].stop()
            member = Member(agent)
            async with member.running():
                member.departure.leave()
                await made.settle(WITHDRAW_TIMEOUT_S - 1)
                early = member.state()
                await made.settle(3)

            assert (early, member.state()) == ("leaving", "left")
            assert await under(made, "node-0") == []

    run(story())


def test_the_kubelets_object_loses_only_what_is_ours(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, agent):
            store = MemoryDatastore(made.store)
            stored = await store.get(Node, "node-0")
            assert stored is not None
            kubelets = Node(
                "node-0",
                as_number=64513,
                labels=(("zone", "a"),),
                internal_ips=(ip_address("10.10.7.20"),),
            )
            both = replace(
                kubelets,
                ipv4=stored.value.ipv4,
                ipip_tunnel_address=stored.value.ipip_tunnel_address,
            )
            await store.update(both, if_revision=stored.revision)
            await empty(agent)
            member = Member(agent, makes_node=False)
            async with member.running():
                member.departure.leave()
                await made.settle(3)
                left = await store.get(Node, "node-0")
                member.departure.join()
                await made.settle(3)

            assert left is not None
            assert left.value == kubelets
            back = await store.get(Node, "node-0")
            assert back is not None
            assert back.value.ipv4 == both.ipv4

    run(story())


def test_what_others_have_borrowed_stays_theirs(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, agent):
            await made.nodes["node-1"].add("default/guest", args="IP=192.168.39.199")
            await agent.add("default/abroad", args="IP=192.168.84.140")
            await made.settle()
            await empty(agent)
            await agent.delete("default/abroad")
            member = Member(agent)
            async with member.running():
                member.departure.leave()
                await made.settle(3)

            store = MemoryDatastore(made.store)
            block = await store.get(Block, "192-168-39-192-26")
            assert block is not None
            assert block.value.affinity is None
            assert [str(one.address) for one in given(block.value)] == ["192.168.39.199"]
            assert await under(made, "node-0") == []
            assert ip_network("192.168.39.199/32") in made.nodes["node-1"].facts.inputs.pods

    run(story())
