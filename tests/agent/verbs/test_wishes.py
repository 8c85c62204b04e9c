"""ADD and CHECK with what a runtime wishes, and behind other plugins of a list."""

import json
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from pycni.model.resources import IPPool
from tests.agent.cluster import NETWORK, POOL, NodeAgent
from tests.agent.verbs.stories import CONTAINER, KEY, POD, ask, held, leftovers, play, reason

MAC = "02:00:00:00:00:0a"
BEFORE = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "br0", "mac": "02:00:00:00:00:09"}],
    "ips": [{"address": "10.1.0.2/24", "interface": 0}],
    "routes": [{"dst": "10.0.0.0/8", "gw": "10.1.0.1"}],
}


@pytest.mark.parametrize(
    "wish",
    [
        {"config": {"runtimeConfig": {"ips": ["192.168.39.200/24"], "mac": MAC}}},
        {"config": {"args": {"cni": {"ips": ["192.168.39.200"], "mac": MAC}}}},
        {"args": f"IP=192.168.39.200;MAC={MAC}"},
    ],
    ids=["capabilities", "args", "CNI_ARGS"],
)
def test_address_and_mac_are_given_as_wished(tmp_path: Path, wish: dict[str, Any]) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await ask(node, "ADD", **wish)

        result = json.loads(reply.output)
        assert [ip["address"] for ip in result["ips"]] == ["192.168.39.200/32"]
        assert result["interfaces"][1]["mac"] == MAC
        record = node.endpoints.get(KEY)
        assert record is not None
        assert record.pod_mac == MAC
        assert (await ask(node, "CHECK", config={"prevResult": result})).status == 0

    play(tmp_path, story)


def test_an_address_is_given_as_wished_again_after_its_del(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        for _ in range(3):
            assert await node.add(POD, args="IP=192.168.39.200") == "192.168.39.200"
            assert await held(node) == [f"192.168.39.200 {NETWORK}.{CONTAINER}"]
            await node.delete(POD)
            assert await leftovers(node) == []
        # Also to another pod.
        assert await node.add("default/other", args="IP=192.168.39.200") == "192.168.39.200"

    play(tmp_path, story)


@pytest.mark.parametrize(
    "ips", [["192.168.39.200", "fd00::a"], ["fd00::a/64", "192.168.39.200/24"], ["fd00::a"]]
)
def test_addresses_of_either_or_both_families_are_given_as_wished(
    tmp_path: Path, ips: list[str]
) -> None:
    async def story(node: NodeAgent) -> None:
        # Whatever families the configuration says.
        reply = await ask(node, "ADD", config={"runtimeConfig": {"ips": ips}})

        given = [ip["address"] for ip in json.loads(reply.output)["ips"]]
        wished = [str(ip_interface(text).ip) for text in ips]
        assert sorted(text.partition("/")[0] for text in given) == sorted(wished)
        assert {text.partition("/")[2] for text in given} <= {"32", "128"}
        assert sorted(await held(node)) == sorted(f"{ip} {NETWORK}.{CONTAINER}" for ip in wished)
        await node.delete(POD)
        assert await leftovers(node) == []

    play(tmp_path, story, pools=(POOL, IPPool("six", ip_network("fd00::/48"), block_size=122)))


def test_dns_is_the_runtimes_before_the_configurations(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        config = {
            "dns": {"domain": "ours"},
            "runtimeConfig": {"dns": {"servers": ["10.0.0.10"]}},
        }
        reply = await ask(node, "ADD", config=config)

        assert json.loads(reply.output)["dns"] == {"nameservers": ["10.0.0.10"]}

    play(tmp_path, story)


def test_behind_another_plugin_the_result_holds_both(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await ask(node, "ADD", config={"prevResult": BEFORE})

        result = json.loads(reply.output)
        assert [ip["address"] for ip in result["ips"]] == ["10.1.0.2/24", "192.168.39.192/32"]
        assert [ip["interface"] for ip in result["ips"]] == [0, 2]
        assert (await ask(node, "CHECK", config={"prevResult": result})).status == 0

    play(tmp_path, story)


def test_a_result_that_cannot_be_read_leaves_the_node_unchanged(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await ask(node, "ADD", config={"prevResult": {"ips": [{"address": "x"}]}})

        code, text = reason(reply)
        assert (code, "prevResult" in text) == (7, True)
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_check_wants_the_mac_that_the_result_says(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        result = json.loads((await ask(node, "ADD", args=f"MAC={MAC}")).output)
        result["interfaces"][1]["mac"] = "02:00:00:00:00:0B"

        code, text = reason(await ask(node, "CHECK", config={"prevResult": result}))

        # The fake pod still has the first one: what counts is what the result says.
        assert code == 101
        assert f"has MAC {MAC} instead of 02:00:00:00:00:0b" in text

    play(tmp_path, story)


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.0"])
def test_old_runtimes_get_their_own_spelling(tmp_path: Path, version: str) -> None:
    async def story(node: NodeAgent) -> None:
        result = json.loads((await ask(node, "ADD", config={"cniVersion": version})).output)

        assert result["cniVersion"] == version
        if version == "0.3.0":
            assert result["ips"][0]["version"] == "4"
        else:
            assert result["ip4"]["ip"] == "192.168.39.192/32"
        assert (await ask(node, "DEL", config={"cniVersion": version})).status == 0
        assert await leftovers(node) == []

    play(tmp_path, story)
