"""The specification's verbs, version by version, by raw calls of the installed plugin.

`docs/spec.md` says which paragraph of SPEC.md 1.1.0 each test belongs to.
"""

import json
from ipaddress import ip_interface
from typing import Any

import pytest

from plugin_host import VERSIONS, PluginHost, Pod, clean_host, installed_by

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

installed = installed_by(("c", True), ("python", True), ("c", False), ("python", False))
host = clean_host


def is_since(version: str, since: str) -> bool:
    return VERSIONS.index(version) >= VERSIONS.index(since)


def require_result(document: dict[str, Any], *, version: str, pod: Pod) -> None:
    """Hold a result against what its version says that it is."""
    assert document["cniVersion"] == version
    assert isinstance(document["dns"], dict)
    if not is_since(version, "0.3.0"):
        assert set(document) == {"cniVersion", "ip4", "dns"}
        ip_interface(document["ip4"]["ip"])
        assert document["ip4"]["routes"] == [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]
        return
    assert set(document) == {"cniVersion", "interfaces", "ips", "routes", "dns"}
    host_end, pod_end = document["interfaces"]
    keys = {"name", "mac"} | ({"mtu"} if is_since(version, "1.1.0") else set())
    assert set(host_end) == keys
    assert set(pod_end) == keys | {"sandbox"}
    assert (pod_end["name"], pod_end["sandbox"]) == (pod.ifname, pod.netns)
    (ip,) = document["ips"]
    assert set(ip) == {"address", "gateway", "interface"} | (
        set() if is_since(version, "1.0.0") else {"version"}
    )
    assert ip["interface"] == 1
    assert document["routes"] == [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_life_of_a_pod(host: PluginHost, version: str) -> None:
    pod = host.pod()
    of_version = {"cniVersion": version}

    added = host.call("ADD", pod, of_version)

    require_result(added.document, version=version, pod=pod)
    told = of_version | {"prevResult": added.document}
    if is_since(version, "0.4.0"):
        checked = host.call("CHECK", pod, told)
        assert (checked.status, checked.output) == (0, "")
    if is_since(version, "1.1.0"):
        status = host.call("STATUS", pod, of_version)
        assert (status.status, status.output) == (0, "")
        kept = {"containerID": pod.container, "ifname": pod.ifname}
        collected = host.call("GC", pod, of_version | {"cni.dev/valid-attachments": [kept]})
        assert (collected.status, collected.output) == (0, "")
        assert host.call("CHECK", pod, told).status == 0
    assert host.call("DEL", pod, told).status == 0
    assert host.call("DEL", pod, told).status == 0


@pytest.mark.parametrize("version", [*VERSIONS, "9.9.9"])
def test_version_answers_what_it_was_asked_in(host: PluginHost, version: str) -> None:
    said = host.exec({"CNI_COMMAND": "VERSION"}, json.dumps({"cniVersion": version}))

    assert said.status == 0
    assert said.document == {"cniVersion": version, "supportedVersions": list(VERSIONS)}


def test_no_version_is_the_oldest(host: PluginHost) -> None:
    pod = host.pod()

    added = host.call("ADD", pod, {"cniVersion": None})

    require_result(added.document, version="0.1.0", pod=pod)
    assert host.call("DEL", pod, {"cniVersion": None}).status == 0


def test_one_container_may_have_several_interfaces(host: PluginHost) -> None:
    args = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web"
    first = host.pod(args=args)
    second = Pod(first.netns, first.container, "net1", args)
    one = host.call("ADD", first)
    # A secondary network's: without a default route.
    other = host.call("ADD", second, {"isDefaultGateway": False})

    assert other.status == 0, other.output
    assert other.document["routes"] == []
    assert one.addresses != other.addresses
    assert host.call("CHECK", first, {"prevResult": one.document}).status == 0
    assert host.call("DEL", first).status == 0
    told = {"isDefaultGateway": False, "prevResult": other.document}
    reached = f"nsenter --net={first.netns} ping -c 1 -W 10 -I net1 10.10.7.20"
    assert "1 received" in host.namespace.sh(reached)
    assert host.call("CHECK", second, told).status == 0
    assert host.call("DEL", second).status == 0


def rename(host: PluginHost, name: str, to: str) -> None:
    # Kernels before 6.2 rename what is down only.
    host.namespace.sh(f"ip link set {name} down; ip link set {name} name {to}; ip link set {to} up")


def test_a_repeated_add_makes_anew_what_somebody_renamed(host: PluginHost) -> None:
    pod = host.pod()
    first = host.call("ADD", pod)
    veth = first.document["interfaces"][0]["name"]
    rename(host, veth, "lan0")

    again = host.call("ADD", pod)

    assert again.status == 0, again.output
    assert again.document == first.document
    assert host.call("CHECK", pod, {"prevResult": again.document}).status == 0
    rename(host, veth, "lan0")
    assert host.call("DEL", pod).status == 0
    assert "lan0" not in host.namespace.sh("ip -o link")


def test_a_second_default_route_is_refused_with_the_way_out(host: PluginHost) -> None:
    first = host.pod()
    result = host.call("ADD", first).document

    said = host.call("ADD", Pod(first.netns, first.container, "net1"))

    assert said.code == 7
    assert '"isDefaultGateway": false' in said.document["msg"]
    assert host.call("CHECK", first, {"prevResult": result}).status == 0
    assert host.call("DEL", first).status == 0


def test_del_of_what_never_was(host: PluginHost) -> None:
    assert host.call("DEL", Pod("", "never-was"), changes={"CNI_NETNS": None}).status == 0


def test_del_of_what_never_was_in_a_namespace_that_is_there(host: PluginHost) -> None:
    other = host.pod("other")
    added = host.call("ADD", other)
    assert added.status == 0

    for pod in (host.pod("never-was"), Pod(other.netns, "never-was")):
        assert host.call("DEL", pod).status == 0

    # Whose namespace it is, keeps everything.
    assert host.call("CHECK", other, {"prevResult": added.document}).status == 0
    assert host.call("DEL", other).status == 0


@pytest.mark.parametrize("told", [{}, {"prevResult": None}, {"prevResult": {}}])
def test_del_without_namespace_and_result(host: PluginHost, told: dict[str, Any]) -> None:
    pod = host.pod()
    assert host.call("ADD", pod).status == 0

    assert host.call("DEL", pod, told, changes={"CNI_NETNS": None}).status == 0


def test_del_of_a_pod_whose_namespace_is_gone(host: PluginHost) -> None:
    pod = host.pod()
    assert host.call("ADD", pod).status == 0

    assert host.call("DEL", pod, changes={"CNI_NETNS": "/run/netns/gone"}).status == 0


def test_what_a_later_plugin_changed_and_said_is_no_difference(host: PluginHost) -> None:
    pod = host.pod()
    result = host.call("ADD", pod).document
    # As `tuning` does with "mac", and `sbr` with routes.
    inside = f"nsenter --net={pod.netns}"
    host.namespace.sh(f"{inside} ip link set eth0 address 02:00:00:00:00:77")
    host.namespace.sh(f"{inside} ip route add 10.99.0.0/16 via 169.254.1.1")
    result["interfaces"][1]["mac"] = "02:00:00:00:00:77"
    result["routes"].append({"dst": "10.99.0.0/16", "gw": "169.254.1.1"})

    assert host.call("CHECK", pod, {"prevResult": result}).status == 0
    assert host.call("DEL", pod).status == 0


def test_routes_that_sbr_moved_are_no_difference(host: PluginHost) -> None:
    pod = host.pod()
    result = host.call("ADD", pod).document
    inside = f"nsenter --net={pod.netns} ip route"
    for route in ("169.254.1.1 dev eth0 scope link", "default via 169.254.1.1 dev eth0"):
        host.namespace.sh(f"{inside} add {route} table 100")
    for route in ("default", "169.254.1.1"):
        host.namespace.sh(f"{inside} del {route}")

    assert host.call("CHECK", pod, {"prevResult": result | {"routes": []}}).status == 0
    assert host.call("DEL", pod).status == 0


BREAKAGES = {
    "link": "ip link del {veth}",
    "down": "ip link set {veth} down",
    "mtu": "ip link set {veth} mtu 1300",
    "route": "ip route del {address}",
    "sysctl": "echo 0 > /proc/sys/net/ipv4/conf/{veth}/proxy_arp",
    "mac": "{inside} ip link set eth0 address 02:00:00:00:00:78",
    "address": "{inside} ip addr flush dev eth0",
    "gateway": "{inside} ip route del default",
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_check_finds_what_is_broken(host: PluginHost, breakage: str) -> None:
    if breakage in ("down", "mtu", "route", "sysctl") and (host.directory / "agent.yaml").exists():
        return  # the agent mends it; the rows without an agent show that CHECK finds it
    pod = host.pod()
    result = host.call("ADD", pod).document
    veth = result["interfaces"][0]["name"]
    address = result["ips"][0]["address"]
    inside = f"nsenter --net={pod.netns}"
    host.namespace.sh(BREAKAGES[breakage].format(veth=veth, address=address, inside=inside))

    said = host.call("CHECK", pod, {"prevResult": result})

    assert said.code == 101
    assert said.document["details"]
    assert host.call("DEL", pod).status == 0


def test_gc_removes_what_is_not_listed(host: PluginHost) -> None:
    kept, stale = host.pod("kept"), host.pod("stale")
    result = host.call("ADD", kept).document
    assert host.call("ADD", stale).status == 0
    listed = [{"containerID": "kept", "ifname": "eth0"}]

    assert host.call("GC", kept, {"cni.dev/valid-attachments": listed}).status == 0

    assert [line for line in host.leftovers() if "stale" in line] == []
    assert host.call("CHECK", kept, {"prevResult": result}).status == 0
    assert host.call("DEL", kept).status == 0


def test_gc_leaves_other_networks_alone(host: PluginHost) -> None:
    pod = host.pod()
    result = host.call("ADD", pod).document

    said = host.call("GC", pod, {"name": "other", "cni.dev/valid-attachments": []})

    assert said.status == 0
    assert host.call("CHECK", pod, {"prevResult": result}).status == 0
    assert host.call("DEL", pod).status == 0


def test_a_result_of_other_plugins_is_handed_on(host: PluginHost) -> None:
    pod = host.pod()
    before: dict[str, Any] = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "br0", "mac": "02:00:00:00:00:09"}],
        "ips": [{"address": "10.1.0.2/24", "interface": 0}],
        "routes": [{"dst": "10.0.0.0/8"}],
        "dns": {"nameservers": ["10.0.0.10"]},
    }

    after = host.call("ADD", pod, {"prevResult": before}).document

    assert after["interfaces"][0]["name"] == "br0"
    assert after["ips"][0] == before["ips"][0]
    assert after["ips"][1]["interface"] == 2
    assert after["routes"][0] == before["routes"][0]
    assert after["dns"] == before["dns"]
    assert host.call("DEL", pod).status == 0


def test_wishes_are_granted(host: PluginHost) -> None:
    pod = host.pod()
    wishes = {"ips": ["192.168.7.7/24"], "mac": "02:00:00:00:00:0a"}

    result = host.call("ADD", pod, {"runtimeConfig": wishes}).document

    assert result["ips"][0]["address"] == "192.168.7.7/32"
    assert result["interfaces"][1]["mac"] == "02:00:00:00:00:0a"
    inside = host.namespace.sh(f"nsenter --net={pod.netns} ip -o link show eth0")
    assert "02:00:00:00:00:0a" in inside
    assert host.call("DEL", pod).status == 0
