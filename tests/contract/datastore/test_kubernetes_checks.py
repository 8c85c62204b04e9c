"""What an agent may ask and tell a real cluster beside its objects, with an agent's rights."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from urllib.error import HTTPError

import pytest

from pycni.check.findings import MOST, Finding, Report, Severity
from pycni.datastore.kubernetes import open_kubernetes
from pycni.datastore.kubernetes_api import Access
from pycni.datastore.kubernetes_cluster import (
    CHECK_ANNOTATION,
    EVENTS,
    SECRETS,
    KubernetesCluster,
)
from pycni.datastore.kubernetes_objects import PATHS
from pycni.errors import InvalidInput, TryAgain
from pycni.model.resources import Node
from tests.kube.apiserver import ApiServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(60)]

DEFAULTS = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
REPORT = Report(
    (Finding("clock", Severity.WARNING, "it is late", "leases expire", "timedatectl"),),
    ("dns: no file",),
)
Story = Callable[[KubernetesCluster], Awaitable[None]]


@pytest.fixture
def api(cluster: ApiServer) -> Iterator[ApiServer]:
    for name in ("node-0", "node-1"):
        cluster.ask("POST", PATHS[Node], {"metadata": {"name": name, "annotations": {"a": "b"}}})
    yield cluster
    cluster.ask("DELETE", DEFAULTS)
    cluster.ask("DELETE", EVENTS)


def told(api: ApiServer, story: Story) -> None:
    async def main() -> None:
        store = await open_kubernetes(Access(api.agents_kubeconfig))
        try:
            async with asyncio.timeout(40):
                await story(store.cluster())
        finally:
            await store.close()

    asyncio.run(main())


def make_policy(api: ApiServer, name: str) -> None:
    api.ask("POST", DEFAULTS, {"metadata": {"name": name}, "spec": {"podSelector": {}}})


def test_a_greeting_tells_the_servers_time(api: ApiServer) -> None:
    async def story(cluster: KubernetesCluster) -> None:
        before, began = time.time(), time.monotonic()
        greeting = await cluster.greet()
        took_s, after = time.monotonic() - began, time.time()

        theirs = parsedate_to_datetime(greeting.date).timestamp()
        # Its header has no fractions of a second.
        assert before - 2 < theirs < after + 2
        assert before <= greeting.ours_s <= after
        assert 0 < greeting.latency_s <= took_s
        assert await cluster.missing_kinds() == []

    told(api, story)


def test_a_report_stands_beside_others_annotations_and_reads_back(api: ApiServer) -> None:
    async def story(cluster: KubernetesCluster) -> None:
        await cluster.publish("node-0", REPORT)
        reports = await cluster.reports()

        assert reports["node-0"] == REPORT
        assert "published nothing" in reports["node-1"].unchecked[0]

    told(api, story)

    annotations = api.ask("GET", f"{PATHS[Node]}/node-0")["metadata"]["annotations"]
    assert set(annotations) == {"a", CHECK_ANNOTATION}


def test_a_report_is_taken_back_and_none_is_as_good(api: ApiServer) -> None:
    async def story(cluster: KubernetesCluster) -> None:
        await cluster.publish("node-0", REPORT)
        for name in ("node-0", "node-0", "gone"):
            await cluster.publish(name, None)

    told(api, story)

    annotations = api.ask("GET", f"{PATHS[Node]}/node-0")["metadata"]["annotations"]
    assert set(annotations) == {"a"}


def test_a_report_is_written_when_the_node_does_not_say_it_yet(api: ApiServer) -> None:
    where = f"{PATHS[Node]}/node-0"

    def version() -> str:
        return str(api.ask("GET", where)["metadata"]["resourceVersion"])

    async def story(cluster: KubernetesCluster) -> None:
        await cluster.publish("node-0", REPORT)
        before = version()
        await cluster.publish("node-0", REPORT)
        assert version() == before

        # Whoever looks later meets the same name, and knows nothing of the former Node.
        api.ask("DELETE", where)
        api.ask("POST", PATHS[Node], {"metadata": {"name": "node-0"}})
        await cluster.publish("node-0", REPORT)
        assert (await cluster.reports())["node-0"] == REPORT

    told(api, story)


def test_a_report_of_more_than_a_node_can_hold_is_told_in_part(api: ApiServer) -> None:
    found = [Finding("node-answers", Severity.ERROR, "x" * 900, "y", "z")] * 500

    async def story(cluster: KubernetesCluster) -> None:
        await cluster.publish("node-0", Report(tuple(found)))
        report = (await cluster.reports())["node-0"]

        assert report.findings == tuple(found[:MOST])
        assert report.unchecked == (
            f"{500 - MOST} more findings: run `pycnictl check` on that node",
        )

    told(api, story)


@pytest.mark.parametrize("text", ["{", "[]", '{"findings": 1}', "[" * 50_000])
def test_an_annotation_that_is_no_report_is_told_as_such(api: ApiServer, text: str) -> None:
    node = api.ask("GET", f"{PATHS[Node]}/node-0")
    node["metadata"]["annotations"][CHECK_ANNOTATION] = text
    api.ask("PUT", f"{PATHS[Node]}/node-0", node)

    async def story(cluster: KubernetesCluster) -> None:
        unchecked = (await cluster.reports())["node-0"].unchecked

        assert unchecked == (f"cannot read its annotation {CHECK_ANNOTATION}",)

    told(api, story)


def test_a_node_that_is_gone_can_not_be_annotated(api: ApiServer) -> None:
    async def story(cluster: KubernetesCluster) -> None:
        with pytest.raises(InvalidInput, match="cannot annotate Node gone: "):
            await cluster.publish("gone", REPORT)

    told(api, story)


def test_policies_are_followed_and_a_change_of_one_is_none(api: ApiServer) -> None:
    make_policy(api, "one")

    async def story(cluster: KubernetesCluster) -> None:
        policies = cluster.policies()
        assert await anext(policies) == {"default/one"}
        policy = api.ask("GET", f"{DEFAULTS}/one")
        policy["spec"]["policyTypes"] = ["Ingress", "Egress"]
        api.ask("PUT", f"{DEFAULTS}/one", policy)
        make_policy(api, "two")
        assert await anext(policies) == {"default/one", "default/two"}
        api.ask("DELETE", f"{DEFAULTS}/one")
        assert await anext(policies) == {"default/two"}
        await policies.aclose()  # type: ignore[attr-defined]

    told(api, story)


def test_without_the_right_to_see_policies_the_file_that_gives_it_is_named(api: ApiServer) -> None:
    where = "/apis/rbac.authorization.k8s.io/v1/clusterroles/pycni-agent"
    before = api.ask("GET", where)
    others = [r for r in before["rules"] if "networkpolicies" not in r.get("resources", ())]
    del before["metadata"]["resourceVersion"]

    async def story(cluster: KubernetesCluster) -> None:
        async def ask_on() -> None:
            while True:  # the server takes a moment to know the new role
                await anext(cluster.policies())

        with pytest.raises(TryAgain, match=r"is deploy/rbac.yaml applied\?"):
            await ask_on()

    api.ask("PUT", where, {**before, "rules": others})
    try:
        told(api, story)
    finally:
        api.ask("PUT", where, before)


def test_a_policy_that_is_nested_without_measure_is_one_as_any_other(api: ApiServer) -> None:
    make_policy(api, "one")
    fields = '{"f:a":' * 5000 + "{}" + "}" * 5000
    managed = (
        f'[{{"manager": "m", "operation": "Update", "apiVersion": "networking.k8s.io/v1",'
        f' "fieldsType": "FieldsV1", "fieldsV1": {fields}}}]'
    )
    text = f'{{"metadata": {{"name": "deep", "managedFields": {managed}}}, "spec": {{}}}}'

    async def story(cluster: KubernetesCluster) -> None:
        policies = cluster.policies()
        assert await anext(policies) == {"default/one"}
        api.ask("POST", DEFAULTS, text.encode())
        assert await anext(policies) == {"default/one", "default/deep"}
        assert await anext(cluster.policies()) == {"default/one", "default/deep"}
        await policies.aclose()  # type: ignore[attr-defined]

    told(api, story)


def test_a_secret_is_followed_where_that_is_allowed_and_no_other(api: ApiServer) -> None:
    def put(name: str, **data: str) -> None:
        api.ask("POST", SECRETS, {"metadata": {"name": name}, "stringData": data})

    async def story(cluster: KubernetesCluster) -> None:
        with pytest.raises(TryAgain, match=r"is deploy/bgp-passwords.yaml applied\?"):
            await anext(cluster.secret("bgp-passwords"))
        api.apply("bgp-passwords.yaml")
        held = await allowed(cluster, "bgp-passwords")
        assert await anext(held) is None
        put("others", tor="three")
        put("bgp-passwords", tor="one", mesh="two")
        assert await anext(held) == {"tor": b"one", "mesh": b"two"}
        assert await anext(cluster.secret("bgp-passwords")) == {"tor": b"one", "mesh": b"two"}
        api.ask("DELETE", f"{SECRETS}/bgp-passwords")
        assert await anext(held) is None
        with pytest.raises(TryAgain, match=r"bgp-passwords\.yaml"):
            await anext(cluster.secret("others"))
        await held.aclose()  # type: ignore[attr-defined]

    try:
        told(api, story)
    finally:
        for name in ("others", "bgp-passwords"):
            with contextlib.suppress(HTTPError):
                api.ask("DELETE", f"{SECRETS}/{name}")
        api.remove("bgp-passwords.yaml")


async def allowed(
    cluster: KubernetesCluster, name: str
) -> AsyncIterator[Mapping[str, bytes] | None]:
    """Wait until the server knows of the right."""
    while True:
        held = cluster.secret(name)
        try:
            await anext(held)
        except TryAgain:
            await asyncio.sleep(0.1)
            continue
        await held.aclose()  # type: ignore[attr-defined]
        return cluster.secret(name)


def test_an_event_names_the_node_as_kubectl_looks_for_it(api: ApiServer) -> None:
    async def story(cluster: KubernetesCluster) -> None:
        await cluster.warn("node-0", reason="Reason", message="words")

    told(api, story)

    (event,) = (one for one in api.ask("GET", EVENTS)["items"] if one["reason"] == "Reason")
    assert (event["type"], event["message"]) == ("Warning", "words")
    assert event["involvedObject"] == {
        "apiVersion": "v1", "kind": "Node", "name": "node-0", "uid": "node-0",
    }  # fmt: skip
