"""Another IPAM plugin, as a program: what it is told, and what it may answer and do."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pycni.cni import delegated
from pycni.cni.janitor import Janitor
from pycni.cni.main import Reply
from pycni.errors import PycniError
from pycni.ipam.requests import DatastoreView
from pycni.model.endpoints import EndpointState
from tests.agent.cluster import NETWORK, POOL, Cluster, NodeAgent

CONTAINER = "c0ffee"
ANSWER = '{"ips": [{"address": "10.77.0.2/24", "gateway": "10.77.0.1"}]}'
GIVES = f"""
case $CNI_COMMAND in
    ADD) echo '{ANSWER}'; touch "$0.held" ;;
    DEL) rm -f "$0.held" ;;
    CHECK) [ -e "$0.held" ] || {{ echo '{{"code": 3, "msg": "nothing held"}}'; exit 1; }} ;;
    VERSION) echo '{{"supportedVersions": ["1.0.0", "1.1.0"]}}' ;;
esac
"""
FULL = 'echo \'{"code": 11, "msg": "full", "details": "really"}\'; exit 1'
Story = Callable[["Plugged"], Awaitable[None]]


class Plugged:
    """A node and a plugin of a test's making."""

    def __init__(self, directory: Path, node: NodeAgent) -> None:
        self.node = node
        self.path = directory / "bin" / "other-ipam"
        self.path.parent.mkdir()
        self.script(GIVES)

    def script(self, text: str) -> None:
        """Let the plugin be these shell lines."""
        # `read` leaves no half-written file behind that somebody runs.
        self.path.write_text(f'#!/bin/sh\necho "$CNI_COMMAND" >>"$0.calls"\n{text}')
        self.path.chmod(0o755)

    @property
    def held(self) -> bool:
        """Whether the plugin has given an address that it has not taken back."""
        return self.path.with_name("other-ipam.held").exists()

    @property
    def calls(self) -> list[str]:
        """The verbs for which it was run."""
        return self.path.with_name("other-ipam.calls").read_text().split()

    async def ask(self, verb: str, **more: Any) -> Reply:  # noqa: ANN401 - any JSON.
        """Do what a runtime does, with the plugin's directory on CNI_PATH."""
        config = {"ipam": {"type": "other-ipam"}, **more}
        return await self.node.cni(
            verb, CONTAINER, config=config, variables={"CNI_PATH": str(self.path.parent)}
        )


def play(directory: Path, story: Story) -> None:
    """Play a story in real time: the plugin is a process."""

    async def main() -> None:
        made = Cluster(directory)
        await made.create(POOL)
        await story(Plugged(directory, made.node("node-0", "10.10.7.20/20")))

    asyncio.run(main())


def told(reply: Reply) -> tuple[int, str]:
    document = json.loads(reply.output)
    return document["code"], document["msg"]


def record(made: Plugged) -> Any:  # noqa: ANN401 - a record, which is there.
    (found,) = made.node.endpoints.list()
    return found


# --- the verbs ------------------------------------------------------------------------------------


def test_a_pod_has_the_address_that_the_plugin_gives(tmp_path: Path) -> None:
    async def story(made: Plugged) -> None:
        added = await made.ask("ADD", cniVersion="1.0.0")

        document = json.loads(added.output)
        assert document["ips"] == [
            {"address": "10.77.0.2/32", "interface": 1, "gateway": "169.254.1.1"}
        ]
        assert [line for line in await made.node.routes() if "10.77.0.2 dev cali" in line]
        assert (await made.ask("CHECK", prevResult=document)).status == 0
        assert (await made.ask("STATUS")).status == 0
        for _ in range(2):
            assert (await made.ask("DEL")).status == 0
        assert not made.held
        assert made.calls == ["ADD", "CHECK", "VERSION", "STATUS", "DEL", "DEL"]
        assert made.node.endpoints.list() == []

    play(tmp_path, story)


