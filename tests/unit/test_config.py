"""The agent's configuration file."""

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.config import (
    DEFAULT_CONFIG,
    AgentConfig,
    load_config,
    parse_config,
    with_environment,
)
from pycni.errors import InvalidInput

IN_CLUSTER = {"datastore": "kubernetes"}


def test_nothing_stated_is_all_defaults() -> None:
    assert parse_config(None, source="x") == AgentConfig()
    assert parse_config({}, source="x") == AgentConfig()


def test_stated_keys_count() -> None:
    made = parse_config(
        {"node": "node-0", "hold_time_s": 30, "refresh_s": 30, "route_protocol": 77}, source="x"
    )

    assert made == AgentConfig(node="node-0", hold_time_s=30, refresh_s=30, route_protocol=77)


def test_the_datastore_lies_in_the_state_directory_unless_stated() -> None:
    assert AgentConfig(state_dir="/srv").datastore_place == "/srv/pycni.db"
    assert AgentConfig(datastore="/x.db").datastore_place == "/x.db"


def test_the_cluster_may_be_the_datastore() -> None:
    config = AgentConfig(datastore="kubernetes", kubeconfig="/etc/kubernetes/pycni.conf")

    assert (config.is_in_kubernetes, config.datastore_place) == (True, "kubernetes")
    assert not AgentConfig().is_in_kubernetes


def test_underlay_addresses_are_those_stated() -> None:
    both = AgentConfig(node_address="10.10.7.20/20", node_address6="fd00:10::20/64")

    assert [str(a) for a in both.own_addresses] == ["10.10.7.20/20", "fd00:10::20/64"]
    assert AgentConfig(node_address="169.254.7.1/16").own_addresses
    assert AgentConfig().own_addresses == ()


def test_methods_of_autodetection_are_those_stated() -> None:
    both = AgentConfig(
        ip_autodetection_method="interface=eth.*", ip6_autodetection_method="first-found"
    )

    assert {version: str(one) for version, one in both.autodetection.items()} == {
        4: "ip_autodetection_method interface=eth.*",
        6: "ip6_autodetection_method first-found",
    }
    assert AgentConfig().autodetection == {}


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"ip_autodetection_method": "eth0"}, "ip_autodetection_method 'eth0' is no method"),
        ({"ip6_autodetection_method": "cidr=10.0.0.0/8"}, "none of these is an IPv6 network"),
        ({"ip_autodetection_method": 4}, "must be of type str"),
        (
            {"ip_autodetection_method": "first-found", "node_address": "10.0.0.1/24"},
            "node_address and ip_autodetection_method are both set: remove one of them",
        ),
        (
            {"ip6_autodetection_method": "kubernetes-internal-ip"},
            "ip6_autodetection_method kubernetes-internal-ip is for datastore: kubernetes",
        ),
    ],
)
def test_a_method_that_cannot_serve_is_refused(document: object, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(complaint)):
        parse_config(document, source="x")


