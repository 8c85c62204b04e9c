"""A whole agent leaves and joins again at `pycnictl`'s wish; kernel, BGP and sockets are real."""

import asyncio
from pathlib import Path

import pytest

from pycni.agent.daemon import Agent
from pycni.cni.local import serve
from pycni.ctl import main as ctl
from pycni.model.resources import Block, BlockAffinity, Handle, Node
from tests.agent.own_node import needs_root, node
from tests.agent.test_daemon import call, with_agent

__all__ = ["node"]  # the fixture, for pytest to find


async def left_in(agent: Agent) -> list[object]:
    """Return all that the datastore has of a node that may have left; node-9's object stays."""
    store = agent.datastore
    listings = [(await store.list(kind)).items for kind in (Node, Block, BlockAffinity, Handle)]
    return [one.value for listing in listings for one in listing if "node-9" not in str(one)]


@needs_root
@pytest.mark.timeout(150)
def test_an_agent_leaves_and_joins_at_its_operators_wish(
    node: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story(agent: Agent, run_dir: Path) -> None:
        async def say(verb: str) -> int:
            words = ["node", verb, "--run-dir", str(run_dir)]
            return await asyncio.to_thread(ctl.main, words)

        assert (await call(run_dir, "ADD", node))[0] == 0
        assert await say("leave") == 1
        assert "can't leave while pods are here: net/c1/eth0." in capsys.readouterr().err
        assert (await call(run_dir, "DEL", node))[0] == 0

        assert await say("leave") == 0
        printed = capsys.readouterr()
        assert "node node-0 has left" in printed.out
        assert "10.10.7.99 could not be told" in printed.err
        assert await left_in(agent) == []
        status, result = await call(run_dir, "ADD", node)
        assert (status, result["code"]) == (1, 11)
        assert (await call(run_dir, "STATUS", node))[1]["code"] == 50
        assert await asyncio.to_thread(ctl.main, ["status", "--run-dir", str(run_dir)]) == 3
        assert "this node has left the network" in capsys.readouterr().out

        assert await say("join") == 0
        async with asyncio.timeout(40):
            while await agent.datastore.get(Node, "node-0") is None:  # noqa: ASYNC110  # a watch
                await asyncio.sleep(0.02)
        assert (await call(run_dir, "ADD", node))[0] == 0
        assert (await call(run_dir, "DEL", node))[0] == 0

    asyncio.run(with_agent(tmp_path, story))


def test_an_engine_without_agent_obeys_the_wish_as_well(tmp_path: Path) -> None:
    from pycni.leaving import LeaveWish

    LeaveWish(tmp_path).keep()
    environment = {
        "CNI_COMMAND": "STATUS",
        "CNI_PATH": "/opt/cni/bin",
    }
    places = f'"run_dir": "{tmp_path}", "state_dir": "{tmp_path}", "datastore": "{tmp_path}/x.db"'
    stdin = f'{{"cniVersion": "1.1.0", "name": "net", "type": "pycni", "nodename": "n", {places}}}'

    reply = asyncio.run(serve(environment, stdin.encode()))

    assert b'"code": 50' in reply.output.replace(b'":50', b'": 50')
