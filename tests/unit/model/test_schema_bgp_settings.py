"""BGPConfiguration as people write it: all nodes' settings, and what one node has of its own."""

from ipaddress import ip_network
from typing import Any

import pytest

from pycni.errors import InvalidInput
from pycni.model.resources_bgp import BGPConfiguration, LogSeverity, PrefixAdvertisement
from pycni.model.schema_yaml import parse_document, to_document

TAGGED = (PrefixAdvertisement(ip_network("10.0.0.0/8"), ("own", "64512:7")),)


def document(name: str, **spec: object) -> dict[str, Any]:
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "BGPConfiguration",
        "metadata": {"name": name},
        "spec": spec,
    }


ACCEPTED = [
    (document("default"), BGPConfiguration()),
    (document("default", listenPort=179), BGPConfiguration(listen_port=179)),
    (
        document("default", ignoredInterfaces=["eth0", "br-*", "eth0", "a_b.C-5*"]),
        BGPConfiguration(ignored_interfaces=("eth0", "br-*", "a_b.C-5*")),
    ),
    (document("default", bindMode="NodeIP"), BGPConfiguration()),
    (document("default", bindMode="None"), BGPConfiguration(is_bound_to_node_ip=False)),
    (document("default", logSeverityScreen=""), BGPConfiguration()),
    *(
        (document("default", logSeverityScreen=text), BGPConfiguration(log_severity=severity))
        for text, severity in (
            ("Trace", LogSeverity.TRACE),
            ("DEBUG", LogSeverity.DEBUG),
            ("info", LogSeverity.INFO),
            ("Warning", LogSeverity.WARNING),
            ("Error", LogSeverity.ERROR),
            ("Fatal", LogSeverity.FATAL),
        )
    ),
    (document("node.one"), BGPConfiguration("node.one")),
    (
        document(
            "node.one.example",
            listenPort=1790,
            communities=[{"name": "own", "value": "64512:1"}],
            prefixAdvertisements=[{"cidr": "10.0.0.0/8", "communities": ["own", "64512:7"]}],
        ),
        BGPConfiguration(
            "node.one.example",
            listen_port=1790,
            communities=(("own", "64512:1"),),
            prefix_advertisements=TAGGED,
        ),
    ),
    # As Calico's server completes it, and what says nothing.
    (
        document(
            "node.one",
            logSeverityScreen="Info",
            serviceLoadBalancerAggregation="Enabled",
            serviceClusterIPs=[],
            ignoredInterfaces=[],
            asNumber=None,
        ),
        BGPConfiguration("node.one", log_severity=LogSeverity.INFO),
    ),
]


@pytest.mark.parametrize(("text", "value"), ACCEPTED)
def test_what_is_written_becomes_this_value_and_is_shown_again(
    text: dict[str, Any], value: BGPConfiguration
) -> None:
    assert parse_document(text) == value
    assert parse_document(to_document(value)) == value


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("asNumber", 64513),
        ("nodeToNodeMeshEnabled", True),
        ("nodeMeshPassword", "secret"),
        ("nodeMeshMaxRestartTime", "1m"),
        ("serviceClusterIPs", [{"cidr": "10.96.0.0/12"}]),
        ("serviceExternalIPs", [{"cidr": "10.96.0.0/12"}]),
        ("serviceLoadBalancerIPs", [{"cidr": "10.96.0.0/12"}]),
        ("serviceLoadBalancerAggregation", "Disabled"),
        ("bindMode", "NodeIP"),
        ("ignoredInterfaces", ["eth0"]),
    ],
)
def test_what_holds_for_all_nodes_is_no_single_nodes(field: str, said: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_document(document("node.one", **{field: said}))

    start, _, end = str(refused.value).partition("; ")
    assert f"spec.{field}: belongs into the BGPConfiguration named default" in start
    assert "communities, listenPort" in end


@pytest.mark.parametrize("name", ["other", "node.", "node", "nodes.one"])
def test_an_object_of_another_name_means_nothing_and_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"metadata\.name: .*(default, or node\.NAME|no valid)"):
        parse_document(document(name))


def test_a_nodes_own_settings_go_before_those_of_all_nodes() -> None:
    common = BGPConfiguration(
        as_number=64513,
        listen_port=1790,
        communities=(("all", "64512:2"),),
        prefix_advertisements=(PrefixAdvertisement(ip_network("10.0.0.0/8"), ("all",)),),
    )
    own = BGPConfiguration(
        "node.one", communities=(("own", "64512:1"),), prefix_advertisements=TAGGED
    )

    both = common.with_own(own)

    assert (both.as_number, both.listen_port) == (64513, 1790)
    assert both.prefix_advertisements == TAGGED
    assert both.communities_of(TAGGED[0]) == {"64512:1", "64512:7"}
    assert common.with_own(BGPConfiguration("node.one", listen_port=179)).listen_port == 179
    assert common.with_own(None) == common


@pytest.mark.parametrize(
    ("common", "own", "both"),
    [
        (LogSeverity.DEBUG, LogSeverity.INFO, LogSeverity.INFO),
        (LogSeverity.DEBUG, None, LogSeverity.DEBUG),
        (None, LogSeverity.ERROR, LogSeverity.ERROR),
        (None, None, None),
    ],
)
def test_a_node_logs_as_its_own_settings_say(
    common: LogSeverity | None, own: LogSeverity | None, both: LogSeverity | None
) -> None:
    made = BGPConfiguration(log_severity=common)

    assert made.with_own(BGPConfiguration("node.one", log_severity=own)).log_severity == both


@pytest.mark.parametrize(
    "said", ["*", "**", "", "a23456789012345b", "eth?", "eth[01]", "eth0 ", "ünet", "a/b", 7, None]
)
def test_what_names_no_interfaces_is_refused_with_what_does(said: object) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_document(document("default", ignoredInterfaces=["lo", said]))

    assert f"spec.ignoredInterfaces[1]: {said!r} names no interfaces: write up to 15" in str(
        refused.value
    )


def test_an_ignored_interface_is_named_in_full_or_by_a_pattern() -> None:
    made = BGPConfiguration(ignored_interfaces=("eth0", "br-*"))

    names = ("eth0", "br-lan", "br-", "eth01", "xbr-0", "ETH0")
    assert [name for name in names if made.ignores(name)] == ["eth0", "br-lan", "br-"]
    assert not BGPConfiguration().ignores("eth0")