def test_the_environment_says_a_method_where_the_file_says_nothing() -> None:
    said = {"IP_AUTODETECTION_METHOD": "can-reach=8.8.8.8", "IP6_AUTODETECTION_METHOD": ""}

    def method(**stated: str) -> str:
        return with_environment(AgentConfig(**stated), said).ip_autodetection_method  # type: ignore[arg-type]  # texts alone

    assert method() == "can-reach=8.8.8.8"
    assert method(ip_autodetection_method="first-found") == "first-found"
    assert method(node_address="10.0.0.1/24") == ""
    assert with_environment(AgentConfig(), said).ip6_autodetection_method == ""


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("eth0", "IP_AUTODETECTION_METHOD 'eth0' is no method; possible are first-found"),
        ("kubernetes-internal-ip", "IP_AUTODETECTION_METHOD of the environment: "),
    ],
)
def test_a_mistake_of_the_environment_is_named(said: str, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        with_environment(AgentConfig(), {"IP_AUTODETECTION_METHOD": said})


def test_first_pools_are_those_stated() -> None:
    both = AgentConfig(datastore="kubernetes", pool="10.0.0.0/8", pool6="fd00::/48")

    assert [str(one) for one in both.first_pools] == ["10.0.0.0/8", "fd00::/48"]
    assert AgentConfig().first_pools == ()


def test_the_networks_configuration_has_a_place_and_a_template() -> None:
    both = AgentConfig(cni_conflist="/etc/cni/net.d/10-pycni.conflist", cni_template="/t.conflist")

    assert (both.cni_conflist, both.cni_template) != ("", "")


def test_a_protocol_may_be_named() -> None:
    assert parse_config({"route_protocol": "bgp"}, source="x").route_protocol == "bgp"


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ([], "agent.yaml: expected a mapping of keys"),
        ({"colour": "red"}, "agent.yaml: unknown key 'colour'; known are node, "),
        ({7: 7}, "agent.yaml: unknown key 7"),
        ({"node": 7}, "agent.yaml: node must be of type str, not 7"),
        ({"cni_conflist": "/c"}, "cni_conflist is set, but cni_template is not: set both"),
        ({"cni_template": "/t"}, "cni_template is set, but cni_conflist is not: set both"),
        ({"cni_conflist": "c", "cni_template": "/t"}, "cni_conflist must be an absolute path"),
        ({"cni_conflist": "/c.txt", "cni_template": "/t"}, "cni_conflist must end in .conflist"),
        ({"hold_time_s": "90"}, "agent.yaml: hold_time_s must be of type int, not '90'"),
        ({"hold_time_s": True}, "agent.yaml: hold_time_s must be of type int, not True"),
        ({"route_protocol": 1.5}, "agent.yaml: route_protocol must be of type str, not 1.5"),
        ({"run_dir": "run"}, "run_dir must be an absolute path"),
        ({"pool": "10.0.0.0/8"}, "pool is used with datastore: kubernetes only; remove it"),
        ({**IN_CLUSTER, "pool": "10.0.0.1/8"}, "pool '10.0.0.1/8': 10.0.0.1/8 has host bits set"),
        ({**IN_CLUSTER, "pool": "10.0.0.0/27"}, "pool '10.0.0.0/27' must be an IPv4 network of a"),
        ({**IN_CLUSTER, "pool6": "10.0.0.0/8"}, "pool6 '10.0.0.0/8' must be an IPv6 network of a"),
        ({**IN_CLUSTER, "pool6": "fd00::/123"}, "pool6 'fd00::/123' must be an IPv6 network of a"),
        ({"kubeconfig": "/k"}, "kubeconfig is used with datastore: kubernetes only; remove it"),
        ({"datastore": "kubernetes", "kubeconfig": "k"}, "kubeconfig must be an absolute path"),
        ({"services_file": "s.yaml"}, "services_file must be an absolute path"),
        (
            {"datastore": "kubernetes", "services_file": "/s.yaml"},
            "services_file: with datastore: kubernetes its Services are read: remove it",
        ),
        ({"state_dir": ""}, "state_dir must be an absolute path"),
        ({"hold_time_s": 2}, "hold_time_s 2 is outside 3 to 65535"),
        ({"restart_time_s": 5000}, "restart_time_s 5000 is outside 1 to 4095"),
        ({"tunnel_mtu": -1}, "tunnel_mtu -1 is outside 0 to 65535"),
        ({"metrics_port": 65536}, "metrics_port 65536 is outside 0 to 65535"),
        ({"refresh_s": 0}, "refresh_s 0 is outside 1 to 86400"),
        ({"refresh_s": float("nan")}, "refresh_s nan is outside 1 to 86400"),
        ({"node_address": "10.0.0.300/24"}, "node_address '10.0.0.300/24': '10.0.0.300/24' does"),
        (
            {"node_address": "10.0.0.3"},
            "node_address '10.0.0.3' must be IPv4 with the subnet's prefix",
        ),
        (
            {"node_address": "fd00::1/64"},
            "node_address 'fd00::1/64' must be IPv4 with the subnet's prefix length",
        ),
        ({"node_address": "127.0.0.1/8"}, "node_address '127.0.0.1/8' is no address by which"),
        ({"node_address6": "10.0.0.1/24"}, "node_address6 '10.0.0.1/24' must be IPv6"),
        ({"node_address6": "fd00::1"}, "node_address6 'fd00::1' must be IPv6 with the subnet's"),
        ({"node_address6": "fe80::1/64"}, "node_address6 'fe80::1/64' is no address by which"),
        ({"log_level": "loud"}, "log_level 'loud': use debug, info, warning or error"),
    ],
)
def test_a_mistake_is_named(document: object, complaint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_config(document, source="agent.yaml")

    assert str(caught.value).startswith(complaint)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text("node: node-0\nrefresh_s: 30\n")

    assert load_config(path) == AgentConfig(node="node-0", refresh_s=30)


@pytest.mark.skipif(DEFAULT_CONFIG.exists(), reason="this machine has a configuration")
def test_the_default_file_may_be_absent() -> None:
    assert load_config(DEFAULT_CONFIG) == AgentConfig()


def test_another_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such file"):
        load_config(tmp_path / "agent.yaml")


@pytest.mark.parametrize("content", [b"{", b"a: b: c", b"\xff\xfe\xff"])
def test_what_is_no_yaml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "agent.yaml"
    path.write_bytes(content)

    with pytest.raises(InvalidInput, match=str(path)):
        load_config(path)


def test_what_can_not_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=os.strerror(21)):
        load_config(tmp_path)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.dictionaries(
            st.sampled_from(["node", "refresh_s", "run_dir", "route_protocol"]) | st.text(), inner
        ),
    )
)
def test_any_document_is_a_configuration_or_refused(document: Any) -> None:  # noqa: ANN401 - any YAML.
    try:
        parse_config(document, source="x")
    except InvalidInput:
        return


