"""Environment and standard input to a request: every verb, every version, every defect."""

import json
from typing import Any

import pytest

from pycni.cni.commands import Command
from pycni.cni.errors import CniError, Code
from pycni.cni.protocol import CniArgs, Request, parse, version_of
from pycni.cni.wishes import Wishes
from pycni.model.endpoints import Delegation

ENVIRONMENT = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c0ffee",
    "CNI_NETNS": "/run/netns/c0ffee",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}
DOCUMENT = {"cniVersion": "1.1.0", "name": "net", "type": "pycni"}
VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


def parsed(environment: dict[str, str] | None = None, **document: Any) -> Request:  # noqa: ANN401 - any JSON.
    text = json.dumps(DOCUMENT | document).encode()
    return parse(ENVIRONMENT | (environment or {}), text)


def refused(environment: dict[str, str] | None = None, **document: Any) -> tuple[Code, str]:  # noqa: ANN401 - any JSON.
    with pytest.raises(CniError) as caught:
        parsed(environment, **document)
    return caught.value.code, caught.value.msg


def test_one_configuration_serves_many_pods() -> None:
    one, other = parsed(), parsed({"CNI_CONTAINERID": "decaf"})

    assert one.config is other.config
    assert one.key != other.key
    with pytest.raises(TypeError):
        one.config.dns["search"] = []  # type: ignore[index]  # That is the point.


def test_one_configuration_serves_many_deletions() -> None:
    delete = {"CNI_COMMAND": "DEL"}
    one = parsed(delete, prevResult={"ips": [{"address": "192.168.1.1/32"}]})
    other = parsed(delete, prevResult={"ips": [{"address": "192.168.1.2/32"}]})

    assert one.config is other.config
    assert parsed(delete, run_dir="/run/other").config.run_dir == "/run/other"
    assert parsed(delete, cniVersion="0.4.0").config.cni_version == "0.4.0"
    assert refused(delete, run_dir=1)[0] is Code.INVALID_CONFIGURATION


def test_a_missing_variable_comes_before_a_bad_configuration() -> None:
    code, text = refused({"CNI_IFNAME": ""}, mtu="x")

    assert code is Code.INVALID_ENVIRONMENT
    assert "ADD needs CNI_IFNAME" in text


# --- verbs and versions -------------------------------------------------------------------------

SINCE = {"ADD": 0, "DEL": 0, "CHECK": 4, "GC": 6, "STATUS": 6}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("verb", SINCE)
def test_each_verb_exists_since_its_version(verb: str, version: str) -> None:
    more: dict[str, Any] = {"prevResult": {}} if verb == "CHECK" else {}
    environment = {"CNI_COMMAND": verb}

    if VERSIONS.index(version) >= SINCE[verb]:
        assert parsed(environment, cniVersion=version, **more).command is Command(verb)
    else:
        code, text = refused(environment, cniVersion=version, **more)
        assert code is Code.INCOMPATIBLE_VERSION
        assert text.startswith(f"{verb} does not exist in CNI {version}: it came with ")


@pytest.mark.parametrize("version", ["0.5.0", "1.2.0", "x", 1, 0, False, [], {}])
def test_other_versions_are_incompatible(version: object) -> None:
    code, text = refused(cniVersion=version)

    assert code is Code.INCOMPATIBLE_VERSION
    assert "use one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0" in text


@pytest.mark.parametrize("document", [{}, {"cniVersion": ""}, {"cniVersion": None}])
def test_a_document_without_version_is_the_oldest(document: dict[str, Any]) -> None:
    text = json.dumps({"name": "net", **document}).encode()

    assert parse(ENVIRONMENT, text).config.cni_version == "0.1.0"
    assert version_of(text) == "0.1.0"


NEEDS = [
    ("ADD", "CNI_CONTAINERID"),
    ("ADD", "CNI_NETNS"),
    ("ADD", "CNI_IFNAME"),
    ("CHECK", "CNI_CONTAINERID"),
    ("CHECK", "CNI_NETNS"),
    ("CHECK", "CNI_IFNAME"),
    ("DEL", "CNI_CONTAINERID"),
    ("DEL", "CNI_IFNAME"),
]


@pytest.mark.parametrize(("verb", "name"), NEEDS)
def test_a_missing_variable_is_named(verb: str, name: str) -> None:
    code, text = refused({"CNI_COMMAND": verb, name: ""}, prevResult={})

    assert code is Code.INVALID_ENVIRONMENT
    assert text == f"{verb} needs {name} in the environment: set it and call again"


def test_a_del_needs_no_namespace() -> None:
    assert parsed({"CNI_COMMAND": "DEL", "CNI_NETNS": ""}).netns == ""


@pytest.mark.parametrize("verb", ["GC", "STATUS"])
def test_the_verbs_of_a_whole_network_need_no_container(verb: str) -> None:
    request = parse({"CNI_COMMAND": verb}, json.dumps(DOCUMENT).encode())

    assert (request.command.value, request.container_id) == (verb, "")


