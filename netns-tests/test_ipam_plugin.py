"""pycni-ipam below other main plugins: the reference's bridge and ptp take our addresses.

By libcni (cnitool) with the plugins themselves, and by raw calls of `pycni-ipam`; over both forms
of the relay, with an agent and without.  macvlan: `test_ipam_plugin_uml.py`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import NotYet, eventually
from plugin_host import NETWORK, NODE, VERSIONS, PluginHost, Pod, Said, installed_by
from pycni.ctl.agentlink import ask

pytestmark = [pytest.mark.netns, pytest.mark.long, pytest.mark.timeout(120)]

DEFAULT = {"dst": "0.0.0.0/0"}
# As long as a network is without pods, its gateway may stay.
GATEWAY = f"pycni-gateway-node-0.{NETWORK}"


def with_node(host: PluginHost, *, has_agent: bool) -> None:
    """Make the node's object, where no agent has done it."""
    if not has_agent:
        host.ctl("apply", "-f", "-", stdin=NODE)


installed = installed_by(
    ("c", True), ("python", True), ("c", False), ("python", False), prepare=with_node
)


@pytest.fixture
def host(installed: PluginHost) -> Iterator[PluginHost]:
    """Hand out the host, and hold against it what a test leaves behind."""
    yield installed
    installed.namespace.run("ip", "link", "delete", "br0", check=False)
    said = raw(installed, "GC", Pod("", "none"), {"cni.dev/valid-attachments": []})
    assert said.status == 0, said.output
    assert installed.leftovers() == []
    assert audited(installed)


def audited(host: PluginHost) -> bool:
    """Tell whether `pycnictl ipam check` finds nothing."""
    words = ("ipam", "check", "--run-dir", str(host.directory / "run"))
    return "findings: 0 " in host.ctl(*words)


