"""What is read of Kubernetes's Services and EndpointSlices, and what is passed over."""

from ipaddress import ip_address
from typing import Any

import pytest

from pycni.model.schema_service import parse_balanced, parse_service, parse_slice
from pycni.model.services import BalancedService, EndpointSlice, Service

METADATA = {"namespace": "web", "name": "shop"}
SLICE = {"namespace": "web", "name": "shop-x7", "labels": {"kubernetes.io/service-name": "shop"}}


def service(**spec: Any) -> dict[str, Any]:  # noqa: ANN401 - any field of a Service.
    return {"metadata": METADATA, "spec": {"clusterIPs": ["10.96.0.7"]} | spec}


def endpoint_slice(*endpoints: object, address_type: str = "IPv4") -> dict[str, Any]:
    return {"metadata": SLICE, "addressType": address_type, "endpoints": list(endpoints)}


def test_a_service_has_its_addresses_and_its_policy() -> None:
    document = service(
        type="LoadBalancer",
        clusterIPs=["10.96.0.7", "fd00:96::7"],
        externalIPs=["203.0.113.9"],
        externalTrafficPolicy="Local",
    ) | {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}, {"ip": "2001:db8::1"}]}}}

    assert parse_service(document) == Service(
        "web/shop",
        is_local=True,
        cluster_ips=(ip_address("10.96.0.7"), ip_address("fd00:96::7")),
        external_ips=(ip_address("203.0.113.9"),),
        load_balancer_ips=(ip_address("198.51.100.1"), ip_address("2001:db8::1")),
    )


def test_an_older_service_has_one_cluster_ip_and_no_type() -> None:
    document = {"metadata": METADATA, "spec": {"clusterIP": "10.96.0.7"}}

    assert parse_service(document) == Service("web/shop", cluster_ips=(ip_address("10.96.0.7"),))


@pytest.mark.parametrize(
    "document",
    [
        service(type="ExternalName"),
        service(clusterIPs=["None"]),
        service(clusterIPs=[], clusterIP=""),
        service(clusterIPs="10.96.0.7"),
        {"metadata": {"name": "shop"}},
        {"metadata": {"namespace": "web"}, "spec": {"clusterIP": "10.96.0.7"}},
        {"metadata": {"name": "no/name"}, "spec": {"clusterIP": "10.96.0.7"}},
        {"metadata": []},
        {},
        [],
        None,
    ],
)
def test_what_has_no_address_or_no_name_is_no_service_to_announce(document: object) -> None:
    assert parse_service(document) is None


def test_what_is_no_address_is_left_out_and_the_rest_is_kept() -> None:
    document = service(externalIPs=["203.0.113.9", 7, "x", None, "fe80::1%eth0", "203.0.113.9"])

    read = parse_service(document | {"status": {"loadBalancer": {"ingress": ["x", {"ip": 9}]}}})

    assert read == Service(
        "web/shop",
        cluster_ips=(ip_address("10.96.0.7"),),
        external_ips=(ip_address("203.0.113.9"),),
    )


def test_an_address_that_kube_proxy_does_not_know_is_not_announced() -> None:
    ingress = [{"ip": "198.51.100.1", "ipMode": "Proxy"}, {"ip": "198.51.100.2", "ipMode": "VIP"}]

    read = parse_service(service() | {"status": {"loadBalancer": {"ingress": ingress}}})

    assert read is not None
    assert read.load_balancer_ips == (ip_address("198.51.100.2"),)


def test_a_slice_says_on_which_nodes_an_endpoint_is_ready() -> None:
    document = endpoint_slice(
        {"nodeName": "node-0", "conditions": {"ready": True}},
        {"nodeName": "node-1", "conditions": {"ready": False, "serving": True}},
        {"nodeName": "node-2"},
        {"conditions": {"ready": None}},
        {"nodeName": 7},
        "x",
    )

    assert parse_slice(document) == EndpointSlice(
        "web/shop-x7", "web/shop", 4, frozenset({"node-0", "node-2"}), is_ready=True
    )


def conditions(**said: object) -> EndpointSlice | None:
    return parse_slice(endpoint_slice({"nodeName": "node-0", "conditions": said}))


@pytest.mark.parametrize(
    ("said", "is_ready", "is_ending"),
    [
        ({}, True, False),
        ({"ready": None, "serving": None, "terminating": None}, True, False),
        ({"ready": True, "serving": True, "terminating": False}, True, False),
        # Its Service publishes addresses that are not ready.
        ({"ready": True, "serving": True, "terminating": True}, True, False),
        ({"ready": False, "serving": True, "terminating": True}, False, True),
        ({"ready": False, "serving": False, "terminating": True}, False, False),
        # Nothing said of serving: as of being ready.
        ({"ready": False, "terminating": True}, False, False),
        ({"ready": False, "serving": True}, False, False),
    ],
)
def test_what_the_conditions_of_an_endpoint_mean(
    said: dict[str, object], is_ready: bool, is_ending: bool
) -> None:
    read = conditions(**said)

    assert read is not None
    assert (read.is_ready, read.nodes) == (is_ready, frozenset({"node-0"} if is_ready else ()))
    assert (read.is_ending, read.ending_nodes) == (
        is_ending,
        frozenset({"node-0"} if is_ending else ()),
    )


def test_a_slice_may_have_no_ready_endpoint() -> None:
    document = endpoint_slice({"conditions": {"ready": False}}, address_type="IPv6")

    assert parse_slice(document) == EndpointSlice("web/shop-x7", "web/shop", 6)


