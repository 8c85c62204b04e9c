"""The agent's configuration file."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.config import DEFAULT_CONFIG, AgentConfig, load_config, parse_config
from pycni.errors import InvalidInput


def test_nothing_stated_is_all_defaults() -> None:
    assert parse_config(None, source="x") == AgentConfig()
    assert parse_config({}, source="x") == AgentConfig()


def test_stated_keys_count() -> None:
    made = parse_config(
        {"node": "node-0", "hold_time_s": 30, "refresh_s": 30, "route_protocol": 77}, source="x"
    )

    assert made == AgentConfig(node="node-0", hold_time_s=30, refresh_s=30, route_protocol=77)


def test_the_datastore_lies_in_the_state_directory_unless_stated() -> None:
    assert AgentConfig(state_dir="/srv").datastore_path == Path("/srv/pycni.db")
    assert AgentConfig(datastore="/x.db").datastore_path == Path("/x.db")


def test_underlay_addresses_are_those_stated() -> None:
    both = AgentConfig(node_address="10.10.7.20/20", node_address6="fd00:10::20/64")

    assert [str(a) for a in both.own_addresses] == ["10.10.7.20/20", "fd00:10::20/64"]
    assert AgentConfig(node_address="169.254.7.1/16").own_addresses
    assert AgentConfig().own_addresses == ()


def test_a_protocol_may_be_named() -> None:
    assert parse_config({"route_protocol": "bgp"}, source="x").route_protocol == "bgp"


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ([], "agent.yaml: expected a mapping of keys"),
        ({"colour": "red"}, "agent.yaml: unknown key 'colour'; known are node, "),
        ({7: 7}, "agent.yaml: unknown key 7"),
        ({"node": 7}, "agent.yaml: node must be of type str, not 7"),
        ({"hold_time_s": "90"}, "agent.yaml: hold_time_s must be of type int, not '90'"),
        ({"hold_time_s": True}, "agent.yaml: hold_time_s must be of type int, not True"),
        ({"route_protocol": 1.5}, "agent.yaml: route_protocol must be of type str, not 1.5"),
        ({"run_dir": "run"}, "run_dir must be an absolute path"),
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
