"""The installed plugin under libcni itself: every version of lists, and what lists may say.

`docs/spec.md` says which paragraph of SPEC.md 1.1.0 each test belongs to.
"""

from typing import Any

import pytest

from plugin_host import NETWORK, VERSIONS, PluginHost, Pod, Said, clean_host, installed_by

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

installed = installed_by(("c", True), ("python", False))
host = clean_host


def cnitool(
    host: PluginHost,
    verb: str,
    pod: Pod,
    *,
    of_list: dict[str, Any],
    behind: list[dict[str, Any]] | None = None,
    capabilities: dict[str, Any] | None = None,
) -> Said:
    """Run cnitool with a list of the plugin and others behind it."""
    ours = {k: v for k, v in host.config.items() if k not in ("cniVersion", "name")}
    if capabilities:
        ours["capabilities"] = dict.fromkeys(capabilities, True)
    whole = {"name": NETWORK, "plugins": [ours, *(behind or [])], **of_list}
    return host.cnitool(verb, pod, whole, capabilities=capabilities)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_list_of_each_version(host: PluginHost, version: str) -> None:
    pod, of_list = host.pod(), {"cniVersion": version}

    added = cnitool(host, "add", pod, of_list=of_list)

    assert added.status == 0, added.output + added.errors
    assert added.document["cniVersion"] == version
    if VERSIONS.index(version) >= VERSIONS.index("0.4.0"):
        assert cnitool(host, "check", pod, of_list=of_list).status == 0
    assert cnitool(host, "del", pod, of_list=of_list).status == 0


def test_the_highest_of_several_versions_is_spoken(host: PluginHost) -> None:
    pod = host.pod()
    of_list = {"cniVersion": "0.4.0", "cniVersions": ["0.3.1", "0.4.0", "1.1.0"]}

    added = cnitool(host, "add", pod, of_list=of_list)

    assert added.document["cniVersion"] == "1.1.0"
    assert cnitool(host, "del", pod, of_list=of_list).status == 0


@pytest.mark.parametrize("is_disabled", [False, True])
def test_a_list_may_forbid_check(host: PluginHost, is_disabled: bool) -> None:
    pod, of_list = host.pod(), {"cniVersion": "1.1.0", "disableCheck": is_disabled}
    assert cnitool(host, "add", pod, of_list=of_list).status == 0
    host.namespace.sh(f"nsenter --net={pod.netns} ip addr flush dev eth0")

    checked = cnitool(host, "check", pod, of_list=of_list)

    assert (checked.status == 0) is is_disabled
    assert cnitool(host, "del", pod, of_list=of_list).status == 0


@pytest.mark.parametrize("is_disabled", [False, True])
def test_a_list_may_forbid_gc(host: PluginHost, is_disabled: bool) -> None:
    of_list = {"cniVersion": "1.1.0", "disableGC": is_disabled}
    stale = host.pod("stale")
    netns = host.directory / "netns-of-stale"
    netns.symlink_to(stale.netns)
    assert host.call("ADD", stale, changes={"CNI_NETNS": str(netns)}).status == 0
    # The pod is gone: its namespace has taken its interface along.
    netns.unlink()
    host.namespace.sh("ip link delete $(ip -o link | grep -o 'cali[0-9a-f]*')")

    assert cnitool(host, "gc", host.pod(), of_list=of_list).status == 0

    assert bool(host.leftovers()) is is_disabled
    assert host.call("DEL", stale).status == 0


def test_status_of_a_list(host: PluginHost) -> None:
    assert cnitool(host, "status", host.pod(), of_list={"cniVersion": "1.1.0"}).status == 0


def test_capabilities_reach_us_and_those_behind(host: PluginHost) -> None:
    pod, of_list = host.pod(), {"cniVersion": "1.1.0"}
    wishes = {"ips": ["192.168.7.7/24"], "mac": "02:00:00:00:00:0a"}
    behind: list[dict[str, Any]] = [
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    ]

    added = cnitool(host, "add", pod, of_list=of_list, behind=behind, capabilities=wishes)

    assert added.status == 0, added.output + added.errors
    assert added.addresses == ["192.168.7.7/32"]
    assert added.document["interfaces"][1]["mac"] == "02:00:00:00:00:0a"
    for verb in ("check", "del"):
        said = cnitool(host, verb, pod, of_list=of_list, behind=behind, capabilities=wishes)
        assert said.status == 0, said.output + said.errors