def main_plugin(host: PluginHost, kind: str, ipam: dict[str, Any], **keys: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
    """Return the configuration of another main plugin that takes addresses from us."""
    places = {k: v for k, v in host.config.items() if k not in ("cniVersion", "name", "type")}
    return {**places, "type": kind, **keys, "ipam": {"type": "pycni-ipam", **ipam}}


def network(plugin: dict[str, Any], version: str = "1.1.0") -> dict[str, Any]:
    return {"cniVersion": version, "name": NETWORK, "plugins": [plugin]}


def raw(host: PluginHost, verb: str, pod: Pod, more: dict[str, Any] | None = None) -> Said:
    """Call pycni-ipam as a main plugin does, with that one's own configuration."""
    document = main_plugin(host, "macvlan", {}, master="eth0", mtu=1400)
    whole = {"cniVersion": "1.1.0", "name": NETWORK, **document, **(more or {})}
    program = str(host.plugin.with_name("pycni-ipam"))
    return host.exec(pod.environment(verb), json.dumps(whole), program=program)


def of_ipam(**keys: Any) -> dict[str, Any]:  # noqa: ANN401  # JSON
    return {"ipam": {"type": "pycni-ipam", **keys}}


def await_blackhole(host: PluginHost, *, is_there: bool) -> None:
    def look() -> bool:
        if ("blackhole" in host.namespace.sh("ip route")) is not is_there:
            raise NotYet(host.namespace.sh("ip route"))
        return True

    eventually(look, within_s=60, what=lambda: host.namespace.sh("ip route"))


# --- with the reference's plugins -----------------------------------------------------------------


def test_ptp_reaches_host_and_other_pods(host: PluginHost) -> None:
    config = network(main_plugin(host, "ptp", {"subnet": "block", "routes": [DEFAULT]}))
    one, two = host.pod(), host.pod()

    added = [host.cnitool("add", pod, config) for pod in (one, two)]

    assert [said.status for said in added] == [0, 0], added
    other = added[1].addresses[0].partition("/")[0]
    gateway = added[0].document["ips"][0]["gateway"]
    for target in (other, gateway, "10.10.7.20"):
        reached = f"nsenter --net={one.netns} ping -c 1 -W 10 {target}"
        assert "1 received" in host.namespace.sh(reached)
    assert host.cnitool("check", one, config).status == 0
    assert host.cnitool("status", one, config).status == 0
    assert audited(host)
    for pod in (one, two, two):
        assert host.cnitool("del", pod, config).status == 0
    assert set(host.leftovers()) <= {GATEWAY}


def test_bridge_with_a_gateway_reaches_host_and_other_pods(host: PluginHost) -> None:
    keys = {"bridge": "br0", "isGateway": True, "isDefaultGateway": True}
    config = network(main_plugin(host, "bridge", {"subnet": "block"}, **keys))
    one, two = host.pod(), host.pod()
    has_agent = (host.directory / "agent.yaml").exists()
    if has_agent:  # which has made the block's blackhole before the bridge has the block
        assert raw(host, "ADD", one).status == raw(host, "DEL", one).status == 0
        await_blackhole(host, is_there=True)

    added = [host.cnitool("add", pod, config) for pod in (one, two)]

    assert [said.status for said in added] == [0, 0], added
    if has_agent:
        await_blackhole(host, is_there=False)
        assert ask(host.directory / "run", "status")["problems"] == []
    other = added[1].addresses[0].partition("/")[0]
    for target in (other, "10.10.7.20"):
        reached = f"nsenter --net={one.netns} ping -c 3 -W 10 {target}"
        assert " 0% packet loss" in host.namespace.sh(reached)
    assert host.cnitool("check", one, config).status == 0
    assert audited(host)
    for pod in (one, two):
        assert host.cnitool("del", pod, config).status == 0
    # The bridge still has it: another pod must not be given this address.
    raw(host, "GC", Pod("", "none"), {"cni.dev/valid-attachments": []})
    assert host.leftovers() == [GATEWAY]


def test_bridge_over_the_whole_pool_has_no_gateway(host: PluginHost) -> None:
    config = network(main_plugin(host, "bridge", {"subnet": "pool"}, bridge="br0"))
    one, two = host.pod(), host.pod()

    added = [host.cnitool("add", pod, config) for pod in (one, two)]

    assert [said.status for said in added] == [0, 0], added
    assert added[0].addresses[0].endswith("/16")
    other = added[1].addresses[0].partition("/")[0]
    reached = f"nsenter --net={one.netns} ping -c 1 -W 10 {other}"
    assert "1 received" in host.namespace.sh(reached)
    # Not the first pod's: this bridge takes the lowest of its ports' MAC addresses.
    assert host.cnitool("check", two, config).status == 0
    for pod in (one, two):
        assert host.cnitool("del", pod, config).status == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_ptp_in_each_version(host: PluginHost, version: str) -> None:
    config = network(main_plugin(host, "ptp", {"subnet": "block", "routes": [DEFAULT]}), version)
    pod = host.pod()

    added = host.cnitool("add", pod, config)

    assert added.status == 0, added.output + added.errors
    assert host.cnitool("del", pod, config).status == 0


def test_an_add_that_fails_behind_us_gives_the_address_back(host: PluginHost) -> None:
    # Without a gateway ptp has nothing to give its host end.
    config = network(main_plugin(host, "ptp", {}))

    assert host.cnitool("add", host.pod(), config).status != 0


# --- raw ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_the_life_of_an_allocation(host: PluginHost, version: str) -> None:
    pod, of_version = host.pod(), {"cniVersion": version}

    added = raw(host, "ADD", pod, of_version)

    assert added.status == 0, added.output
    document = added.document
    assert "interfaces" not in document
    assert document["cniVersion"] == version
    if version < "0.3.0":
        assert set(document) == {"cniVersion", "ip4", "dns"}
        return_address = document["ip4"]["ip"]
    else:
        return_address = document["ips"][0]["address"]
        assert (document["routes"], document["dns"]) == ([], {})
        assert document["ips"][0].get("version") == ("4" if version < "1.0.0" else None)
    assert return_address.endswith("/32")
    assert raw(host, "ADD", pod, of_version).document == document
    told = of_version | {"prevResult": document}
    if version >= "0.4.0":
        assert raw(host, "CHECK", pod, told).status == 0
    if version == "1.1.0":
        assert raw(host, "STATUS", pod).status == 0
    assert audited(host)
    for _ in range(2):
        assert raw(host, "DEL", pod, told).status == 0


def test_version_needs_no_role(host: PluginHost) -> None:
    program = str(host.plugin.with_name("pycni-ipam"))

    said = host.exec(
        {"CNI_COMMAND": "VERSION"}, json.dumps({"cniVersion": "1.0.0"}), program=program
    )

    assert said.document == {"cniVersion": "1.0.0", "supportedVersions": list(VERSIONS)}


def test_check_finds_that_the_address_is_no_longer_held(host: PluginHost) -> None:
    pod = host.pod()
    result = raw(host, "ADD", pod).document
    address = result["ips"][0]["address"].partition("/")[0]
    host.ctl("ipam", "release", "--ip", address, "--force")

    said = raw(host, "CHECK", pod, {"prevResult": result})

    assert said.code == 101
    assert "is free in the datastore" in said.document["details"]
    assert raw(host, "DEL", pod).status == 0
    assert raw(host, "CHECK", pod, {"prevResult": result}).code == 3


def test_a_pod_that_died_without_del_is_found(host: PluginHost, tmp_path: Path) -> None:
    name = tmp_path / "netns"
    name.symlink_to(host.pod().netns)
    pod = Pod(str(name), "dead")
    assert raw(host, "ADD", pod).status == 0
    assert audited(host)

    name.unlink()

    if (host.directory / "agent.yaml").exists():  # whose records are compared
        words = ("ipam", "check", "--run-dir", str(host.directory / "run"))
        assert f"whose network namespace {name} is gone" in host.ctl(*words)
    # Without a list of what is valid, only what is evidently dead goes.
    assert raw(host, "GC", pod).status == 0
    assert host.leftovers() == []


def test_gc_spares_what_is_listed_and_other_networks(host: PluginHost) -> None:
    kept, stale, elsewhere = host.pod("kept"), host.pod("stale"), host.pod("elsewhere")
    gateway = of_ipam(subnet="block")
    result = raw(host, "ADD", kept, gateway).document
    assert raw(host, "ADD", stale).status == 0
    other = raw(host, "ADD", elsewhere, {"name": "other", **gateway}).document
    listed = [{"containerID": "kept", "ifname": "eth0"}]

    assert raw(host, "GC", kept, {"cni.dev/valid-attachments": listed}).status == 0

    assert [line for line in host.leftovers() if "stale" in line] == []
    assert raw(host, "CHECK", kept, {"prevResult": result, **gateway}).status == 0
    told = {"name": "other", "prevResult": other, **gateway}
    assert raw(host, "CHECK", elsewhere, told).status == 0
    assert raw(host, "DEL", kept).status == 0
    assert raw(host, "DEL", elsewhere, {"name": "other"}).status == 0
    nobody = {"name": "other", "cni.dev/valid-attachments": []}
    assert raw(host, "GC", elsewhere, nobody).status == 0


def test_what_cannot_be_is_refused(host: PluginHost) -> None:
    pod = host.pod()

    assert raw(host, "ADD", pod, of_ipam(gateway="10.0.0.1")).code == 2
    assert raw(host, "ADD", pod, of_ipam(subnet="usePodCidr")).code == 7
    assert raw(host, "ADD", pod, of_ipam(routes=[{"dst": "everywhere"}])).code == 7
