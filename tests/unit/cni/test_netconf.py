"""The network configuration: types, bad values, and what is made of good ones."""

import json
from dataclasses import replace
from typing import Any

import pytest

from pycni.cni.commands import Command
from pycni.cni.errors import CniError, Code
from pycni.cni.netconf import NetworkConfig, read_config
from pycni.model.endpoints import Subnet

VALID, OLDER = "cni.dev/valid-attachments", "cni.dev/attachments"


def config(*, command: Command = Command.ADD, **document: Any) -> NetworkConfig:  # noqa: ANN401 - any JSON.
    whole = json.loads(json.dumps({"name": "net", **document}))
    return read_config(whole, version="1.1.0", command=command)


def refused(**document: Any) -> str:  # noqa: ANN401 - any JSON.
    with pytest.raises(CniError) as caught:
        config(**document)
    assert caught.value.code is Code.INVALID_CONFIGURATION
    return caught.value.msg.removeprefix("network configuration: ")


def test_the_defaults() -> None:
    assert config() == NetworkConfig(
        name="net", cni_version="1.1.0", datastore="/var/lib/pycni/pycni.db"
    )


def test_everything_stated() -> None:
    made = config(
        nodename="node-0",
        mtu=1400,
        agent_timeout=5,
        run_dir="/run/x",
        state_dir="/var/x",
        datastore="/srv/x.db",
        datastore_type="sqlite",
        ipam={
            "type": "pycni-ipam",
            "ipv4_pools": ["default", "10.0.0.0/16"],
            "ipv6_pools": ["fd00::/48"],
            "assign_ipv4": "false",
            "assign_ipv6": "true",
        },
        log_level="DEBUG",
        container_settings={"allow_ip_forwarding": True},
        isDefaultGateway=False,
        dns={"nameservers": ["10.0.0.10"]},
        prevResult={"ips": None},
        unknown_key={"is": "ignored"},
    )

    assert made == NetworkConfig(
        name="net",
        cni_version="1.1.0",
        nodename="node-0",
        mtu=1400,
        agent_timeout_s=5,
        run_dir="/run/x",
        state_dir="/var/x",
        datastore="/srv/x.db",
        ipv4_pools=("default", "10.0.0.0/16"),
        ipv6_pools=("fd00::/48",),
        assign_ipv4=False,
        assign_ipv6=True,
        log_level="debug",
        allow_ip_forwarding=True,
        has_default_route=False,
        dns={"nameservers": ["10.0.0.10"]},
        prev_result={"interfaces": [], "ips": [], "routes": []},
    )


def test_the_datastore_lies_in_the_state_directory() -> None:
    assert config(state_dir="/srv").datastore == "/srv/pycni.db"


def test_null_is_as_good_as_absent() -> None:
    assert config(mtu=None, ipam=None, dns=None, run_dir=None) == config()


def test_a_pool_may_be_spelled_at_length() -> None:
    pools = ["fd00:0000:0000:001a::/64", "named"]

    assert config(ipam={"ipv6_pools": pools}).ipv6_pools == ("fd00:0:0:1a::/64", "named")


@pytest.mark.parametrize("value", [False, "false"])
def test_a_switch_may_be_off_in_both_spellings(value: object) -> None:
    assert config(ipam={"assign_ipv6": value}).assign_ipv6 is False


@pytest.mark.parametrize("name", [None, 7, "", "-net", "a/b", "net\n", "\ud800"])
def test_a_bad_network_name_is_refused(name: object) -> None:
    assert refused(name=name).startswith("'name' must be a string")


WRONG_TYPES: list[tuple[str, Any]] = [
    ("nodename", 7),
    ("mtu", "1500"),
    ("mtu", True),
    ("mtu", 1500.0),
    ("agent_timeout", "5"),
    ("run_dir", 7),
    ("state_dir", []),
    ("datastore", {}),
    ("datastore_type", 7),
    ("ipam", "host-local"),
    ("log_level", 7),
    ("container_settings", []),
    ("isDefaultGateway", "true"),
]