@pytest.mark.parametrize("verb", ["", "add", "REMOVE", "ADD "])
def test_an_unknown_verb_is_refused(verb: str) -> None:
    code, text = refused({"CNI_COMMAND": verb})

    assert code is Code.INVALID_ENVIRONMENT
    assert text.endswith("use one of ADD, DEL, CHECK, GC, STATUS, VERSION")


@pytest.mark.parametrize(
    ("version", "answered"), [("1.0.0", "1.0.0"), ("9.9", "9.9"), (7, "1.1.0")]
)
def test_version_is_answered_whatever_was_asked(version: object, answered: str) -> None:
    text = json.dumps({"cniVersion": version}).encode()

    request = parse({"CNI_COMMAND": "VERSION"}, text)

    assert request.command is Command.VERSION
    assert request.config.cni_version == answered


# --- what can't be read -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stdin",
    [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b"[" * 100_000, b" " * (1 << 20) + b"{}"],
    ids=["empty", "half", "list", "string", "bytes", "deep", "large"],
)
@pytest.mark.parametrize("verb", ["ADD", "VERSION"])
def test_what_is_no_json_object_is_undecodable(verb: str, stdin: bytes) -> None:
    with pytest.raises(CniError) as caught:
        parse(ENVIRONMENT | {"CNI_COMMAND": verb}, stdin)

    assert caught.value.code is Code.UNDECODABLE


@pytest.mark.parametrize("text", ["-x", ".x", "a b", "a/b", "ä", "a;b", "x\n", "\udc80"])
def test_a_container_id_of_other_characters_is_refused(text: str) -> None:
    code, message = refused({"CNI_CONTAINERID": text})

    assert code is Code.INVALID_ENVIRONMENT
    assert message.startswith("CNI_CONTAINERID=")


@pytest.mark.parametrize(
    "text", [".", "..", "a/b", "a:b", "a b", "a\tb", "x" * 16, "eth%d", "ä", "\udc80", "eth0\n"]
)
def test_an_interface_name_that_the_kernel_would_not_take_is_refused(text: str) -> None:
    code, message = refused({"CNI_IFNAME": text})

    assert code is Code.INVALID_ENVIRONMENT
    assert message.startswith("CNI_IFNAME=")


@pytest.mark.parametrize("text", ["eth0", "x" * 15, "a.b-c_d", "net1@x"])
def test_an_interface_name_that_the_kernel_takes_is_taken(text: str) -> None:
    assert parsed({"CNI_IFNAME": text}).ifname == text


# --- CNI_ARGS -----------------------------------------------------------------------------------

POD = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=nginx-1"


def test_what_kubernetes_gives_is_understood() -> None:
    text = f"IgnoreUnknown=1;{POD};K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=1-2"

    args = parsed({"CNI_ARGS": text}).args

    assert (args.pod_namespace, args.pod_name, args.pod_uid) == ("default", "nginx-1", "1-2")


@pytest.mark.parametrize("text", ["K8S_POD_NAME=Probe_1", "K8S_POD_NAMESPACE=default"])
def test_half_of_a_pods_name_names_no_pod(text: str) -> None:
    """Podman gives its container's name as K8S_POD_NAME, and no namespace."""
    request = parsed({"CNI_ARGS": f"IgnoreUnknown=1;{text}"})

    assert (request.args.pod_namespace, request.args.pod_name) == ("", "")
    assert request.host_veth == parsed().host_veth


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.168.247.10", "192.168.247.10"),
        ("192.168.247.10/24", "192.168.247.10"),  # The length counts for nothing.
        ("fd00::a/64", "fd00::a"),
    ],
)
def test_a_requested_address_and_interface_are_understood(text: str, address: str) -> None:
    args = parsed({"CNI_ARGS": f"IP={text};HOST_VETH=calia5daa4e7a1d"}).args

    assert list(map(str, args.wishes.addresses)) == [address]
    assert args.host_veth == "calia5daa4e7a1d"


@pytest.mark.parametrize("word", ["1", "true", "True", "yes", "t", "on"])
def test_unknown_keys_are_ignored_on_request(word: str) -> None:
    assert parsed({"CNI_ARGS": f"COLOUR=red;IgnoreUnknown={word}"}).wishes == Wishes()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("COLOUR=red", "unknown key COLOUR"),
        ("COLOUR=red;IgnoreUnknown=0", "unknown key COLOUR"),
        ("COLOUR", "is not of the form KEY=VALUE"),
        ("=red", "is not of the form KEY=VALUE"),
        ("K8S_POD_NAMESPACE=../..;K8S_POD_NAME=x", "is no name of Kubernetes"),
        ("K8S_POD_NAMESPACE=x;K8S_POD_NAME=X", "is no name of Kubernetes"),
        ("IP=192.168.0.1,192.168.0.2", "one address of each IP version"),
        ("MAC=x", "is no MAC address"),
        ("IP=x", "is no address"),
        ("IP=fe80::1%eth0", "is no address"),
        ("HOST_VETH=eth0", "must be an interface name that begins with 'cali'"),
        ("HOST_VETH=cali/x", "must be an interface name that begins with 'cali'"),
        ("HOST_VETH=cali12345678901234", "must be an interface name that begins with 'cali'"),
    ],
)
def test_bad_arguments_are_refused(text: str, complaint: str) -> None:
    code, message = refused({"CNI_ARGS": text})

    assert code is Code.INVALID_ENVIRONMENT
    assert complaint in message


