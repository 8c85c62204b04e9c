"""The specification's error paths: every call that cannot be, its code, and a node left as it was.

`docs/spec.md` says which paragraph of SPEC.md 1.1.0 each row belongs to.
"""

import json
from typing import Any

import pytest

from plugin_host import VERSIONS, PluginHost, Pod, clean_host, installed_by

pytestmark = [pytest.mark.netns, pytest.mark.long, pytest.mark.timeout(120)]

installed = installed_by(("c", True), ("python", False))
host = clean_host


@pytest.fixture(scope="module")
def pod(installed: PluginHost) -> Pod:
    return installed.pod()


TINY = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: tiny}
spec: {cidr: 10.9.0.0/32, blockSize: 32, assignmentMode: Manual}
"""

NEEDS = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
}


@pytest.mark.parametrize(
    ("verb", "name"), [(verb, name) for verb, names in NEEDS.items() for name in names]
)
@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_a_variable_that_is_needed(
    host: PluginHost, pod: Pod, verb: str, name: str, value: str | None
) -> None:
    said = host.call(verb, pod, {"prevResult": {}}, changes={name: value})

    assert said.code == 4
    assert name in said.document["msg"]


BAD_VALUES = [
    ("CNI_COMMAND", ["", "add", "REMOVE"]),
    ("CNI_CONTAINERID", ["-x", ".x", "_x", "a b", "a/b", "a;b", "ä"]),
    ("CNI_IFNAME", [".", "..", "a/b", "a:b", "a b", "a\tb", "x" * 16]),
    ("CNI_ARGS", ["x", "=x", "UNKNOWN=1", "IP=nonsense", "MAC=nonsense"]),
    ("CNI_NETNS", ["/proc/self/ns/net", "/dev/null", "/run/netns/absent", "relative"]),
]


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD_VALUES for value in values]
)
def test_a_variable_that_cannot_be(host: PluginHost, pod: Pod, name: str, value: str) -> None:
    said = host.call("ADD", pod, changes={name: value})

    assert said.code == 4
    assert name in said.document["msg"]


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"])
@pytest.mark.parametrize(
    "stdin",
    ["", "{", "[]", '"text"', "null", "{} {}"],
    ids=["empty", "half", "list", "string", "null", "two"],
)
def test_input_that_is_no_json_object(host: PluginHost, pod: Pod, verb: str, stdin: str) -> None:
    said = host.exec(pod.environment(verb), stdin)

    assert said.code == 6
    assert said.document["cniVersion"] == "1.1.0"


SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
TOO_OLD = [
    (verb, version)
    for verb, since in SINCE.items()
    for version in VERSIONS
    if VERSIONS.index(version) < VERSIONS.index(since)
]


@pytest.mark.parametrize(("verb", "version"), TOO_OLD)
def test_a_verb_before_its_version(host: PluginHost, pod: Pod, verb: str, version: str) -> None:
    said = host.call(verb, pod, {"cniVersion": version, "prevResult": {}})

    assert said.code == 1
    assert said.document["cniVersion"] == version


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
@pytest.mark.parametrize("version", ["0.5.0", "1.2.0", "2.0.0", "x", 1])
def test_a_version_that_is_not_known(
    host: PluginHost, pod: Pod, verb: str, version: object
) -> None:
    said = host.call(verb, pod, {"cniVersion": version, "prevResult": {}})

    assert said.code == 1
    assert repr(version) in said.document["msg"]


BAD_CONFIGURATIONS: list[tuple[dict[str, Any], int, str]] = [
    ({"name": None}, 7, "'name'"),
    ({"name": ""}, 7, "'name'"),
    ({"name": "-net"}, 7, "'name'"),
    ({"name": "a/b"}, 7, "'name'"),
    ({"name": 7}, 7, "'name'"),
    ({"mtu": 60}, 7, "'mtu' 60"),
    ({"mtu": "1500"}, 7, "'mtu'"),
    ({"ipam": []}, 7, "'ipam'"),
    ({"ipam": {"ipv4_pools": ["absent"]}}, 7, "pool absent"),
    ({"ipam": {"assign_ipv4": "false"}}, 7, "assign_ipv4"),
    ({"ipam": {"type": "no/name"}}, 2, "ipam.type 'no/name'"),
    ({"ipam": {"type": "dhcp"}}, 7, "ipam.type 'dhcp'"),
    ({"datastore_type": "etcdv3"}, 2, "datastore_type 'etcdv3'"),
    ({"runtimeConfig": {"ips": ["10.9.9.9/24"]}}, 7, "10.9.9.9"),
    ({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}, 7, "MAC"),
    ({"args": {"cni": {"ips": "x"}}}, 7, "args.cni"),
    ({"prevResult": {"ips": [{"address": "x"}]}}, 7, "prevResult"),
    ({"ipam": {"ipv4_pools": ["fd00::/48"]}}, 7, "name it in ipv6_pools"),
    ({"dataplane_options": {"type": "grpc"}}, 7, "'dataplane_options'"),
    ({"feature_control": {"ip_addrs_no_ipam": True}}, 7, "'feature_control'"),
    ({"readiness_gates": ["http://127.0.0.1:9099"]}, 7, "'readiness_gates'"),
    ({"prevResult": []}, 7, "prevResult"),
]


@pytest.mark.parametrize(("config", "code", "words"), BAD_CONFIGURATIONS)
def test_a_configuration_that_cannot_be(
    host: PluginHost, pod: Pod, config: dict[str, Any], code: int, words: str
) -> None:
    said = host.call("ADD", pod, config)

    assert said.code == code
    assert words in said.document["msg"]


def test_a_check_without_the_result_of_the_add(host: PluginHost, pod: Pod) -> None:
    assert host.call("CHECK", pod).code == 7


def test_a_check_of_an_unknown_container(host: PluginHost, pod: Pod) -> None:
    assert host.call("CHECK", pod, {"prevResult": {}}).code == 3


@pytest.mark.parametrize("value", [7, {}, ["x"], [{}], [{"containerID": "x"}]])
def test_a_gc_with_a_list_that_cannot_be(host: PluginHost, pod: Pod, value: object) -> None:
    said = host.call("GC", pod, {"cni.dev/valid-attachments": value})

    assert said.code == 7
    assert "cni.dev/valid-attachments" in said.document["msg"]


def test_an_interface_that_exists_already(host: PluginHost, pod: Pod) -> None:
    first = host.call("ADD", pod)
    assert first.status == 0, first.output
    other = Pod(pod.netns, "decaf")

    said = host.call("ADD", other)

    assert said.code == 7
    assert "eth0 exists already" in said.document["msg"]
    assert host.call("DEL", other).status == 0
    # The first is as it was.
    assert host.call("CHECK", pod, {"prevResult": first.document}).status == 0
    assert host.call("DEL", pod).status == 0


def test_no_address_is_left(host: PluginHost, pod: Pod) -> None:
    tiny = {"ipam": {"ipv4_pools": ["tiny"]}}
    host.ctl("apply", "-f", "-", stdin=TINY)
    assert host.call("ADD", pod, tiny).status == 0

    said = host.call("ADD", host.pod("second"), tiny)

    assert said.code == 11
    assert "tiny (10.9.0.0/32)" in said.document["msg"]
    # An exhausted pool is no reason to call the node unready.
    assert host.call("STATUS", pod).status == 0
    assert host.call("DEL", pod, tiny).status == 0
    for block in json.loads(host.ctl("get", "blocks", "-o", "json"))["items"]:
        if block["spec"]["cidr"] == "10.9.0.0/32":
            host.ctl("delete", "block", "10.9.0.0/32")
    host.ctl("delete", "pool", "tiny")