@pytest.mark.parametrize(
    ("key", "value"), [("extended_next_hop", 1), ("extended_next_hop", "yes"), ("refresh_s", True)]
)
def test_a_truth_is_no_number_and_no_word(key: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=f"x: {key} must be of type"):
        parse_config({key: value}, source="x")


def test_a_truth_is_taken() -> None:
    assert parse_config({"extended_next_hop": True}, source="x").extended_next_hop


def test_page_of_settings_names_each_and_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "agent.md").read_text()
    rows = [line.split("|")[1:3] for line in page.splitlines() if line.startswith("| `")]
    listed = {
        key: default.strip().strip("`")
        for keys, defaults in rows
        for key, default in zip(
            re.findall(r"`(\w+)`", keys),
            defaults.split(", ") if "`, `" in keys else [defaults],
            strict=True,
        )
    }
    stated = {f.name: f.default for f in fields(AgentConfig)}

    assert set(listed) == set(stated)
    for key, default in stated.items():
        if default != "":  # in words: what an absent one means
            said = int(default) if isinstance(default, float) else default
            # As YAML spells it.
            assert listed[key] == str(said).lower()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("node: [", "line 1, column 8: expected"),
        ("node: a\nnode: b", "line 2, column 1: the key 'node' is given twice"),
        ("node: 2026-99-99", "month must be"),
        ("node: a\n---\nnode: b", "settings are one document, and here are 2"),
    ],
)
def test_broken_file_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(text)

    with pytest.raises(InvalidInput, match=words) as refused:
        load_config(path)

    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_empty_file_states_nothing(tmp_path: Path) -> None:
    (tmp_path / "agent.yaml").write_text("")

    assert load_config(tmp_path / "agent.yaml") == AgentConfig()
