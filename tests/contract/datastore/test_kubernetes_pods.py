"""The pods of one node, as a real API server tells of them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest

from pycni.datastore.kubernetes_pods import KubernetesPods
from pycni.errors import InvalidInput, NotFound
from pycni.ports_cluster import PodFacts
from tests.contract.datastore.kubernetes_stories import opened
from tests.kube.apiserver import ApiServer
from tests.waiting import until

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(60)]

PODS = "/api/v1/namespaces/default/pods"
POOLS = "cni.projectcalico.org/ipv4pools"


@pytest.fixture
def api(cluster: ApiServer) -> Iterator[ApiServer]:
    yield cluster
    cluster.ask("DELETE", PODS, {"gracePeriodSeconds": 0})


def make(api: ApiServer, name: str, *, node: str = "node-0", **annotations: str) -> str:
    """Make a pod; return its uid."""
    pod = {
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]},
    }
    made = api.ask("POST", PODS, pod)
    return str(made["metadata"]["uid"])


def told(api: ApiServer, story: Callable[[KubernetesPods], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(40), opened(api) as store:
            await story(store.pods("node-0"))

    asyncio.run(main())


def test_a_pod_that_no_watch_has_told_of_is_asked_for(api: ApiServer) -> None:
    uid = make(api, "web", **{POOLS: '["p"]', "other": "x"})

    async def story(pods: KubernetesPods) -> None:
        assert pods.on_node() is None
        assert await pods.get("default", "web") == PodFacts("default", "web", uid, {POOLS: '["p"]'})
        assert await pods.get("default", "none") is None
        assert await pods.get("none", "web") is None
        assert await pods.annotations_of_namespace("default") == {}
        assert await pods.annotations_of_namespace("none") == {}

    told(api, story)


def test_the_pods_of_the_node_are_followed_and_others_are_not(api: ApiServer) -> None:
    make(api, "first")
    make(api, "elsewhere", node="node-1")

    async def story(pods: KubernetesPods) -> None:
        changes = []
        pods.on_change = lambda: changes.append(1)
        running = asyncio.ensure_future(pods.run())
        await until(lambda: pods.on_node() is not None)
        assert [one.name for one in pods.on_node() or ()] == ["first"]
        before = len(changes)
        make(api, "second")
        await until(lambda: len(pods.on_node() or ()) == 2)
        assert len(changes) > before
        api.ask("DELETE", f"{PODS}/first", {"gracePeriodSeconds": 0})
        await until(lambda: [one.name for one in pods.on_node() or ()] == ["second"])
        running.cancel()

    told(api, story)


def test_a_node_without_pods_has_none(api: ApiServer) -> None:
    async def story(pods: KubernetesPods) -> None:
        running = asyncio.ensure_future(pods.run())
        await until(lambda: pods.on_node() is not None or running.done())
        assert pods.on_node() == []
        running.cancel()

    told(api, story)


def test_another_pod_of_a_known_name_is_asked_for(api: ApiServer) -> None:
    make(api, "web", **{POOLS: '["old"]'})

    async def story(pods: KubernetesPods) -> None:
        running = asyncio.ensure_future(pods.run())
        await until(lambda: pods.on_node() is not None and len(pods.on_node() or ()) == 1)
        # As a watch does on a connection that is dead without a word.
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        api.ask("DELETE", f"{PODS}/web", {"gracePeriodSeconds": 0})
        uid = make(api, "web", **{POOLS: '["new"]'})

        for said in (uid, "a static pod's"):
            found = await pods.get("default", "web", uid=said)
            assert found == PodFacts("default", "web", uid, {POOLS: '["new"]'})

    told(api, story)


def test_annotations_are_written_beside_others_to_just_this_pod(api: ApiServer) -> None:
    make(api, "web", **{POOLS: '["p"]', "other": "x"})

    async def story(pods: KubernetesPods) -> None:
        said = {"cni.projectcalico.org/podIP": "10.0.0.1/32"}
        pod = await pods.get("default", "web")
        assert pod is not None
        await pods.annotate(pod, said)
        again = await pods.get("default", "web")
        assert again is not None
        assert again.annotations == {**pod.annotations, **said}
        api.ask("DELETE", f"{PODS}/web", {"gracePeriodSeconds": 0})
        with pytest.raises(NotFound):
            await pods.annotate(pod, said)
        make(api, "web")
        with pytest.raises(NotFound, match="pod default/web is gone"):
            await pods.annotate(pod, said)
        other = await pods.get("default", "web")
        assert other is not None
        assert other.annotations == {}
        with pytest.raises(InvalidInput, match="cannot annotate default/web"):
            await pods.annotate(other, {"no good key": "x"})

    told(api, story)
    (web,) = api.ask("GET", PODS)["items"]
    assert web["metadata"]["name"] == "web"
