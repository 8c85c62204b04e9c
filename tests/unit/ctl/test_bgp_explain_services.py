"""`pycnictl bgp explain` of addresses of Services, which nodes announce to routers alone."""

import json
from dataclasses import replace
from ipaddress import ip_network

from pycni.model.resources import IPPool, PoolUse
from pycni.model.resources_bgp import BGPConfiguration, BGPPeer
from pycni.model.service_ranges import ServiceRanges
from tests.unit.ctl.conftest import Machine
from tests.unit.ctl.test_bgp_explain import CLUSTER, NODES, POOL, ROUTER, parts, said
from tests.unit.written_books import CIDR

RANGE = ip_network("10.96.0.0/12")


def test_addresses_of_services_are_explained_node_by_node(machine: Machine) -> None:
    ranges = ServiceRanges(cluster=(ip_network("10.96.0.0/12"),))
    router = BGPPeer("tor", node="node-0", peer_ip=ROUTER, as_number=65000)
    excluded = "node.kubernetes.io/exclude-from-external-load-balancers"
    last = replace(NODES[2], labels=((excluded, "true"),))
    machine.write(POOL, *NODES[:2], last, router, BGPConfiguration(services=ranges))

    assert said(machine, "10.96.0.7") == [
        (
            "10.96.0.7/32 is perhaps a Service's (none are known here), in 10.96.0.0/12, a range of"
            " Services"
        ),
        "",
        "NODE PART WHY",
        ("node-0 announces it as 10.96.0.0/12, for serviceClusterIPs; to 10.10.0.1 (BGPPeer tor)"),
        (
            "node-1 announces it as 10.96.0.0/12, for serviceClusterIPs; to nobody: no router or"
            " reflector is its peer"
        ),
        f"node-2 keeps it the node has the label {excluded}: true",
        "",
        "no agent runs on this machine: what comes and goes by BGP was not looked at",
    ]


def test_services_are_read_of_a_file_that_is_named(machine: Machine) -> None:
    file = machine.path / "services.yaml"
    file.write_text("kind: Service\nmetadata: {name: shop}\nspec: {clusterIP: 10.96.0.7}\n")
    ranges = ServiceRanges(cluster=(ip_network("10.96.0.0/12"),))
    machine.write(POOL, *NODES, BGPConfiguration(services=ranges))

    first, *_ = said(machine, "10.96.0.7", "--services-file", str(file))

    assert "is the cluster IP of Service default/shop (externalTrafficPolicy Cluster)" in first


def test_a_file_that_is_named_has_to_be_there(machine: Machine) -> None:
    machine.write(POOL, *NODES, BGPConfiguration(services=ServiceRanges(cluster=(RANGE,))))

    (why,) = said(machine, "10.96.0.7", "--services-file", "/nope", status=1, errors=True)

    assert why == "error: there is no file /nope: name one with Services"


def test_what_no_node_announces_of_services_is_said_with_a_status(machine: Machine) -> None:
    balancing = IPPool(
        "balanced",
        ip_network("198.51.100.0/24"),
        allowed_uses=frozenset({PoolUse.LOAD_BALANCER}),
    )
    machine.write(balancing, *NODES)

    lines = said(machine, "198.51.100.7", status=1)
    document = json.loads("\n".join(said(machine, "198.51.100.7", "-o", "json", status=1)))

    assert lines[0].endswith("in no range of Services, of pool balanced (198.51.100.0/24)")
    assert lines[3] == (
        "node-0 keeps it it lies in no range of Services (serviceLoadBalancerIPs and its like)"
    )
    assert document["nodes"][0]["part"] == "keeps"


def test_the_agent_here_is_asked_for_the_ranges_around_an_address_of_a_service(
    agent: Machine,
) -> None:
    ranges = ServiceRanges(cluster=(ip_network("10.96.0.0/12"),))
    agent.write(*CLUSTER, BGPConfiguration(services=ranges))
    agent.answers |= {
        "status": {"node": "node-0"},
        "bgp_routes": {
            "learned": [],
            "announced": [
                {"prefix": "10.96.0.0/12", "to": ["10.10.0.1"]},
                {"prefix": str(CIDR), "to": ["10.10.24.89"]},
            ],
        },
        "bgp_peers": {"peers": []},
    }

    assert said(agent, "10.96.0.7")[-2:] == [
        "as it is on node-0:",
        "10.96.0.0/12 announced to 10.10.0.1",
    ]


def test_pods_in_a_range_of_services_stay_pods(machine: Machine) -> None:
    ranges = ServiceRanges(external=(ip_network("192.0.0.0/8"),))
    machine.write(*CLUSTER, BGPConfiguration(services=ranges))

    assert parts(machine)[0] == "node-1 announces it to node-0, node-2"