def test_what_the_plugin_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(made: Plugged) -> None:
        made.script(f'env >"$0.env"; cat >"$0.stdin"; pwd >"$0.cwd"; echo \'{ANSWER}\'')

        await made.ask("ADD", some="key")

        lines = made.path.with_name("other-ipam.env").read_text().splitlines()
        names = {line.partition("=")[0] for line in lines} - {"PWD", "OLDPWD", "SHLVL", "_"}
        assert names == {
            "PATH",
            "CNI_ARGS",
            "CNI_COMMAND",
            "CNI_CONTAINERID",
            "CNI_IFNAME",
            "CNI_NETNS",
            "CNI_PATH",
        }
        assert f"CNI_NETNS=/run/netns/{CONTAINER}" in lines
        stdin = json.loads(made.path.with_name("other-ipam.stdin").read_text())
        assert (stdin["name"], stdin["some"]) == (NETWORK, "key")
        assert made.path.with_name("other-ipam.cwd").read_text() == "/\n"

    monkeypatch.setenv("OURS", "none of its business")
    play(tmp_path, story)


def test_check_compares_the_plugins_books_with_its_own_answer(tmp_path: Path) -> None:
    async def story(made: Plugged) -> None:
        document = json.loads((await made.ask("ADD")).output)
        made.script('cat >"$0.stdin"')

        assert (await made.ask("CHECK", prevResult=document)).status == 0

        stdin = json.loads(made.path.with_name("other-ipam.stdin").read_text())
        assert stdin["prevResult"] == json.loads(ANSWER)
        made.script('echo \'{"code": 3, "msg": "nothing held"}\'; exit 1')
        code, text = told(await made.ask("CHECK", prevResult=document))
        assert code == 102
        assert text == f"CHECK by {made.path} failed: nothing held"

    play(tmp_path, story)


def test_gc_runs_the_plugin_for_each_and_then_its_own(tmp_path: Path) -> None:
    async def story(made: Plugged) -> None:
        await made.ask("ADD")

        collected = await made.ask("GC", **{"cni.dev/valid-attachments": []})

        assert collected.status == 0, collected.output
        assert made.calls == ["ADD", "DEL", "VERSION", "GC"]
        assert not made.held

    play(tmp_path, story)


def test_verbs_that_the_plugin_does_not_know_are_spared_it(tmp_path: Path) -> None:
    async def story(made: Plugged) -> None:
        made.script('echo \'{"supportedVersions": ["1.0.0"]}\'')

        assert (await made.ask("STATUS")).status == 0
        assert (await made.ask("GC", **{"cni.dev/valid-attachments": []})).status == 0

        assert made.calls == ["VERSION", "VERSION"]

    play(tmp_path, story)


def test_gc_tells_what_the_plugin_refuses(tmp_path: Path) -> None:
    async def story(made: Plugged) -> None:
        made.script("echo nothing")

        code, text = told(await made.ask("GC", **{"cni.dev/valid-attachments": []}))

        assert code == 11
        assert "other-ipam answered VERSION with no list" in text

    play(tmp_path, story)


def test_status_fails_once_the_plugin_has_for_a_while(tmp_path: Path) -> None:
    async def story(made: Plugged) -> None:
        made.node.engine.clock = lambda: now
        now = 0.0
        made.script("exit 7")

        assert (await made.ask("STATUS")).status == 0
        now = 31.0

        assert told(await made.ask("STATUS"))[0] == 50

    play(tmp_path, story)


# --- failures -------------------------------------------------------------------------------------


def test_a_later_step_that_fails_gives_the_address_back(tmp_path: Path) -> None:
    async def story(made: Plugged) -> None:
        made.node.podnet.fail_next(PycniError("the kernel refused"))

        assert (await made.ask("ADD")).status == 1

        assert made.calls == ["ADD", "DEL"]
        assert not made.held
        assert made.node.endpoints.list() == []

    play(tmp_path, story)


