"""What an agent writes of its own node."""

from ipaddress import ip_interface
from pathlib import Path

from pycni.datastore.memory import MemoryDatastore
from pycni.model.resources import Node
from tests.agent.cluster import POOL, Cluster
from tests.virtual_time import run


async def registered(directory: Path, *, address6: str, before: Node | None = None) -> list[str]:
    """Register a node, perhaps over an object that is there; return its addresses."""
    made = Cluster(directory)
    await made.create(POOL, *([before] if before is not None else []))
    await made.node("node-0", "10.10.7.20/20", address6=address6).register()
    stored = await MemoryDatastore(made.store).get(Node, "node-0")
    assert stored is not None
    node = stored.value
    return [str(a) for a in (node.ipv4, node.ipv6, node.ipip_tunnel_address)]


def test_a_node_has_an_address_of_each_ip_version(tmp_path: Path) -> None:
    async def story() -> None:
        assert await registered(tmp_path, address6="fd10::20/64") == [
            "10.10.7.20/20",
            "fd10::20/64",
            "192.168.39.192",
        ]

    run(story())


def test_an_address_that_the_agent_was_not_told_stays_as_it_is(tmp_path: Path) -> None:
    async def story() -> None:
        before = Node("node-0", ipv6=ip_interface("fd10::99/64"))

        addresses = await registered(tmp_path, address6="", before=before)

        assert addresses == ["10.10.7.20/20", "fd10::99/64", "192.168.39.192"]

    run(story())
