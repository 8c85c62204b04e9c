"""After a restart nobody is told that he has heard all before all passwords are known."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from pycni.agent.messages import SecretsRead
from pycni.agent.reconciler import RECORDS_WAIT_S
from pycni.model.resources_bgp import BGPPeer, SecretKey
from tests.agent.cluster import NodeAgent
from tests.agent.exercise import exercise
from tests.virtual_time import run

TOR = SecretKey("bgp-passwords", "tor")
ROUTER = BGPPeer("router", ip_address("10.10.0.1"), 65000, password=TOR)


def passwords(node: NodeAgent) -> dict[str, str | None]:
    """Return the wanted sessions with their passwords."""
    assert node.speaker is not None
    return {str(one.peer): one.password for one in node.speaker.neighbours}


@pytest.mark.parametrize("is_known", [True, False])
def test_a_restarted_agent_waits_for_passwords(tmp_path: Path, is_known: bool) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            await made.create(ROUTER)
            await made.settle(1)
            mesh = passwords(node)
            assert len(mesh) == 2
            await node.stop()
            node.start()
            await made.settle(RECORDS_WAIT_S / 2)
            assert passwords(node) == {}

            if is_known:
                node.post(SecretsRead({TOR: "one"}))
                await made.settle(1)
                assert passwords(node) == mesh | {"10.10.0.1": "one"}
            else:
                await made.settle(RECORDS_WAIT_S)
                assert passwords(node) == mesh

    run(story())


def test_a_password_that_comes_or_changes_is_the_sessions(tmp_path: Path) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            await made.create(ROUTER)
            for password in ("one", "two"):
                node.post(SecretsRead({TOR: password}))
                await made.settle(1)
                assert passwords(node)["10.10.0.1"] == password

    run(story())