@pytest.mark.parametrize(("key", "value"), WRONG_TYPES)
def test_a_known_key_of_another_type_is_refused_by_name(key: str, value: object) -> None:
    text = refused(**{key: value})

    assert text.startswith(f"'{key}' must be of type")


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"nodename": "Node_0"}, "is no node name"),
        ({"mtu": 67}, "outside 68–65535"),
        ({"mtu": 65536}, "outside 68–65535"),
        ({"dns": []}, "'dns' must be an object"),
        ({"dns": {"nameservers": "10.0.0.10"}}, "'nameservers' must be a list of strings"),
        ({"dns": {"search": [7]}}, "'search' must be a list of strings"),
        ({"dns": {"domain": 7}}, "'domain' must be a string"),
        ({"mtu": -1}, "outside 68–65535"),
        ({"agent_timeout": 0}, "outside 1–9999"),
        ({"agent_timeout": 10_000}, "outside 1–9999"),
        ({"run_dir": "run"}, "'run_dir' must be an absolute path"),
        ({"run_dir": ""}, "'run_dir' must be an absolute path"),
        ({"run_dir": "/run/\0"}, "'run_dir' must be an absolute path"),
        ({"run_dir": "/run/\ud800"}, "'run_dir' must be an absolute path"),
        ({"state_dir": "x"}, "'state_dir' must be an absolute path"),
        ({"datastore": "x"}, "'datastore' must be an absolute path"),
        ({"log_level": "loud"}, "use debug, info, warning, error or none"),
        ({"prevResult": []}, "'prevResult' must be an object"),
        ({"ipam": {"type": 7}}, "'type' must be of type str"),
        ({"ipam": {"ipv4_pools": "x"}}, "'ipv4_pools' must be of type list"),
        ({"ipam": {"ipv4_pools": [7]}}, "must hold strings"),
        ({"ipam": {"ipv4_pools": [""]}}, "must hold strings"),
        ({"ipam": {"ipv6_pools": ["fd00::/x"]}}, "is no CIDR"),
        ({"ipam": {"ipv6_pools": ["fd00::%eth0/64"]}}, "is no CIDR"),
        ({"ipam": {"ipv4_pools": ["10.0.0.1/8"]}}, "is no CIDR"),
        ({"ipam": {"ipv4_pools": ["fd00::/48"]}}, "fd00::/48 is IPv6: name it in ipv6_pools"),
        ({"ipam": {"ipv6_pools": ["six", "10.0.0.0/8"]}}, "is IPv4: name it in ipv4_pools"),
        ({"dataplane_options": {"type": "grpc"}}, "'dataplane_options' asks for type 'grpc'"),
        ({"dataplane_options": "grpc"}, "'dataplane_options' must be of type dict"),
        ({"feature_control": {"ip_addrs_no_ipam": True}}, "asks for 'ip_addrs_no_ipam', which"),
        ({"feature_control": {"ip_addrs_no_ipam": False, "floating_ips": True}}, "'floating_ips'"),
        (
            {"readiness_gates": ["http://127.0.0.1:9099/readiness"]},
            "wait for http://127.0.0.1:9099",
        ),
        ({"ipam": {"assign_ipv6": "yes"}}, 'must be "true" or "false"'),
        ({"ipam": {"assign_ipv4": "false"}}, "a pod needs an address"),
        ({"container_settings": {"allow_ip_forwarding": 1}}, "must be of type bool"),
        ({"datastore_type": "kubernetes", "datastore": "/x.db"}, "contradict each other"),
        ({"datastore_type": "sqlite", "datastore": "kubernetes"}, "contradict each other"),
    ],
)
def test_bad_values_are_refused(document: dict[str, Any], complaint: str) -> None:
    assert complaint in refused(**document)


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"datastore_type": "etcdv3"}, "datastore_type 'etcdv3' is not supported: use 'sqlite'"),
        ({"ipam": {"type": "pycni"}}, "ipam.type 'pycni' is no IPAM plugin: use 'pycni-ipam'"),
        ({"ipam": {"type": "../x"}}, "ipam.type '../x' is no IPAM plugin"),
        ({"ipam": {"type": ""}}, "ipam.type '' is no IPAM plugin"),
    ],
)
def test_what_is_not_supported_is_named_with_its_value(
    document: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(CniError) as caught:
        config(**document)

    assert caught.value.code is Code.UNSUPPORTED_FIELD
    assert complaint in caught.value.msg


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ({}, "/var/lib/pycni/pycni.db"),
        ({"datastore_type": "sqlite", "datastore": "/x.db"}, "/x.db"),
        ({"datastore_type": "kubernetes"}, "kubernetes"),
        ({"datastore": "kubernetes"}, "kubernetes"),
    ],
)
def test_the_datastore_is_a_file_or_the_cluster(document: dict[str, Any], place: str) -> None:
    assert config(**document).datastore == place


