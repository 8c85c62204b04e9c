"""STATUS complains of lasting trouble only; VERSION needs nothing."""

import json
from pathlib import Path

import pytest

from pycni.errors import ServerAway, TryAgain
from tests.agent.cluster import NodeAgent
from tests.agent.verbs.stories import play, reason


def test_status_complains_only_after_half_a_minute_on_end(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        now = 1000.0
        node.engine.clock = lambda: now
        codes = []
        for moment, is_away in [
            (0, False), (1, True), (30, True), (32, True), (33, False), (34, True), (63, True),
            (64, True),
        ]:  # fmt: skip
            now = 1000.0 + moment
            node.switch.is_away = is_away
            reply = await node.cni("STATUS", "")
            codes.append(reason(reply)[0] if reply.status else 0)

        assert codes == [0, 0, 0, 50, 0, 0, 0, 50]

    play(tmp_path, story)


def test_status_does_not_complain_that_the_clusters_api_server_is_away(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        now = 1000.0
        node.engine.clock = lambda: now
        node.switch.is_away, node.switch.error = True, ServerAway
        replies = []
        for moment in (0, 31, 3600):
            now = 1000.0 + moment
            replies.append(await node.cni("STATUS", ""))

        assert [reply.status for reply in replies] == [0, 0, 0]

        # Trouble of the node's own begins when it is known to be that.
        node.switch.error = TryAgain
        codes = []
        for moment in (0, 29, 31):
            now = 9000.0 + moment
            reply = await node.cni("STATUS", "")
            codes.append(reason(reply)[0] if reply.status else 0)
        assert codes == [0, 0, 50]

    play(tmp_path, story)


@pytest.mark.parametrize("content", ["", "long ago", "nan", "99999"])
def test_a_damaged_memory_of_trouble_begins_anew(tmp_path: Path, content: str) -> None:
    async def story(node: NodeAgent) -> None:
        node.engine.clock = lambda: 1000.0
        (node.run_dir / "trouble-since").write_text(content)
        node.switch.is_away = True
        first = await node.cni("STATUS", "")
        node.engine.clock = lambda: 1031.0

        second = await node.cni("STATUS", "")

        assert first.status == 0
        assert reason(second)[0] == 50

    play(tmp_path, story)


def test_trouble_that_cannot_be_noted_is_no_trouble_yet(tmp_path: Path) -> None:
    """On a full disk: an error would have the runtime take the node for not ready at once."""

    async def story(node: NodeAgent) -> None:
        (node.run_dir / "trouble-since").mkdir()  # nobody reads or writes there
        node.switch.is_away = True

        reply = await node.cni("STATUS", "")

        assert reply.status == 0, reply.output

    play(tmp_path, story)


def test_version_needs_nothing(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await node.cni("VERSION", "")

        assert json.loads(reply.output)["supportedVersions"][-1] == "1.1.0"

    play(tmp_path, story)
