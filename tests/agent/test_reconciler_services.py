"""Peers hear that they have heard everything only once Services are known, too."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from pycni.agent.reconciler import RECORDS_WAIT_S
from pycni.model.resources_bgp import BGPConfiguration, BGPPeer
from pycni.model.service_ranges import ServiceRanges
from pycni.model.services import (
    EndpointSlice,
    Service,
    ServicesListed,
    SlicesListed,
)
from tests.agent.cluster import NodeAgent
from tests.agent.exercise import exercise
from tests.virtual_time import run

RANGES = BGPConfiguration(services=ServiceRanges(cluster=(ip_network("10.96.0.0/12"),)))
SHOP = Service("web/shop", is_local=True, cluster_ips=(ip_address("10.96.0.7"),))
ROUTER = BGPPeer("router", ip_address("10.10.0.1"), 65000)
HERE = EndpointSlice("web/a", "web/shop", 4, frozenset({"node-0"}), is_ready=True)


def told(node: NodeAgent) -> list[str]:
    """Return what the router is told."""
    assert node.speaker is not None
    assert ROUTER.peer_ip is not None
    return sorted(str(one.nlri) for one in node.speaker.advertisements.to(ROUTER.peer_ip))


@pytest.mark.parametrize("are_known", [True, False])
def test_a_restarted_agent_waits_for_services(tmp_path: Path, are_known: bool) -> None:
    async def story() -> None:
        async with exercise(tmp_path) as (made, node):
            await made.create(RANGES)
            await made.create(ROUTER)
            await node.stop()
            node.start()
            await made.settle(RECORDS_WAIT_S / 2)
            assert told(node) == []

            if are_known:
                node.post(ServicesListed((SHOP,)))
                node.post(SlicesListed((HERE,)))
                await made.settle(1)
                assert told(node) == ["10.96.0.0/12", "10.96.0.7/32", "192.168.39.192/26"]
            else:
                await made.settle(RECORDS_WAIT_S)
                assert told(node) == ["10.96.0.0/12", "192.168.39.192/26"]

    run(story())
