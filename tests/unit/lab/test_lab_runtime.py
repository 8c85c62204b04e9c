"""The lab's own CNI runtime, with plugins that are small scripts and note what they are told."""

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pycni.errors import InvalidInput, NotFound
from pycni.lab.runtime import (
    Attachment,
    Cache,
    NetworkList,
    PluginFailed,
    Runtime,
    attachment_of,
    container_id,
    load_list,
    parse_list,
)

PLUGIN = """\
#!/bin/sh
# Notes command, container and standard input; answers as the test wants.
d=$(dirname "$0"); me=$(basename "$0"); input=$(cat)
printf '%s %s %s\\n' "$me" "$CNI_COMMAND" "$CNI_CONTAINERID" >>"$d/calls"
printf '%s' "$input" >"$d/$me.$CNI_COMMAND.json"
if [ -e "$d/$me.fails" ]; then printf '{"code": 11, "msg": "not now"}'; exit 1; fi
if [ "$CNI_COMMAND" = ADD ]; then printf '{"cniVersion": "1.1.0", "ips": [], "by": "%s"}' "$me"; fi
"""
POD = Attachment(container_id("/run/netns/pod"), "/run/netns/pod", arguments="A=1;B=x=y")
CONFLIST = {
    "cniVersion": "1.1.0",
    "name": "net",
    "plugins": [
        {"type": "first", "key": "value"},
        {"type": "second", "capabilities": {"portMappings": True, "bandwidth": False}},
    ],
}


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    for name in ("first", "second"):
        path = tmp_path / name
        path.write_text(PLUGIN)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return tmp_path


@pytest.fixture
def runtime(plugins: Path) -> Runtime:
    return Runtime(f"/nonexistent:{plugins}", cache=Cache(plugins / "cache"))


@pytest.fixture
def calls(plugins: Path) -> Callable[[], list[str]]:
    return lambda: (plugins / "calls").read_text().splitlines()


def network(**changes: object) -> NetworkList:
    return parse_list(json.dumps({**CONFLIST, **changes}))