@pytest.mark.parametrize(
    "document",
    [
        endpoint_slice(address_type="FQDN"),
        endpoint_slice() | {"metadata": METADATA},
        endpoint_slice() | {"metadata": SLICE | {"labels": {"kubernetes.io/service-name": 7}}},
        endpoint_slice() | {"metadata": SLICE | {"name": None}},
        {},
        None,
    ],
)
def test_a_slice_of_nothing_is_passed_over(document: object) -> None:
    assert parse_slice(document) is None


# --- what a Service wishes of a load balancer ---------------------------------------------------


def balanced(annotations: dict[str, object] | None = None, **spec: Any) -> BalancedService:  # noqa: ANN401
    metadata = METADATA | {"uid": "u1", "resourceVersion": "7", "annotations": annotations or {}}
    read = parse_balanced({"metadata": metadata, "spec": {"type": "LoadBalancer"} | spec})
    assert read is not None
    return read


def test_a_service_without_class_or_of_calicos_is_ours() -> None:
    made = balanced(ipFamilies=["IPv6", "IPv4", "IPv5"])

    assert made == BalancedService("web/shop", "u1", is_ours=True, versions=(6, 4))
    assert made.revision == "7"
    assert balanced().versions == (4,)
    assert balanced(loadBalancerClass="calico").is_ours
    assert not balanced(loadBalancerClass="other").is_ours
    assert not balanced(type="NodePort").is_ours


def test_an_ip_family_that_is_no_text_is_passed_over() -> None:
    assert balanced(ipFamilies=[{"IPv4": 4}, ["IPv4"], None, 6, "IPv6"]).versions == (6,)


def test_a_service_may_ask_for_addresses_and_pools() -> None:
    annotated = balanced(
        {
            "projectcalico.org/loadBalancerIPs": '["198.51.100.7", "2001:db8::7"]',
            "projectcalico.org/ipv4pools": '["four", "203.0.113.0/24"]',
            "projectcalico.org/ipv6pools": '["six"]',
        },
        loadBalancerIP="198.51.100.8",
    )

    assert annotated.addresses == (ip_address("198.51.100.7"), ip_address("2001:db8::7"))
    assert (annotated.ipv4_pools, annotated.ipv6_pools) == (("four", "203.0.113.0/24"), ("six",))
    plain = balanced(loadBalancerIP="198.51.100.8")
    assert plain.addresses == (ip_address("198.51.100.8"),)


def test_the_status_says_what_it_has() -> None:
    status = {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}, {"hostname": "a"}]}}

    read = parse_balanced({"metadata": METADATA, "status": status})

    assert read is not None
    assert read.ingress == (ip_address("198.51.100.1"),)


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("loadBalancerIPs", '["x"]', "cannot give x: that is no list of addresses"),
        ("loadBalancerIPs", '["1.1.1.1", "1.1.1.2"]', "ask for one of each IP version at most"),
        ("loadBalancerIPs", "1.1.1.1", "loadBalancerIPs: write a list in JSON"),
    ],
)
def test_wishes_that_can_not_be_read_are_a_fault(name: str, text: str, fault: str) -> None:
    made = balanced({f"projectcalico.org/{name}": text}, ipFamilies=["IPv4", "IPv6"])

    assert made.is_ours
    assert fault in made.fault


@pytest.mark.parametrize(("version", "text"), [(4, "{}"), (4, "four"), (6, "[7]"), (6, "[" * 9999)])
def test_pools_that_can_not_be_read_are_a_fault_of_their_ip_version(
    version: int, text: str
) -> None:
    annotations: dict[str, object] = {
        "projectcalico.org/ipv4pools": '["four"]',
        "projectcalico.org/ipv6pools": '["six"]',
    }
    annotations[f"projectcalico.org/ipv{version}pools"] = text

    made = balanced(annotations, ipFamilies=["IPv4", "IPv6"])

    ((its, fault),) = made.pool_faults
    assert (its, made.fault) == (version, "")
    assert f"ipv{version}pools: write a list in JSON" in fault
    assert (made.ipv4_pools, made.ipv6_pools) == (
        () if version == 4 else ("four",),
        () if version == 6 else ("six",),
    )


@pytest.mark.parametrize(
    ("policy", "requires_all"),
    [("RequireDualStack", True), ("PreferDualStack", False), ("SingleStack", False), (7, False)],
)
def test_one_may_require_both_ip_versions(policy: object, requires_all: bool) -> None:
    assert balanced(ipFamilyPolicy=policy).requires_all is requires_all


def test_pools_play_no_part_where_addresses_are_asked_for() -> None:
    wishes: dict[str, object] = {
        "projectcalico.org/loadBalancerIPs": '["198.51.100.7"]',
        "projectcalico.org/ipv4pools": "four",
    }

    made = balanced(wishes)

    assert [str(one) for one in made.addresses] == ["198.51.100.7"]
    assert (made.pool_faults, made.ipv4_pools) == ((), ())


def test_pools_of_an_ip_version_that_it_does_not_have_are_not_read() -> None:
    made = balanced({"projectcalico.org/ipv6pools": "[7]"})

    assert made == BalancedService("web/shop", "u1", is_ours=True, versions=(4,))


def test_what_has_no_name_wishes_nothing() -> None:
    assert parse_balanced({"spec": {"type": "LoadBalancer"}}) is None
