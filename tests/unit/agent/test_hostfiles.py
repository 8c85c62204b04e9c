"""What a container runtime finds of us on the host: the plugin, and the network's configuration."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pycni.agent import hostfiles
from pycni.agent.hostfiles import Network, install_plugin, main, network_of
from pycni.errors import InvalidInput

CHAIN = (
    b'{"name": "n", "plugins": [{"type": "bridge", "ipam": {"type": "pycni-ipam"}}, {"type": "x"}]}'
)


def contents(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


# --- the plugin ---------------------------------------------------------------------------------


def test_the_plugin_has_two_names(tmp_path: Path) -> None:
    source, directory = tmp_path / "relay", tmp_path / "bin"
    source.write_bytes(b"relay")
    directory.mkdir()

    for _ in range(2):
        assert main([str(source), str(directory)]) == 0

    assert (directory / "pycni-ipam").readlink() == Path("pycni")
    assert contents(directory) == {"pycni": "relay", "pycni-ipam": "relay"}
    assert os.access(directory / "pycni", os.X_OK)


def test_another_file_in_the_links_place_gives_way(tmp_path: Path) -> None:
    source, directory = tmp_path / "relay", tmp_path / "bin"
    source.write_bytes(b"relay")
    directory.mkdir()
    (directory / "pycni-ipam").write_bytes(b"other")

    install_plugin(source, directory)

    assert (directory / "pycni-ipam").readlink() == Path("pycni")


def test_a_plugin_that_can_not_be_installed_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "relay").write_bytes(b"relay")

    assert main([str(tmp_path / "relay"), str(tmp_path / "nowhere")]) == 1

    assert "cannot install the plugin" in capsys.readouterr().err


# --- the network's configuration ----------------------------------------------------------------


def test_the_nodes_name_is_filled_in_where_a_plugin_is_ours() -> None:
    own = json.loads(network_of(b'{"plugins": [{"type": "pycni"}]}', node="n1", source="t"))
    chain = json.loads(network_of(CHAIN, node="n1", source="t"))

    assert own["plugins"] == [{"type": "pycni", "nodename": "n1"}]
    assert [plugin.get("nodename") for plugin in chain["plugins"]] == ["n1", None]


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (b"{", "t is no list of CNI plugins"),
        (b"[]", "t is no list of CNI plugins"),
        (b'{"type": "pycni"}', "t is no list of CNI plugins"),
        (b'{"plugins": [7]}', "t is no list of CNI plugins"),
        (b'{"plugins": [{"type": "bridge"}]}', "no plugin there is of type 'pycni'"),
    ],
)
def test_a_template_without_us_is_refused(template: bytes, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        network_of(template, node="n1", source="t")


def network(directory: Path, said: dict[str, str], is_ready: Callable[[], bool]) -> Network:
    return Network(
        path=directory / "10-pycni.conflist",
        content=b"ours",
        is_ready=is_ready,
        report=said.__setitem__,
    )


def test_the_network_is_written_once_all_is_ready_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostfiles, "LOOK_S", 0)
    monkeypatch.setattr(hostfiles, "KEEP_S", 0)
    seen: list[list[str]] = []

    def is_ready() -> bool:
        seen.append(sorted(contents(tmp_path)))
        return len(seen) == 3

    async def story() -> None:
        running = asyncio.create_task(network(tmp_path, {}, is_ready).run())
        path = tmp_path / "10-pycni.conflist"
        for _ in range(2):
            async with asyncio.timeout(5):
                while not path.exists():  # noqa: ASYNC110 - it comes by another task
                    await asyncio.sleep(0)
            path.unlink()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    asyncio.run(story())

    assert seen == [[], [], []]


def test_a_network_that_sorts_before_ours_is_reported(tmp_path: Path) -> None:
    said: dict[str, str] = {}
    one = network(tmp_path, said, lambda: True)
    for name in ("05-notes.txt", "20-other.conf"):
        (tmp_path / name).write_text("")

    one.write()
    assert said == {"network": ""}
    (tmp_path / "05-other.conf").write_text("")
    one.write()

    assert said["network"].endswith("so runtimes use that network: remove it")
    assert "05-other.conf sorts before 10-pycni.conflist" in said["network"]


def test_a_network_that_is_removed_at_once_has_no_rival(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: dict[str, str] = {}
    monkeypatch.setattr(hostfiles, "put", lambda *_, **__: True)

    network(tmp_path, said, lambda: True).write()

    assert said == {"network": ""}


def test_a_network_that_can_not_be_written_is_reported(tmp_path: Path) -> None:
    said: dict[str, str] = {}

    network(tmp_path / "nowhere", said, lambda: True).write()

    assert said["network"].startswith(f"cannot write {tmp_path}/nowhere/10-pycni.conflist: No such")