def told(plugins: Path, name: str, command: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((plugins / f"{name}.{command}.json").read_text())
    return document


def test_container_id_is_cnitools() -> None:
    # As cnitool v1.3.1 gave it to a plugin for this path.
    assert container_id("/run/netns/pod") == "cnitool-9539caf00070aeae0bd6"


def test_add_hands_each_result_to_the_next_plugin(runtime: Runtime, plugins: Path) -> None:
    result = runtime.add(network(), POD)

    assert result["by"] == "second"
    first = told(plugins, "first", "ADD")
    assert (first["name"], first["cniVersion"], first["key"]) == ("net", "1.1.0", "value")
    assert "prevResult" not in first
    assert told(plugins, "second", "ADD")["prevResult"]["by"] == "first"


def test_plugins_get_only_the_capabilities_they_support(runtime: Runtime, plugins: Path) -> None:
    pod = attachment_of(
        "/run/netns/pod",
        environment={"CAP_ARGS": '{"portMappings": [1], "bandwidth": {"x": 1}, "dns": 1}'},
    )

    runtime.add(network(), pod)

    assert "runtimeConfig" not in told(plugins, "first", "ADD")
    assert told(plugins, "second", "ADD")["runtimeConfig"] == {"portMappings": [1]}


def test_check_gives_every_plugin_the_final_result(runtime: Runtime, plugins: Path) -> None:
    runtime.add(network(), POD)

    runtime.check(network(), POD)

    assert told(plugins, "first", "CHECK")["prevResult"]["by"] == "second"


def test_check_of_what_was_never_added_fails(runtime: Runtime) -> None:
    with pytest.raises(NotFound, match="not attached"):
        runtime.check(network(), POD)


def test_check_can_be_disabled_and_has_an_oldest_version(runtime: Runtime, plugins: Path) -> None:
    runtime.check(network(disableCheck=True), POD)
    with pytest.raises(InvalidInput, match=r"0\.3\.1"):
        runtime.check(network(cniVersion="0.3.1"), POD)

    assert not (plugins / "calls").exists()


def test_del_runs_backwards_and_forgets(
    runtime: Runtime, plugins: Path, calls: Callable[[], list[str]]
) -> None:
    runtime.add(network(), POD)

    runtime.delete(network(), POD)

    assert [line.split()[:2] for line in calls()[2:]] == [["second", "DEL"], ["first", "DEL"]]
    assert told(plugins, "first", "DEL")["prevResult"]["by"] == "second"
    assert list((plugins / "cache" / "results").iterdir()) == []


def test_del_of_what_was_never_added_is_asked_all_the_same(
    runtime: Runtime, calls: Callable[[], list[str]]
) -> None:
    runtime.delete(network(), POD)

    assert len(calls()) == 2


def test_failed_add_names_plugin_and_reason_and_keeps_nothing(
    runtime: Runtime, plugins: Path
) -> None:
    (plugins / "second.fails").touch()

    with pytest.raises(PluginFailed, match=r"second failed \(add\): not now \(code 11\)"):
        runtime.add(network(), POD)

    assert not (plugins / "cache").exists()


def test_cached_result_has_libcnis_form(runtime: Runtime, plugins: Path) -> None:
    runtime.add(network(), POD)

    path = plugins / "cache" / "results" / f"net-{POD.container_id}-eth0"
    document = json.loads(path.read_text())
    assert document["kind"] == "cniCacheV1"
    assert document["cniArgs"] == [["A", "1"], ["B", "x=y"]]
    assert document["result"]["by"] == "second"
    assert path.stat().st_mode & 0o777 == 0o600


def test_gc_deletes_what_has_lost_its_namespace_and_names_the_rest(
    runtime: Runtime, plugins: Path, calls: Callable[[], list[str]]
) -> None:
    living = Attachment("alive", str(plugins))
    runtime.add(network(), POD)
    runtime.add(network(), living)

    runtime.collect_garbage(network())

    assert f"first DEL {POD.container_id}" in calls()
    assert "first DEL alive" not in calls()
    valid = [{"containerID": "alive", "ifname": "eth0"}]
    assert told(plugins, "first", "GC")["cni.dev/valid-attachments"] == valid
    assert told(plugins, "second", "GC")["cni.dev/attachments"] == valid


def test_gc_can_be_disabled(runtime: Runtime, plugins: Path) -> None:
    runtime.collect_garbage(network(disableGC=True))

    assert not (plugins / "calls").exists()


def test_gc_goes_on_past_a_plugin_that_fails(
    runtime: Runtime, plugins: Path, calls: Callable[[], list[str]]
) -> None:
    runtime.add(network(), POD)
    (plugins / "second.fails").touch()

    with pytest.raises(PluginFailed, match=r"failed \(del\).*failed \(gc\)"):
        runtime.collect_garbage(network())

    assert "first GC " in calls()


def test_status_asks_every_plugin_from_1_1_on(
    runtime: Runtime, calls: Callable[[], list[str]]
) -> None:
    runtime.status(network(cniVersion="1.0.0"))
    runtime.status(network())

    assert calls() == ["first STATUS ", "second STATUS "]


def test_plugin_that_is_missing_or_a_path_is_not_found(runtime: Runtime) -> None:
    for kind in ("third", "../first"):
        with pytest.raises(NotFound, match="no plugin"):
            runtime.status(network(plugins=[{"type": kind}]))


def test_configuration_is_found_by_name_lists_first(tmp_path: Path) -> None:
    (tmp_path / "10-single.conf").write_text('{"cniVersion": "1.0.0", "name": "net", "type": "x"}')
    (tmp_path / "20-list.conflist").write_text(json.dumps(CONFLIST))
    (tmp_path / "30-other.json").write_text('{"name": "other", "type": "y"}')

    assert len(load_list(tmp_path, name="net").plugins) == 2
    assert load_list(tmp_path, name="other").version == "0.1.0"
    with pytest.raises(NotFound, match="NETCONFPATH"):
        load_list(tmp_path, name="third")


def test_broken_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "10-broken.conflist").write_text("{")

    with pytest.raises(InvalidInput, match=r"10-broken\.conflist"):
        load_list(tmp_path, name="net")


def test_broken_capabilities_are_refused() -> None:
    with pytest.raises(InvalidInput, match="CAP_ARGS"):
        attachment_of("/x", environment={"CAP_ARGS": "{"})