def test_what_could_not_be_given_back_is_owed_by_its_record(tmp_path: Path) -> None:
    async def story(made: Plugged) -> None:
        made.node.podnet.fail_next(PycniError("the kernel refused"))
        made.script(f"[ $CNI_COMMAND = ADD ] || exit 7; echo '{ANSWER}'")

        assert "the kernel refused" in told(await made.ask("ADD"))[1]

        assert record(made).state is EndpointState.INTENT
        made.script(GIVES)
        assert (await made.ask("DEL")).status == 0
        assert made.node.endpoints.list() == []

    play(tmp_path, story)


def test_a_del_that_the_plugin_refuses_can_be_repeated(tmp_path: Path) -> None:
    async def story(made: Plugged) -> None:
        await made.ask("ADD")
        made.script("exit 7")

        code, text = told(await made.ask("DEL"))

        assert code == 102
        assert text == f"DEL by {made.path} ended with status 7, and said no error"
        made.script(GIVES)
        assert (await made.ask("DEL")).status == 0
        assert made.node.endpoints.list() == []

    play(tmp_path, story)


def test_the_janitor_has_the_plugin_take_back_what_nobody_holds(tmp_path: Path) -> None:
    async def story(made: Plugged) -> None:
        await made.ask("ADD")
        made.node.kernel.delete_link(record(made).host_veth)
        janitor = Janitor(made.node.engine, view=DatastoreView(made.node.datastore))
        made.script("exit 7")
        for _ in range(2):
            await janitor.once()
        assert len(made.node.endpoints.list()) == 1

        made.script(GIVES)
        for _ in range(2):  # the record says by now that somebody has begun
            await janitor.once()

        assert not made.held
        assert made.node.endpoints.list() == []

    play(tmp_path, story)


def test_addresses_of_another_plugin_than_before_go_back_to_the_one_that_gave_them(
    tmp_path: Path,
) -> None:
    async def story(made: Plugged) -> None:
        await made.ask("ADD")
        assert (await made.ask("DEL", ipam={"type": "newer-ipam"})).status == 0
        assert not made.held

        await made.ask("ADD")
        assert (await made.ask("DEL", ipam={})).status == 0
        assert not made.held

    play(tmp_path, story)


def test_check_asks_the_plugin_that_gave_the_address(tmp_path: Path) -> None:
    async def story(made: Plugged) -> None:
        added = {"prevResult": json.loads((await made.ask("ADD")).output)}

        assert (await made.ask("CHECK", ipam={"type": "newer-ipam"}, **added)).status == 0

        assert made.calls == ["ADD", "CHECK"]

    play(tmp_path, story)


# --- finding it -----------------------------------------------------------------------------------


def test_a_plugin_that_cannot_be_found_or_run_is_refused_before_anything_is_done(
    tmp_path: Path,
) -> None:
    async def story(made: Plugged) -> None:
        code, text = told(await made.ask("ADD", ipam={"type": "none-such"}))
        assert code == 7
        assert f"'none-such' is in no directory of CNI_PATH ({made.path.parent}): install" in text
        made.path.chmod(0o644)
        assert "is not executable" in told(await made.ask("ADD"))[1]
        made.path.write_text("no program")
        made.path.chmod(0o755)
        code, text = told(await made.ask("ADD"))
        assert code == 102
        assert f"cannot run {made.path}, named by ipam.type" in text

    play(tmp_path, story)


def test_relative_and_absent_directories_hold_no_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(made: Plugged) -> None:
        await made.ask("ADD")
        how = record(made).delegation

        assert delegated.find(replace(how, path=f"/none:{how.path}")) == str(made.path)
        monkeypatch.chdir("/")  # where that would lead to it
        for path in (how.path.removeprefix("/"), "", ":"):
            with pytest.raises(PycniError, match="is in no directory of CNI_PATH"):
                delegated.find(replace(how, path=path))

    play(tmp_path, story)
