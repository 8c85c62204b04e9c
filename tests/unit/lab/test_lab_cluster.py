"""What a topology may not say, found before anything of the lab is made."""

import asyncio
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from pycni.errors import InvalidInput
from pycni.lab.cluster import Cluster
from pycni.lab.layout import Layout, Plan
from pycni.model.resources import IPPool
from pycni.topology.model import load_topology

DUAL_STACK = load_topology(Path(__file__).parents[3] / "examples" / "dual-stack.yaml")


@dataclass(frozen=True, slots=True)
class PaperLayout(Layout):
    """A lab whose datastore lies where a test wants it."""

    directory: Path = Path()

    @property
    def datastore(self) -> Path:
        return self.directory / "datastore.db"


@pytest.mark.parametrize("cidr", ["10.10.16.0/20", "fd00:10:10::/112"])
def test_pool_that_overlaps_a_nodes_subnet_is_named(tmp_path: Path, cidr: str) -> None:
    network = ip_network(cidr)
    size = 26 if network.version == 4 else 122
    topology = replace(DUAL_STACK, resources=(IPPool("bad", network, block_size=size),))
    plan = Plan(topology="", source="x.yaml", tunnel="bpf", where="host", clone="/")
    cluster = Cluster(plan, layout=PaperLayout("lab", tmp_path), topology=topology)

    with pytest.raises(InvalidInput, match=rf"{cidr} overlaps the subnet .* of node node-1"):
        asyncio.run(cluster.fill_datastore())

    assert not list(tmp_path.iterdir())
