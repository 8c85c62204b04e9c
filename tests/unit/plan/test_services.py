"""Which addresses of Services a node announces: one test for each sentence of the rule."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.agent.report import service_collisions
from pycni.model.network import IPAddress
from pycni.model.resources import Node, PoolUse
from pycni.model.resources_bgp import (
    BGPConfiguration,
    BGPFilter,
    BGPPeer,
    FilterAction,
    FilterRule,
)
from pycni.model.schema_service import parse_service
from pycni.model.service_ranges import ServiceRanges
from pycni.model.services import EndpointSlice, Service
from pycni.plan.desired import wanted_ruleset
from pycni.plan.exports import wanted_adj_ribs_out, wanted_advertisements, withheld
from pycni.plan.ground import Ground
from pycni.plan.imports import Accepted, Rejected, judge, judge_prefix
from pycni.plan.inputs import Inputs
from pycni.plan.peering import Session, wanted_neighbours
from pycni.plan.services import announced_services
from tests.unit.plan.samples import inputs, path, pod, pool

RANGES = ServiceRanges(
    cluster=(ip_network("10.96.0.0/12"), ip_network("fd00:96::/112")),
    external=(ip_network("203.0.113.0/24"), ip_network("192.0.2.9/32")),
    load_balancer=(ip_network("198.51.100.0/24"), ip_network("192.0.2.7/32")),
)
WHOLE = ["10.96.0.0/12", "198.51.100.0/24", "203.0.113.0/24", "fd00:96::/112"]
HERE = EndpointSlice("web/a", "web/shop", 4, frozenset({"node-0"}), is_ready=True)
THERE = EndpointSlice("web/b", "web/shop", 4, frozenset({"node-1"}), is_ready=True)


def shop(*, local: bool = False, external: str = "", balanced: str = "") -> Service:
    return Service(
        "web/shop",
        is_local=local,
        cluster_ips=(ip_address("10.96.0.7"), ip_address("fd00:96::7")),
        external_ips=tuple(map(ip_address, external.split())),
        load_balancer_ips=tuple(map(ip_address, balanced.split())),
    )


def cluster(*services: Service, slices: tuple[EndpointSlice, ...] = ()) -> Inputs:
    made = inputs()
    made.bgp = BGPConfiguration(services=RANGES)
    made.services = {one.name: one for one in services}
    for one in slices:
        made.slices.setdefault(one.service, {})[one.name] = one
    return made


def single(made: Inputs) -> list[str]:
    """Return what is announced beside the ranges."""
    return sorted(str(one) for one in announced_services(made) if str(one) not in WHOLE)


def test_ranges_are_announced_whole_and_single_addresses_with_their_service() -> None:
    assert sorted(map(str, announced_services(cluster()))) == WHOLE


def test_without_ranges_nothing_is_announced() -> None:
    made = cluster(shop(local=True), slices=(HERE,))
    made.bgp = BGPConfiguration()

    assert announced_services(made) == {}


def test_a_node_that_is_excluded_from_load_balancers_announces_nothing() -> None:
    made = cluster(shop(local=True), slices=(HERE,))
    label = "node.kubernetes.io/exclude-from-external-load-balancers"

    for value, is_excluded in (("true", True), ("false", False)):
        own = made.nodes["node-0"]
        made.set_node("node-0", replace(own, labels=((label, value),)))
        assert (announced_services(made) == {}) is is_excluded


def test_a_local_service_is_announced_where_an_endpoint_is_ready() -> None:
    one = shop(local=True, external="203.0.113.9", balanced="198.51.100.1")

    assert single(cluster(one, slices=(THERE,))) == []
    assert single(cluster(one)) == []
    assert single(cluster(one, slices=(THERE, HERE))) == [
        "10.96.0.7/32",
        "198.51.100.1/32",
        "203.0.113.9/32",
    ]


ENDING = EndpointSlice("web/c", "web/shop", 4, ending_nodes=frozenset({"node-0"}), is_ending=True)


def test_an_endpoint_that_ends_counts_while_no_node_has_a_ready_one() -> None:
    """As for kube-proxy, and a new pod that is late loses nothing."""
    one = shop(local=True)
    nowhere = EndpointSlice("web/d", "web/shop", 4, is_ready=True)

    assert single(cluster(one, slices=(ENDING,))) == ["10.96.0.7/32"]
    assert single(cluster(one, slices=(ENDING, THERE))) == []
    assert single(cluster(one, slices=(ENDING, replace(THERE, version=6)))) == ["10.96.0.7/32"]
    assert single(cluster(one, slices=(replace(ENDING, ending_nodes=frozenset({"node-1"})),))) == []
    # Of one that is on no node, no node can say that it has it.
    assert single(cluster(one, slices=(nowhere,))) == []
    assert single(cluster(one, slices=(ENDING, nowhere))) == ["10.96.0.7/32"]


def test_by_themselves_load_balancers_are_announced_while_an_endpoint_serves_anywhere() -> None:
    for ends in (replace(ENDING, ending_nodes=frozenset()), replace(THERE, nodes=frozenset())):
        made = cluster(shop(balanced="198.51.100.1"), slices=(ends,))
        made.bgp = BGPConfiguration(services=replace(RANGES, is_aggregating=False))

        assert single(made) == ["198.51.100.1/32"]


def test_cluster_ips_go_by_the_policy_for_traffic_from_outside() -> None:
    """As with Calico: the one for traffic inside says nothing of who announces what."""
    spec = {"clusterIP": "10.96.0.7", "externalTrafficPolicy": "Cluster"}
    metadata = {"namespace": "web", "name": "shop"}
    read = parse_service({"metadata": metadata, "spec": spec | {"internalTrafficPolicy": "Local"}})
    assert read is not None

    assert single(cluster(read, slices=(HERE,))) == []
    local = cluster(replace(read, is_local=True), slices=(HERE,))
    assert single(local) == ["10.96.0.7/32"]


def test_an_endpoint_stands_for_addresses_of_its_own_ip_version_alone() -> None:
    here6 = replace(HERE, version=6)

    assert single(cluster(shop(local=True), slices=(here6,))) == ["fd00:96::7/128"]


def test_addresses_outside_the_ranges_are_not_announced() -> None:
    one = shop(local=True, external="198.51.100.1", balanced="203.0.113.9 8.8.8.8")

    assert single(cluster(one, slices=(HERE,))) == ["10.96.0.7/32"]


def test_other_services_are_covered_by_the_ranges() -> None:
    one = shop(external="203.0.113.9", balanced="198.51.100.1")

    assert single(cluster(one, slices=(HERE,))) == []


def test_a_range_of_one_address_is_announced_by_every_node_while_a_service_has_it() -> None:
    one = shop(external="192.0.2.9", balanced="192.0.2.7")

    assert single(cluster(one)) == ["192.0.2.7/32", "192.0.2.9/32"]
    assert single(cluster(replace(one, is_local=True), slices=(THERE,))) == []


def test_without_aggregation_load_balancers_are_announced_by_themselves() -> None:
    made = cluster(shop(external="203.0.113.9", balanced="198.51.100.1"), slices=(THERE,))
    made.bgp = BGPConfiguration(services=replace(RANGES, is_aggregating=False))
    ends = replace(THERE, nodes=frozenset(), is_ready=False)

    assert single(made) == ["198.51.100.1/32"]
    assert "198.51.100.0/24" not in map(str, announced_services(made))
    made.slices["web/shop"]["web/b"] = ends
    assert single(made) == []


def test_each_prefix_has_its_reason() -> None:
    made = cluster(shop(local=True, balanced="198.51.100.1"), slices=(HERE,))
    made.services["a/other"] = replace(shop(balanced="192.0.2.7"), name="a/other")
    apart = cluster(shop(balanced="198.51.100.1"), slices=(THERE,))
    apart.bgp = BGPConfiguration(services=replace(RANGES, is_aggregating=False))

    reasons = {str(prefix): why for prefix, why in announced_services(made).items()}

    assert reasons == {
        "10.96.0.0/12": "serviceClusterIPs",
        "fd00:96::/112": "serviceClusterIPs",
        "203.0.113.0/24": "serviceExternalIPs",
        "198.51.100.0/24": "serviceLoadBalancerIPs",
        "192.0.2.7/32": "LoadBalancer IP of Service a/other: it is a range of its own",
        "198.51.100.1/32": "LoadBalancer IP of Service web/shop: externalTrafficPolicy Local,"
        " with a ready endpoint here",
        "10.96.0.7/32": "cluster IP of Service web/shop: externalTrafficPolicy Local,"
        " with a ready endpoint here",
    }
    assert announced_services(apart)[ip_network("198.51.100.1/32")] == (
        "LoadBalancer IP of Service web/shop: serviceLoadBalancerAggregation Disabled,"
        " with a ready endpoint"
    )


def test_services_are_advertised_by_the_nodes_address_of_their_ip_version() -> None:
    made = cluster(shop(local=True), slices=(HERE,))

    advertised = {str(a.nlri): str(a.next_hop) for a in wanted_advertisements(made)}

    assert advertised["10.96.0.7/32"] == advertised["10.96.0.0/12"] == "10.10.7.20"
    assert advertised["fd00:96::/112"] == "fd10::7"


def told(made: Inputs) -> dict[str, list[str]]:
    """Return what each peer is told of Services over IPv4, by its address."""
    neighbours = [one for one in wanted_neighbours(made) if one.peer.version == 4]
    sent = wanted_adj_ribs_out(made, neighbours)
    blocks = set(made.own_blocks())
    return {
        str(one.peer): sorted(
            str(a.nlri)
            for a in sent.to(one.peer)
            if a.nlri not in blocks and a.family in one.families
        )
        for one in neighbours
    }


def test_routers_and_reflectors_are_told_of_services_and_other_nodes_are_not() -> None:
    made = cluster(shop(local=True), slices=(HERE,))
    node_2, node_3 = made.nodes["node-2"], made.nodes["node-3"]
    made.set_node("node-2", replace(node_2, reflector_cluster_id=ip_address("10.0.0.1")))
    made.peers = {
        "router": BGPPeer("router", peer_ip=ip_address("10.10.0.1"), as_number=65000),
        "reflector": BGPPeer("reflector", peer_ip=ip_address("10.10.43.25"), as_number=64512),
        # A node by its BGP, and a router that runs at a node's address.
        "node": BGPPeer("node", peer_ip=ip_address("10.10.24.89"), as_number=64512),
        "beside": BGPPeer("beside", peer_ip=own_address(node_3), as_number=65001),
    }
    everything = ["10.96.0.0/12", "10.96.0.7/32", "198.51.100.0/24", "203.0.113.0/24"]

    assert told(made) == {
        "10.10.0.1": everything,
        "10.10.7.30": everything,
        "10.10.24.89": [],
        "10.10.43.25": everything,
    }


def own_address(node: Node) -> IPAddress:
    assert node.ipv4 is not None
    return node.ipv4.ip


def test_blocks_are_told_to_everybody() -> None:
    made = cluster()
    neighbours = wanted_neighbours(made)
    sent = wanted_adj_ribs_out(made, neighbours)

    for one in neighbours:
        assert {a.nlri for a in sent.to(one.peer)} == set(made.own_blocks())


def test_a_filter_holds_back_what_a_peer_would_be_told_and_nothing_else() -> None:
    made = cluster()
    silence = BGPFilter("quiet", export_v4=(FilterRule(FilterAction.REJECT),))
    made.filters = {"quiet": silence}
    made.peers = {
        "router": BGPPeer("router", ip_address("10.10.0.1"), 65000, filters=("quiet",)),
        "nodes": BGPPeer("nodes", peer_selector="all()", filters=("quiet",)),
    }
    neighbours = wanted_neighbours(made)

    kept = {(str(one.peer), str(one.nlri)) for one in withheld(made, neighbours)}

    assert ("10.10.0.1", "10.96.0.0/12") in kept
    assert ("10.10.24.89", "192.168.39.192/26") in kept
    assert ("10.10.24.89", "10.96.0.0/12") not in kept
    assert told(made)["10.10.0.1"] == []


def test_a_node_that_leaves_announces_no_services() -> None:
    made = cluster(shop(local=True), slices=(HERE,))
    made.is_leaving = True

    assert wanted_advertisements(made) == frozenset()


def test_one_that_leaves_keeps_only_what_an_endpoint_on_it_serves() -> None:
    other = replace(shop(external="192.0.2.9"), name="web/other")
    made = cluster(shop(local=True, balanced="198.51.100.1"), other, slices=(HERE,))
    left = pod("192.168.39.200/32")
    made.set_endpoint(left.key, left)
    made.is_leaving = True

    assert sorted(map(str, announced_services(made))) == ["10.96.0.7/32", "198.51.100.1/32"]


@pytest.mark.parametrize("nlri", ["10.96.0.0/12", "198.51.100.1/32"])
def test_no_node_learns_a_way_to_services(nlri: str) -> None:
    made = cluster()
    paths = (path(nlri), path(nlri, "10.10.24.89"))
    made.paths[ip_network(nlri)] = paths

    verdict = judge_prefix(made, ip_network(nlri))

    assert verdict.route is None
    assert [one.path for one in verdict.rejected] == list(paths)
    for one in (*verdict.rejected, judge(made, paths[0])):
        assert isinstance(one, Rejected)
        assert "a range of Services, which no node learns" in one.reason


def test_of_many_paths_to_services_no_sender_is_looked_up() -> None:
    """With as many nodes as paths, who each one is of costs more than all the rest."""
    made, nlri = cluster(), ip_network("10.96.0.0/12")
    made.paths[nlri] = (path(str(nlri)),) * 300
    ground = Asked(made)

    judge_prefix(made, nlri, ground=ground)

    assert ground.asked == 0


class Asked(Ground):
    """Counts for how many paths the sender's session was asked for."""

    asked = 0

    def session(self, peer: IPAddress) -> Session:
        self.asked += 1
        return super().session(peer)


