"""Which nodes announce an address of a Service, and what the others say why they don't."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from pycni.datastore.services_file import follow_file
from pycni.model.resources import IPPool, Node, PoolUse
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer, FilterAction, FilterRule
from pycni.model.service_ranges import ServiceRanges
from pycni.model.services import (
    EndpointSlice,
    Service,
    ServiceNews,
    ServicesListed,
    SlicesListed,
)
from pycni.topology.explain_services import (
    Served,
    concerns_services,
    described,
    read_services,
    service_standings,
)
from pycni.topology.paper import Cluster

BALANCED = IPPool(
    "balanced", ip_network("198.51.100.0/24"), allowed_uses=frozenset({PoolUse.LOAD_BALANCER})
)
RANGES = ServiceRanges(
    cluster=(ip_network("10.96.0.0/12"),),
    external=(ip_network("192.0.2.9/32"),),
    load_balancer=(ip_network("198.51.100.0/24"),),
)
NODES = tuple(Node(f"node-{n}", ipv4=ip_interface(f"10.10.7.2{n}/20")) for n in range(2))
TOR = BGPPeer("tor", peer_ip=ip_address("10.10.0.1"), as_number=65000)
SHOP = Service("web/shop", is_local=True, load_balancer_ips=(ip_address("198.51.100.7"),))
HERE = EndpointSlice("web/a", "web/shop", 4, frozenset({"node-0"}), is_ready=True)
CLUSTER = Cluster(
    nodes=NODES,
    pools=(BALANCED, IPPool("pods", ip_network("192.168.0.0/16"))),
    affinities=(),
    borrowed={},
    peers=(TOR,),
    filters=(),
    bgp=(BGPConfiguration(services=RANGES),),
)


def served(*services: Service, slices: tuple[EndpointSlice, ...] = (HERE,)) -> Served:
    endpoints: dict[str, dict[str, EndpointSlice]] = {}
    for one in slices:
        endpoints.setdefault(one.service, {})[one.name] = one
    return Served({one.name: one for one in services}, endpoints)


def rows(asked: str, known: Served, cluster: Cluster = CLUSTER) -> list[str]:
    found = service_standings(ip_network(asked), cluster, known)
    return [f"{one.node} {one.part.value}: {one.why}" for one in found]


def with_ranges(**ranges: object) -> Cluster:
    changed = replace(RANGES, **ranges)  # type: ignore[arg-type]
    return replace(CLUSTER, bgp=(BGPConfiguration(services=changed),))


def test_a_local_service_is_announced_by_itself_where_its_endpoint_is() -> None:
    assert rows("198.51.100.7", served(SHOP)) == [
        (
            "node-0 announces it: as 198.51.100.7/32, for LoadBalancer IP of Service web/shop:"
            " externalTrafficPolicy Local, with a ready endpoint here; to 10.10.0.1 (BGPPeer tor)"
        ),
        (
            "node-1 announces it: as 198.51.100.0/24, for serviceLoadBalancerIPs; to 10.10.0.1"
            " (BGPPeer tor); not by itself: Service web/shop has no ready endpoint here"
        ),
    ]


def test_without_its_range_nobody_announces_it() -> None:
    (row, _) = rows("198.51.100.7", served(SHOP), with_ranges(load_balancer=()))

    assert row == (
        "node-0 keeps it: it lies in no range of Services (serviceLoadBalancerIPs and its like);"
        " as LoadBalancer IP of Service web/shop it needs a range of serviceLoadBalancerIPs"
    )


def test_a_range_of_another_kind_is_not_enough() -> None:
    other = with_ranges(load_balancer=(), external=RANGES.load_balancer)

    (row, _) = rows("198.51.100.7", served(SHOP), other)

    assert row.endswith(
        "as LoadBalancer IP of Service web/shop it needs a range of serviceLoadBalancerIPs"
    )


def test_what_no_service_has_is_covered_by_its_range() -> None:
    assert rows("198.51.100.9", served(SHOP))[0] == (
        "node-0 announces it: as 198.51.100.0/24, for serviceLoadBalancerIPs; to 10.10.0.1"
        " (BGPPeer tor); no Service has this address"
    )
    # Of a single address there is no range to announce without it.
    assert rows("192.0.2.9", served(SHOP))[0] == "node-0 keeps it: no Service has this address"


def test_without_aggregation_it_needs_an_endpoint_anywhere() -> None:
    spread, apart = replace(SHOP, is_local=False), with_ranges(is_aggregating=False)

    assert rows("198.51.100.7", served(spread, slices=()), apart) == [
        f"node-{n} keeps it: not by itself: Service web/shop has no ready endpoint" for n in (0, 1)
    ]
    assert "Disabled, with a ready endpoint" in rows("198.51.100.7", served(spread), apart)[1]


def test_a_service_of_policy_cluster_needs_no_reason() -> None:
    spread = replace(SHOP, is_local=False)

    assert rows("198.51.100.7", served(spread))[0].endswith("to 10.10.0.1 (BGPPeer tor)")


def test_a_whole_range_has_no_owner() -> None:
    asked = ip_network("198.51.100.0/24")

    assert rows(str(asked), served(SHOP))[1].endswith("; to 10.10.0.1 (BGPPeer tor)")
    assert described(asked, CLUSTER, served(SHOP)) == (
        "in 198.51.100.0/24, a range of Services, of pool balanced (198.51.100.0/24)"
    )


def test_who_is_told_is_named_and_what_a_filter_keeps_back() -> None:
    reflector = replace(NODES[1], reflector_cluster_id=ip_address("10.0.0.1"))
    to_it = BGPPeer("up", peer_selector="all()")
    silent = BGPFilter("quiet", export_v4=(FilterRule(FilterAction.REJECT),))
    made = replace(
        CLUSTER,
        nodes=(NODES[0], reflector),
        peers=(replace(TOR, filters=("quiet",)), to_it),
        filters=(silent,),
    )

    (row, _) = rows("198.51.100.9", served(), made)

    assert "; to node-1; not to 10.10.0.1: " in row


def test_a_node_without_an_address_of_that_ip_version_announces_nothing() -> None:
    six = with_ranges(load_balancer=(ip_network("2001:db8::/64"),))

    assert rows("2001:db8::7", served(SHOP), six)[0] == (
        "node-0 keeps it: the node has no IPv6 address"
    )


def test_a_range_over_pods_is_left_out() -> None:
    wide = with_ranges(external=(ip_network("192.0.0.0/8"),))

    assert concerns_services(ip_network("192.1.0.0/32"), wide)
    assert not concerns_services(ip_network("192.168.0.1/32"), wide)
    assert (
        "192.0.0.0/8 overlaps pool pods (192.168.0.0/16), and is left out"
        in (rows("192.1.0.0", served(), wide)[0])
    )


@pytest.mark.parametrize(
    ("known", "what"),
    [
        (served(SHOP), "the LoadBalancer IP of Service web/shop (externalTrafficPolicy Local)"),
        (
            served(replace(SHOP, is_local=False)),
            "the LoadBalancer IP of Service web/shop (externalTrafficPolicy Cluster)",
        ),
        (served(), "no Service's"),
        (Served(is_known=False), "perhaps a Service's (none are known here)"),
    ],
)
def test_it_says_whose_address_it_is(known: Served, what: str) -> None:
    said = described(ip_network("198.51.100.7"), CLUSTER, known)

    assert (
        said
        == f"{what}, in 198.51.100.0/24, a range of Services, of pool balanced (198.51.100.0/24)"
    )


# --- where Services come from -------------------------------------------------------------------


def test_each_kind_has_a_source_of_its_own_in_a_cluster() -> None:
    async def services() -> AsyncIterator[ServiceNews]:
        yield ServicesListed((SHOP,))
        await asyncio.Event().wait()

    async def slices() -> AsyncIterator[ServiceNews]:
        yield SlicesListed((HERE,))
        await asyncio.Event().wait()

    known = asyncio.run(read_services({"Services": services, "EndpointSlices": slices}))

    assert known == served(SHOP)


def test_a_file_tells_of_both(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text("kind: Service\nmetadata: {name: shop}\nspec: {clusterIP: 10.96.0.7}\n")

    known = asyncio.run(read_services({"services_file": lambda: follow_file(file)}))

    assert (list(known.services), known.is_known) == (["default/shop"], True)


def test_where_nothing_tells_of_services_none_are_known() -> None:
    assert asyncio.run(read_services({})) == Served(is_known=False)