def test_another_ipam_plugins_section_is_its_own() -> None:
    made = config(ipam={"type": "host-local", "ipv4_pools": 7, "assign_ipv4": "no"})

    assert made == replace(config(), ipam_plugin="host-local")


def test_check_needs_the_result_of_the_add() -> None:
    assert "CHECK needs 'prevResult'" in refused(command=Command.CHECK)
    assert config(command=Command.CHECK, prevResult={}).prev_result == {
        "interfaces": [],
        "ips": [],
        "routes": [],
    }


MISSING: dict[str, Any] = {
    "dataplane_options": {"type": "grpc"},
    "feature_control": {"floating_ips": True},
    "readiness_gates": ["http://127.0.0.1:9099"],
}


@pytest.mark.parametrize("absent", [None, {}, {"type": "linux"}])
def test_what_asks_for_nothing_that_is_missing_passes(absent: dict[str, Any] | None) -> None:
    off = {"ip_addrs_no_ipam": False, "floating_ips": False}

    assert config(dataplane_options=absent, feature_control=absent and off) == config()
    assert config(feature_control={}, readiness_gates=[]) == config(readiness_gates=None)


@pytest.mark.parametrize("command", [Command.CHECK, Command.DEL, Command.GC, Command.STATUS])
def test_what_is_missing_fails_no_other_verb(command: Command) -> None:
    said: dict[str, Any] = {"prevResult": {}} if command is Command.CHECK else {}

    assert config(command=command, **said, **MISSING) == config(command=command, **said)


@pytest.mark.parametrize("command", [Command.DEL, Command.GC, Command.STATUS])
def test_what_only_an_add_looks_at_cannot_fail_other_verbs(command: Command) -> None:
    made = config(command=command, prevResult=[], runtimeConfig={"ips": 7}, args=7)

    assert made == config(command=command)
    swapped = {"ipv4_pools": ["fd00::/48"], "ipv6_pools": ["10.0.0.0/8"]}
    assert config(command=command, ipam=swapped).ipv4_pools == ("fd00::/48",)


@pytest.mark.parametrize(
    ("ipam", "versions"),
    [
        ({}, (4,)),
        ({"assign_ipv4": True}, (4,)),
        ({"assign_ipv4": "true"}, (4,)),
        ({"assign_ipv6": True}, (4, 6)),
        ({"assign_ipv4": False, "assign_ipv6": True}, (6,)),
    ],
)
def test_the_families_of_a_pod(ipam: dict[str, Any], versions: tuple[int, ...]) -> None:
    assert config(ipam=ipam).versions == versions


# --- GC -----------------------------------------------------------------------------------------

ONE = {"containerID": "c0ffee", "ifname": "eth0"}
KEPT = frozenset({("c0ffee", "eth0")})


def listed(key: str, value: object) -> dict[str, Any]:
    return {key: value}


@pytest.mark.parametrize("key", [VALID, OLDER])
def test_gc_reads_its_list_under_both_names(key: str) -> None:
    assert config(command=Command.GC, **listed(key, [ONE])).valid_attachments == KEPT


def test_an_empty_list_is_not_no_list() -> None:
    empty: list[Any] = [[], None]

    assert [config(command=Command.GC, **listed(VALID, e)).valid_attachments for e in empty] == [
        frozenset(),
        frozenset(),
    ]
    assert config(command=Command.GC).valid_attachments is None


def test_other_verbs_do_not_look_at_the_list() -> None:
    assert config(**listed(VALID, 7)).valid_attachments is None


