"""Stories as text: what happens to a cluster, and the routes that a node then has.

Each file tells one.  Lines without indent are steps, indented ones what `ip route` prints on the
node that the step `NODE# ip route` names (without what the underlay itself puts there):

    nodes 10.10.7.20/20 10.10.24.89/20      node-0, node-1 … with an agent each
    pool NAME CIDR MODE                     create the pool, or change it
    no pool NAME                            delete the pool
    add NAMESPACE/POD on NODE [IP]          by the plugin
    delete NAMESPACE/POD on NODE
    stop NODE | start NODE                  the agent alone
    die NODE                                the whole machine, seen from the others
    return NODE                             it is there again
    wait SECONDS                            (each step but these two is followed by one second)
    NODE# ip link set DEV up|down           by hand
    NODE# ip link delete DEV
    NODE# ip route flush proto bird
    NODE# ip route add blackhole CIDR proto NUMBER
    NODE# ip route                          compare
"""

import itertools
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from pycni.model.network import Route, RouteKey, RouteType
from pycni.model.resources import IPPool, TunnelMode
from tests.agent.cluster import Cluster, NodeAgent
from tests.virtual_time import run

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


class Stage:
    """Plays the steps of one story."""

    def __init__(self, directory: Path) -> None:
        self.cluster = Cluster(directory)
        self.pools: dict[str, IPPool] = {}

    async def play(self, text: str) -> None:
        """Play a whole story."""
        lines = [line.rstrip() for line in text.splitlines()]
        numbered = [(n, line) for n, line in enumerate(lines, 1) if line and line[0] != "#"]
        try:
            while numbered:
                number, step = numbered.pop(0)
                expected = list(itertools.takewhile(lambda one: one[1][0] == " ", numbered))
                del numbered[: len(expected)]
                wanted = [line.strip() for _, line in expected]
                await self.step(step.split(), wanted, f"line {number}: {step}")
        finally:
            for node in self.cluster.nodes.values():
                await node.stop()

    async def step(self, words: list[str], expected: list[str], place: str) -> None:
        """Perform one step."""
        if words[0].endswith("#"):
            await self.by_hand(self.cluster.nodes[words[0][:-1]], words[1:], expected, place)
        else:
            await self.happen(words, place)
        if words[0] not in ("nodes", "wait"):
            await self.cluster.settle()

    async def happen(self, words: list[str], place: str) -> None:
        """Let something happen to the cluster."""
        match words:
            case ["nodes", *addresses]:
                await self.make_nodes(addresses)
            case ["pool", name, cidr, mode]:
                await self.make_pool(name, cidr, TunnelMode(mode))
            case ["no", "pool", name]:
                await self.cluster.remove(IPPool, name)
            case ["add", pod, "on", name, *address]:
                args = f"IP={address[0]}" if address else ""
                await self.cluster.nodes[name].add(pod, args=args)
            case ["delete", pod, "on", name]:
                await self.cluster.nodes[name].delete(pod)
            case ["stop", name]:
                await self.cluster.nodes[name].stop()
            case ["start" | "return", name]:
                self.mend_links(name)
                self.cluster.nodes[name].start()
            case ["die", name]:
                await self.die(name)
            case ["wait", seconds]:
                await self.cluster.settle(float(seconds))
            case _:
                pytest.fail(f"no such step, {place}")

    async def by_hand(
        self, node: NodeAgent, words: list[str], expected: list[str], place: str
    ) -> None:
        """Do on a node what an administrator types, or compare its routes."""
        match words:
            case ["ip", "route"]:
                assert await node.routes() == expected, place
            case ["ip", "route", "flush", "proto", "bird"]:
                node.kernel.flush_routes(protocol=12)
            case ["ip", "route", "add", "blackhole", cidr, "proto", number]:
                key = RouteKey(ip_network(cidr))
                node.kernel.create_route(Route(key, type=RouteType.BLACKHOLE, protocol=int(number)))
            case ["ip", "link", "delete", name]:
                node.kernel.delete_link(name)
            case ["ip", "link", "set", name, "up" | "down" as state]:
                node.kernel.change_link(name, is_up=state == "up")
            case _:
                pytest.fail(f"no such command, {place}")

    async def make_nodes(self, addresses: list[str]) -> None:
        for number, address in enumerate(addresses):
            await self.cluster.node(f"node-{number}", address).register()
        for node in self.cluster.nodes.values():
            node.start()
        await self.cluster.settle()

    async def make_pool(self, name: str, cidr: str, mode: TunnelMode) -> None:
        known = self.pools.get(name)
        self.pools[name] = IPPool(name, ip_network(cidr), ipip_mode=mode)
        if known is None:
            await self.cluster.create(self.pools[name])
            for node in self.cluster.nodes.values():
                await node.register()
        else:
            await self.cluster.put(replace(known, ipip_mode=mode))

    async def die(self, name: str) -> None:
        dead = self.cluster.nodes[name]
        for other in self.cluster.nodes.values():
            if other is not dead:
                self.cluster.network.cut(dead.address.ip, other.address.ip)
        await dead.stop()

    def mend_links(self, name: str) -> None:
        node = self.cluster.nodes[name]
        for other in self.cluster.nodes.values():
            self.cluster.network.join_again(node.address.ip, other.address.ip)


@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.stem)
def test_story(story: Path, tmp_path: Path) -> None:
    run(Stage(tmp_path).play(story.read_text(encoding="utf-8")))


def test_there_are_stories() -> None:
    assert len(STORIES) >= 4