@pytest.mark.parametrize("cidr", ["192.168.7.0/24", "192.0.0.0/8"])
def test_a_range_over_the_pods_own_addresses_is_left_out_and_named(cidr: str) -> None:
    made = cluster()
    external = (*RANGES.external, ip_network(cidr))
    made.bgp = BGPConfiguration(services=replace(RANGES, external=external))
    ruleset = wanted_ruleset(made)

    assert sorted(map(str, announced_services(made))) == WHOLE
    assert isinstance(judge(made, path("192.168.247.0/26")), Accepted)
    assert ruleset is not None
    assert cidr not in ruleset.text
    (said,) = service_collisions(made)
    assert said == (
        f"{cidr}, a range of Services in the BGPConfiguration, overlaps pool pool4"
        " (192.168.0.0/16), and is left out: name the Services' own addresses"
    )


def test_a_pool_of_load_balancers_is_in_nobodys_way() -> None:
    made = cluster()
    balanced = pool("198.51.100.0/24", allowed_uses=frozenset({PoolUse.LOAD_BALANCER}))
    made.pools["balanced"] = balanced

    assert service_collisions(made) == []
    assert sorted(map(str, announced_services(made))) == WHOLE


def test_what_no_service_has_is_dropped_where_there_is_no_pool_yet() -> None:
    made = cluster()
    made.pools.clear()
    ruleset = wanted_ruleset(made)

    assert ruleset is not None
    assert "no_service" in ruleset.text