@pytest.mark.parametrize(
    "text", ["IP=nonsense", "MAC=zz", "IgnoreUnknown=1;IP=10.0.0.1,10.0.0.2", "COLOUR", "K=V"]
)
def test_a_del_minds_no_arguments(text: str) -> None:
    assert parsed({"CNI_COMMAND": "DEL", "CNI_ARGS": text}).args == CniArgs()


def test_a_del_knows_its_pod_whatever_it_wished_for() -> None:
    text = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;MAC=zz"

    request = parsed({"CNI_COMMAND": "DEL", "CNI_ARGS": text})

    assert request.args.pod_name == "web"
    assert request.wishes == Wishes()


# --- names that follow --------------------------------------------------------------------------


def test_the_host_interface_of_a_kubernetes_pod_is_calicos() -> None:
    text = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=nginx-deployment-69df458bc5-bb87w"

    assert parsed({"CNI_ARGS": text}).host_veth == "calia5daa4e7a1d"


def test_a_further_interface_of_a_pod_has_a_name_of_its_own() -> None:
    environment = {"CNI_ARGS": "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web"}
    first = parsed(environment)
    second = parsed(environment | {"CNI_IFNAME": "net1"})
    elsewhere = parsed(environment | {"CNI_IFNAME": "net1"}, name="other")

    assert first.host_veth == "cali68caf03a5f4"
    assert len({one.host_veth for one in (first, second, elsewhere)}) == 3


def test_a_stated_host_interface_counts() -> None:
    assert parsed({"CNI_ARGS": f"{POD};HOST_VETH=calix"}).host_veth == "calix"


def test_without_pod_the_whole_key_names_the_host_interface() -> None:
    names = {
        parsed({"CNI_CONTAINERID": f"cnitool-{c}", "CNI_IFNAME": i}, name=n).host_veth
        for c in "ab"
        for i in ("eth0", "eth1")
        for n in ("net", "other")
    }

    assert len(names) == 8
    assert all(name.startswith("cali") and len(name) == 15 for name in names)


def test_the_handle_is_calicos_and_tells_interfaces_apart() -> None:
    assert parsed().handle_id == "net.c0ffee"
    assert parsed({"CNI_IFNAME": "net1"}).handle_id == "net.c0ffee.net1"
    assert str(parsed().key) == "net/c0ffee/eth0"


# --- the version of an answer -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stdin", "version"),
    [
        (b'{"cniVersion": "0.4.0"}', "0.4.0"),
        (b'{"cniVersion": "9.9.9"}', "1.1.0"),
        (b'{"cniVersion": ["0.4.0"]}', "1.1.0"),
        (b"{}", "0.1.0"),
        (b"[]", "1.1.0"),
        (b"{", "1.1.0"),
        (b"[" * 100_000, "1.1.0"),
    ],
    ids=["known", "unknown", "list", "none", "no-object", "half", "deep"],
)
def test_even_an_unreadable_request_is_answered_in_some_version(stdin: bytes, version: str) -> None:
    assert version_of(stdin) == version


def test_another_plugins_interface_has_no_host_end_of_ours() -> None:
    ipam = {"type": "pycni-ipam"}

    assert parsed({"CNI_ARGS": POD}, type="bridge", ipam=ipam).host_veth == ""


def test_how_to_call_another_ipam_plugin() -> None:
    variables = {"CNI_PATH": "/opt/cni/bin", "CNI_ARGS": "IgnoreUnknown=1"}
    request = parsed(variables, ipam={"type": "host-local"})

    assert request.delegation == Delegation(
        plugin="host-local",
        path="/opt/cni/bin",
        args="IgnoreUnknown=1",
        config=json.dumps(DOCUMENT | {"ipam": {"type": "host-local"}}),
    )
    assert parsed(variables).delegation is None
    collecting = {"CNI_COMMAND": "GC"}
    assert parsed(collecting, ipam={"type": "static"}, cniVersion="1.1.0").delegation is not None


def test_a_configuration_in_another_encoding_is_handed_on_readable() -> None:
    text = json.dumps(DOCUMENT | {"ipam": {"type": "static"}})

    request = parse(ENVIRONMENT, text.encode("utf-16"))

    assert request.delegation is not None
    assert json.loads(request.delegation.config) == json.loads(text)