@pytest.mark.parametrize("value", [7, {}, ["x"], [{}], [{"containerID": "x"}], [{"ifname": 7}]])
def test_a_damaged_list_is_refused(value: object) -> None:
    assert "cni.dev/valid-attachments" in refused(command=Command.GC, **listed(VALID, value))


# --- for other main plugins -----------------------------------------------------------------------


def for_bridge(command: Command = Command.ADD, **ipam: Any) -> NetworkConfig:  # noqa: ANN401 - any JSON.
    """Return what we read where `bridge` hands on its own configuration."""
    # Keys beside `ipam` are its own, whatever they mean to us.
    keys: dict[str, Any] = {"type": "bridge", "mtu": 1, "isDefaultGateway": "no", "dns": 7}
    return config(command=command, ipam={"type": "pycni-ipam", **ipam}, **keys)


def test_another_main_plugin_is_told_by_its_type() -> None:
    made = for_bridge()

    assert made == NetworkConfig(
        name="net", cni_version="1.1.0", datastore="/var/lib/pycni/pycni.db", is_ipam=True
    )
    assert not config(type="pycni", ipam={"type": "pycni-ipam"}).is_ipam
    assert not config(type="pycni").is_ipam
    # Without the word it is no call for addresses.
    assert not config(type="bridge").is_ipam


def test_everything_that_may_be_said_of_addresses() -> None:
    route = {"dst": "10.0.0.0/8", "gw": "192.168.0.1", "mtu": 1400, "scope": 253}
    made = for_bridge(
        ipv4_pools=["default"], subnet="block", routes=[route], dns={"domain": "cluster.local"}
    )

    assert (made.ipv4_pools, made.subnet) == (("default",), Subnet.BLOCK)
    assert made.routes == (route,)
    assert made.dns == {"domain": "cluster.local"}


@pytest.mark.parametrize(
    ("ipam", "complaint"),
    [
        ({"subnet": "usePodCidr"}, "ipam.subnet 'usePodCidr' is unknown: use none, block, pool"),
        ({"subnet": True}, "'subnet' must be of type str"),
        ({"routes": {}}, "'routes' must be of type list"),
        ({"routes": [7]}, "'routes' must be a list of objects"),
        ({"routes": [{}]}, "needs 'dst'"),
        ({"routes": [{"dst": 5}]}, "needs 'dst'"),
        ({"routes": [{"dst": "10.0.0.0/8", "gw": 7}]}, "needs 'dst'"),
        ({"routes": [{"dst": "10.0.0.1/8"}]}, "needs 'dst'"),
        ({"routes": [{"dst": "fd00::%eth0/64"}]}, "needs 'dst'"),
        ({"routes": [{"dst": "::/0", "gw": "fe80::1%eth0"}]}, "needs 'dst'"),
        ({"routes": [{"dst": "10.0.0.0/8", "gw": "x"}]}, "may have 'gw', an address"),
        ({"routes": [{"dst": "10.0.0.0/8", "gw": "fd00::1"}]}, "not of one IP version"),
        ({"routes": [{"dst": "10.0.0.0/8", "via": "x"}]}, "unknown key 'via'"),
        ({"routes": [{"dst": "10.0.0.0/8", "mtu": "x"}]}, "'mtu' of 10.0.0.0/8 must be a number"),
        ({"dns": []}, "'dns' must be an object"),
    ],
)
def test_what_cannot_be_said_of_addresses(ipam: dict[str, Any], complaint: str) -> None:
    with pytest.raises(CniError) as caught:
        for_bridge(**ipam)

    assert caught.value.code is Code.INVALID_CONFIGURATION
    assert complaint in caught.value.msg


def test_an_unknown_key_about_addresses_is_refused_unless_it_is_to_be_deleted() -> None:
    with pytest.raises(CniError) as caught:
        for_bridge(ranges=[])

    assert caught.value.code is Code.UNSUPPORTED_FIELD
    assert "ipam.ranges is unknown: use type, ipv4_pools" in caught.value.msg
    assert for_bridge(Command.DEL, ranges=[]).is_ipam
