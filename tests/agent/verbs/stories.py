"""Stories of the plugin's verbs: a node without an agent, one pod, and what is left of it."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pycni.cni.main import Reply, parse_or_reply
from pycni.cni.protocol import Request
from pycni.datastore.faulty import FaultyDatastore
from pycni.model.endpoints import EndpointKey
from pycni.model.resources import Block, Handle, IPPool
from tests.agent.cluster import NETWORK, POOL, Cluster, NodeAgent
from tests.virtual_time import run

POD = "default/web"
CONTAINER = "default.web"
VETH = "cali68caf03a5f4"
KEY = EndpointKey(NETWORK, CONTAINER, "eth0")
Story = Callable[[NodeAgent], Awaitable[None]]


def play(directory: Path, story: Story, *, pools: tuple[IPPool, ...] = (POOL,)) -> None:
    """Play a story on one node without an agent."""

    async def main() -> None:
        made = Cluster(directory)
        await made.create(*pools)
        await story(made.node("node-0", "10.10.7.20/20"))

    run(main())


async def ask(node: NodeAgent, verb: str, **options: Any) -> Reply:  # noqa: ANN401 - as `NodeAgent.cni`.
    """Ask for a verb on the pod."""
    return await node.cni(verb, CONTAINER, pod=POD, **options)


async def collect(node: NodeAgent, *keep: str) -> Reply:
    """Let GC remove what belongs to none of these containers."""
    listed = {"cni.dev/valid-attachments": [{"containerID": k, "ifname": "eth0"} for k in keep]}
    return await node.cni("GC", "", config=listed)


async def incur_debt(node: NodeAgent) -> None:
    """Add the pod, and delete it when the datastore can't be reached any more."""
    await node.add(POD)
    node.switch.is_away = True
    await node.delete(POD)


def parsed(verb: str, **keys: Any) -> Request:  # noqa: ANN401 - of a configuration.
    """Return a request as the server hands it on."""
    environment = {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": CONTAINER,
        "CNI_NETNS": "/run/netns/x",
        "CNI_IFNAME": "eth0",
    }
    document = {"cniVersion": "1.1.0", "name": NETWORK, **keys}
    request = parse_or_reply(environment, json.dumps(document).encode())
    assert not isinstance(request, Reply)
    return request


def reason(reply: Reply) -> tuple[int, str]:
    """Return the code and the text of a refusal."""
    document = json.loads(reply.output)
    return document["code"], document["msg"]


def address_in(reply: Reply) -> str:
    """Return the pod's address, without its length."""
    address: str = json.loads(reply.output)["ips"][0]["address"]
    return address.partition("/")[0]


def faulty(node: NodeAgent) -> FaultyDatastore:
    """Return the node's datastore as what it is: one that can be made to fail."""
    assert isinstance(node.datastore, FaultyDatastore)
    return node.datastore


async def held(node: NodeAgent) -> list[str]:
    """Return every address that is taken, with its handle."""
    found = []
    for stored in (await faulty(node).inner.list(Block)).items:
        block = stored.value
        for ordinal, index in enumerate(block.allocations):
            if index is not None:
                found.append(f"{block.cidr[ordinal]} {block.attributes[index].handle_id}")
    return found


async def leftovers(node: NodeAgent) -> list[str]:
    """Return everything on the node and in the datastore that belongs to a pod."""
    links = [name for name in (await node.state()).links if name.startswith("cali")]
    routes = [line for line in await node.ip_route() if "cali" in line]
    handles = [h.value.id for h in (await faulty(node).inner.list(Handle)).items]
    records = [str(e.key) for e in node.endpoints.list()]
    locks = locks_on(node.run_dir / "endpoints.lock")
    return [*links, *routes, *await held(node), *handles, *records, *locks]


def locks_on(path: Path) -> list[str]:
    """Return the locks that anybody holds on a file, as the kernel lists them."""
    inode = f":{path.stat().st_ino} "
    return [line for line in Path("/proc/locks").read_text().splitlines() if inode in line]


async def remembered(node: NodeAgent) -> list[str]:
    return [
        f"{d.key} {[str(a.interface.ip) for a in d.addresses]}" for d in node.endpoints.pending()
    ]


class Proxy:
    """Passes everything on but what is given."""

    def __init__(self, inner: object, **instead: Any) -> None:  # noqa: ANN401 - any method.
        self._inner = inner
        self._instead = instead

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any method.
        return self._instead.get(name) or getattr(self._inner, name)
