"""CHECK: node, record, result and datastore are held against each other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import AssignRequest
from tests.agent.cluster import NodeAgent
from tests.agent.verbs.crashes import crash
from tests.agent.verbs.stories import KEY, POD, VETH, ask, play, reason


async def checked(node: NodeAgent, **result: Any) -> tuple[int, str]:  # noqa: ANN401 - keys of a result.
    reply = await ask(node, "CHECK", fd=7, config={"prevResult": result})
    return reason(reply) if reply.status else (0, "")


def test_check_is_content_with_what_add_made(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await ask(node, "ADD", fd=7)

        assert await checked(node, **json.loads(reply.output)) == (0, "")

    play(tmp_path, story)


def pod_routes(node: NodeAgent) -> list[Any]:
    return [r for r in node.kernel.routes() if VETH in r.oifs]


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda node: node.kernel.change_link(VETH, mtu=1300), "1300"),
        (lambda node: node.kernel.delete_link(VETH), VETH),
        (
            lambda node: node.kernel.write_sysctl(f"net.ipv4.conf.{VETH}.rp_filter", "0"),
            "rp_filter",
        ),
        (lambda node: [node.kernel.delete_route(r) for r in pod_routes(node)], "192.168.39.192"),
    ],
    ids=["mtu", "link", "sysctl", "route"],
)
def test_check_names_each_difference(
    tmp_path: Path, break_it: Callable[[NodeAgent], Any], words: str
) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await ask(node, "ADD", fd=7)
        break_it(node)

        code, text = await checked(node, **json.loads(reply.output))

        assert code == 101
        assert text.startswith(f"endpoint {KEY} is not as it was made: ")
        assert words in text

    play(tmp_path, story)


def test_check_compares_the_result_and_the_datastore(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        address = await node.add(POD, fd=7)
        record = node.endpoints.get(KEY)
        assert record is not None
        await node.allocator.release(record.addresses, handle_id=record.handle_id)
        free = await checked(node, ips=[{"address": f"{address}/32"}])
        stranger = Allocator(node.datastore, node="node-0")
        await stranger.assign(AssignRequest("other", addresses=(record.addresses[0].interface.ip,)))

        taken = await checked(node, ips=[{"address": f"{address}/32"}])
        lacking = await checked(node, ips=[])
        unreadable = await checked(node, ips=[{}])

        why = f"address {address} is free in the datastore"
        assert free == (101, f"endpoint {KEY} is not as it was made: {why}")
        assert "is held by other in the datastore" in taken[1]
        assert f"prevResult lacks our address {address}/32 (and 1 more)" in lacking[1]
        assert unreadable[0] == 7
        assert "prevResult: None is no address" in unreadable[1]

    play(tmp_path, story)


def test_check_of_an_unknown_or_unfinished_endpoint(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        unknown = await checked(node)
        await crash(node, "ADD", "plugged")
        unfinished = await checked(node)

        assert unknown[0] == unfinished[0] == 3
        assert "delete the pod and add it again" in unknown[1]

    play(tmp_path, story)
