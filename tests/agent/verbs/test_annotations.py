"""ADD as the annotations of a pod and of its namespace ask for it."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from pathlib import Path

from pycni.model.resources import IPPool
from pycni.ports_cluster import PodFacts
from tests.agent.cluster import POOL, NodeAgent
from tests.agent.verbs.stories import POD, ask, held, leftovers, play, reason

P = "cni.projectcalico.org/"
SMALL = IPPool("small", ip_network("10.1.0.0/30"), block_size=30)
NEXT = IPPool("next", ip_network("10.2.0.0/30"), block_size=30)
POOLS = (POOL, SMALL, NEXT)


class Annotated:
    """A cluster in which pods and their namespace have these annotations."""

    def __init__(self, pod: Mapping[str, str], namespace: Mapping[str, str] | None = None) -> None:
        self.pod = {P + key: text for key, text in pod.items()}
        self.namespace = {P + key: text for key, text in (namespace or {}).items()}
        self.is_there = True
        self.uids: list[str] = []

    async def get(self, namespace: str, name: str, *, uid: str = "") -> PodFacts | None:
        self.uids.append(uid)
        return PodFacts(namespace, name, "u", self.pod) if self.is_there else None

    async def annotations_of_namespace(self, name: str) -> Mapping[str, str]:
        assert name == "default"
        return self.namespace

    def on_node(self) -> Sequence[PodFacts] | None:
        raise NotImplementedError

    async def annotate(self, pod: PodFacts, annotations: Mapping[str, str]) -> None:
        raise NotImplementedError


async def fill(node: NodeAgent, *, pool: str) -> None:
    node.engine.pods = Annotated({"ipv4pools": f'["{pool}"]'})
    for number in range(4):
        await node.add(f"default/{pool}-{number}")


def test_the_namespace_names_the_pool(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        node.engine.pods = Annotated({}, {"ipv4pools": '["small"]'})
        assert (await node.add(POD)).startswith("10.1.0.")

    play(tmp_path, story, pools=POOLS)


def test_just_the_pod_that_the_runtime_means_is_asked_for(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        node.engine.pods = cluster = Annotated({})
        await node.add(POD, args="K8S_POD_UID=1-2")
        assert cluster.uids == ["1-2"]

    play(tmp_path, story, pools=POOLS)


def test_the_pods_annotation_comes_before_its_namespaces(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        node.engine.pods = Annotated({"ipv4pools": '["10.2.0.0/30"]'}, {"ipv4pools": '["small"]'})
        assert (await node.add(POD)).startswith("10.2.0.")

    play(tmp_path, story, pools=POOLS)


def test_an_unknown_pool_is_refused_by_name(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        node.engine.pods = Annotated({}, {"ipv4pools": '["none"]'})
        reply = await ask(node, "ADD")
        assert reply.status == 1
        assert "pool none: it does not exist" in reason(reply)[1]
        assert await leftovers(node) == []

    play(tmp_path, story, pools=POOLS)


def test_of_two_named_pools_the_second_serves_when_the_first_is_full_and_no_third(
    tmp_path: Path,
) -> None:
    async def story(node: NodeAgent) -> None:
        await fill(node, pool="small")
        node.engine.pods = Annotated({"ipv4pools": '["small", "next"]'})
        assert (await node.add("default/second")).startswith("10.2.0.")
        node.engine.pods = Annotated({"ipv4pools": '["small"]'})
        reply = await ask(node, "ADD")
        assert reply.status == 1
        assert "nothing is free in small" in reason(reply)[1]

    play(tmp_path, story, pools=POOLS)


def test_the_pod_names_its_address(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        node.engine.pods = Annotated({"ipAddrs": '["10.2.0.2"]'}, {"ipv4pools": '["small"]'})
        assert await node.add(POD) == "10.2.0.2"
        # Repeated, as a runtime does, it is the same pod's; for another pod it is taken.
        assert await node.add(POD) == "10.2.0.2"
        reply = await node.cni("ADD", "other", pod="default/other")
        assert reply.status == 1
        assert "default.web holds it" in reason(reply)[1]
        assert len(await held(node)) == 1

    play(tmp_path, story, pools=POOLS)


def test_a_pod_that_the_cluster_does_not_know_gets_nothing(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        pods = Annotated({})
        pods.is_there = False
        node.engine.pods = pods
        reply = await ask(node, "ADD")
        assert reason(reply) == (11, "there is no pod default/web in the cluster")
        assert await leftovers(node) == []
        # Who is no pod of Kubernetes is asked for nowhere.
        assert (await node.cni("ADD", "plain")).status == 0

    play(tmp_path, story)
