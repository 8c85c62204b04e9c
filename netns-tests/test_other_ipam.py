"""pycni's own pods with addresses by host-local and static, through libcni; agent up and away."""

import shutil
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from cluster import NotYet, cni_tools, eventually
from plugin_host import NETWORK, VERSIONS, PluginHost, Pod, Said, installed_by

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]


def with_default_route(host: PluginHost, *, has_agent: bool) -> None:  # noqa: ARG001
    """Let a host end answer for the pods' gateway: it does where the host has a way there."""
    host.namespace.run("ip", "route", "add", "default", "via", "10.10.0.1")


installed = installed_by(("c", True), ("python", False), prepare=with_default_route)


@pytest.fixture
def host(installed: PluginHost) -> Iterator[PluginHost]:
    """Hand out the host, and hold against it what a test leaves behind."""
    yield installed
    left = [*installed.leftovers(), *reserved(installed)]
    if left:  # one failure, not one for each test that follows
        nothing: dict[str, Any] = {"cni.dev/valid-attachments": []}
        raw(installed, "GC", Pod("", "none"), host_local(installed), **nothing)
        shutil.rmtree(installed.directory / "host-local", ignore_errors=True)
    assert left == []


def host_local(host: PluginHost, size: int = 24) -> dict[str, Any]:
    subnet = f"10.77.0.0/{size}"
    return {
        "type": "host-local",
        "dataDir": str(host.directory / "host-local"),
        "ranges": [[{"subnet": subnet}]],
    }


def static() -> dict[str, Any]:
    return {"type": "static", "addresses": [{"address": "10.78.0.5/24", "gateway": "10.78.0.1"}]}


def reserved(host: PluginHost) -> list[str]:
    """Return the addresses in host-local's own books."""
    found = (path.name for path in (host.directory / "host-local").glob("*/10.*"))
    return sorted(found, key=ip_address)


def routed(host: PluginHost, address: str) -> bool:
    if f"{address} dev cali" not in host.namespace.sh("ip route"):
        raise NotYet(address)
    return True


def network(host: PluginHost, ipam: dict[str, Any], version: str = "1.1.0") -> dict[str, Any]:
    ours = {k: v for k, v in host.config.items() if k not in ("cniVersion", "name")}
    return {"cniVersion": version, "name": NETWORK, "plugins": [{**ours, "ipam": ipam}]}


def raw(host: PluginHost, verb: str, pod: Pod, ipam: dict[str, Any], **more: object) -> Said:
    """Call the plugin as a runtime does, with the reference's plugins on CNI_PATH."""
    changes = {"CNI_PATH": f"{host.plugin.parent}:{cni_tools()}"}
    return host.call(verb, pod, {"ipam": ipam, **more}, changes=changes)


@pytest.mark.parametrize("version", VERSIONS)
def test_host_local_gives_addresses(host: PluginHost, version: str) -> None:
    config = network(host, host_local(host), version)
    one, two = host.pod(), host.pod()

    added = [host.cnitool("add", pod, config) for pod in (one, two)]

    assert [said.status for said in added] == [0, 0], added
    first, second = reserved(host)
    if version >= "0.3.0":
        assert [said.addresses for said in added] == [[f"{first}/32"], [f"{second}/32"]]
    assert f"{first} dev cali" in host.namespace.sh("ip route")
    for target in (second, "10.10.7.20"):
        reached = f"nsenter --net={one.netns} ping -c 1 -W 10 {target}"
        assert "1 received" in host.namespace.sh(reached)
    if version >= "0.4.0":
        assert host.cnitool("check", one, config).status == 0
    if version == "1.1.0":
        assert host.cnitool("status", one, config).status == 0
    for pod in (one, two, two):
        assert host.cnitool("del", pod, config).status == 0


def test_static_gives_its_address(host: PluginHost) -> None:
    config, pod = network(host, static()), host.pod()

    added = host.cnitool("add", pod, config)

    assert added.status == 0, added.errors
    assert added.addresses == ["10.78.0.5/32"]
    reached = f"nsenter --net={pod.netns} ping -c 1 -W 10 10.10.7.20"
    assert "1 received" in host.namespace.sh(reached)
    assert host.cnitool("check", pod, config).status == 0
    assert host.cnitool("del", pod, config).status == 0


def test_the_agent_mends_the_route_of_such_a_pod(host: PluginHost) -> None:
    if not (host.directory / "agent.yaml").exists():
        return  # nobody mends without one
    config, pod = network(host, host_local(host)), host.pod()
    assert host.cnitool("add", pod, config).status == 0
    (address,) = reserved(host)

    host.namespace.sh(f"ip route del {address}")

    eventually(
        lambda: routed(host, address), within_s=30, what=lambda: host.namespace.sh("ip route")
    )
    words = ("ipam", "check", "--run-dir", str(host.directory / "run"))
    assert "findings: 0 " in host.ctl(*words)
    assert host.cnitool("del", pod, config).status == 0


def test_an_interface_that_cannot_be_gives_the_address_back(host: PluginHost) -> None:
    pod = host.pod()
    host.namespace.sh(f"nsenter --net={pod.netns} ip link add eth0 type veth peer name far")

    said = raw(host, "ADD", pod, host_local(host))

    assert said.code == 7
    assert reserved(host) == []


def test_what_the_plugin_says_is_told(host: PluginHost) -> None:
    pod, ipam = host.pod("first"), host_local(host, 30)  # one address, beside the gateway
    assert raw(host, "ADD", pod, ipam).status == 0

    said = raw(host, "ADD", host.pod("second"), ipam)

    assert said.code == 102
    assert "no IP addresses available" in said.document["msg"]
    assert raw(host, "DEL", pod, ipam).status == 0


def test_gc_lets_the_plugin_take_back_what_is_not_listed(host: PluginHost) -> None:
    kept, stale = host.pod("kept"), host.pod("stale")
    result = raw(host, "ADD", kept, host_local(host)).document
    assert raw(host, "ADD", stale, host_local(host)).status == 0
    listed = {"cni.dev/valid-attachments": [{"containerID": "kept", "ifname": "eth0"}]}

    said = raw(host, "GC", kept, host_local(host), **listed)

    assert said.status == 0, said.output
    assert len(reserved(host)) == 1
    assert raw(host, "CHECK", kept, host_local(host), prevResult=result).status == 0
    for path in (host.directory / "host-local").glob("*/10.*"):
        path.unlink()
    said = raw(host, "CHECK", kept, host_local(host), prevResult=result)
    assert said.code == 102
    assert raw(host, "DEL", kept, host_local(host)).status == 0


def test_a_plugin_that_is_not_there_is_named_before_anything_is_done(host: PluginHost) -> None:
    pod = host.pod()

    said = raw(host, "ADD", pod, {"type": "whereabouts"})

    assert said.code == 7
    assert "ipam.type 'whereabouts' is in no directory of CNI_PATH" in said.document["msg"]
