"""What only a datastore in Kubernetes meets: other writers' habits, lost servers, new tokens."""

import asyncio
import contextlib
import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
import yaml

from pycni.datastore import kubernetes_api
from pycni.datastore.kubernetes import KubernetesDatastore, open_kubernetes
from pycni.datastore.kubernetes_api import Access
from pycni.datastore.kubernetes_objects import PATHS
from pycni.errors import (
    Conflict,
    DatastoreUnusable,
    InvalidInput,
    TryAgain,
)
from pycni.model.resources import (
    AffinityState,
    Block,
    BlockAffinity,
    Handle,
    IPPool,
    Node,
    TunnelMode,
)
from pycni.model.resources_bgp import BGPConfiguration, BGPPeer
from tests.contract.datastore.kubernetes_stories import opened, told
from tests.contract.datastore.stories import handle, stop, take
from tests.kube.apiserver import ApiServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]

CIDR = IPv4Network("192.168.39.192/30")
AFFINITY = BlockAffinity("node-0", CIDR, AffinityState.CONFIRMED)
BLOCK = Block(CIDR, "node-0", (None,) * 4, (0, 1, 2, 3), sequence_numbers=(None,) * 4)
POOL = IPPool("pool", IPv4Network("192.168.0.0/16"))
HANDLES = PATHS[Handle]


# --- Calico's habits ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "deleted"), [(BLOCK, True), (AFFINITY, "true"), (handle("a"), True)]
)
def test_what_another_has_marked_as_deleted_is_gone_and_finished(
    cluster: ApiServer, value: Block | BlockAffinity | Handle, deleted: object
) -> None:
    kind = type(value)

    async def story(store: KubernetesDatastore) -> None:
        cursor = (await store.list(kind)).cursor
        for look in ("get", "list", "create"):
            created = await store.create(value)
            (item,) = cluster.ask("GET", PATHS[kind])["items"]
            item["spec"]["deleted"] = deleted
            cluster.ask("PUT", f"{PATHS[kind]}/{item['metadata']['name']}", item)

            if look == "get":
                assert await store.get(kind, item["metadata"]["name"]) is None
            elif look == "list":
                assert (await store.list(kind)).items == ()
            else:
                created = await store.create(value)
                await store.delete(kind, item["metadata"]["name"], if_revision=created.revision)

            assert cluster.ask("GET", PATHS[kind])["items"] == []
        watch = store.watch(kind, after=cursor)
        changes = [change.stored is not None for change in await take(watch, 8)]
        await stop(watch)
        # Each is gone once, with the mark, and not once more with its end.
        assert changes == [True, False] * 4

    told(cluster, story)


def test_an_affinity_has_the_labels_by_which_calico_lists(cluster: ApiServer) -> None:
    async def story(store: KubernetesDatastore) -> None:
        created = await store.create(AFFINITY)
        await store.update(
            replace(AFFINITY, state=AffinityState.PENDING_DELETION), if_revision=created.revision
        )

    told(cluster, story)

    (item,) = cluster.ask("GET", PATHS[BlockAffinity])["items"]
    assert item["metadata"]["name"] == "node-0-192-168-39-192-30"
    assert item["metadata"]["labels"] == {
        "projectcalico.org/affinity-type": "host",
        "projectcalico.org/hostname-hash": "SGWB6YWABUSNFPFRM7CZD2XU3T5P2F6DNTULOHS3NX7DUIB4C6UQ",
        "projectcalico.org/ip-version": "4",
    }
    assert item["spec"]["deleted"] == "false"


def test_what_others_keep_beside_a_pool_or_node_stays(cluster: ApiServer) -> None:
    node = Node("node-0", ipv4=IPv4Interface("10.0.0.1/24"), labels=(("a", "b"),))

    async def story(store: KubernetesDatastore) -> None:
        await store.create(POOL)
        await store.create(node)
        for path, extra in ((PATHS[IPPool], "finalizers"), (PATHS[Node], "annotations")):
            (item,) = cluster.ask("GET", path)["items"]
            beside = ["example.org/x"] if extra == "finalizers" else {"example.org/x": "y"}
            beside = beside if extra == "finalizers" else item["metadata"][extra] | beside
            item["metadata"][extra] = beside
            cluster.ask("PUT", f"{path}/{item['metadata']['name']}", item)
        for value, changed in (
            (POOL, replace(POOL, ipip_mode=TunnelMode.ALWAYS)),
            (node, replace(node, ipv4=None, ipip_tunnel_address=IPv4Address("10.1.0.0"))),
            (node, Node("node-0", labels=(("c", ""),))),
        ):
            before = await store.get(type(value), value.name)
            assert before is not None
            written = await store.update(changed, if_revision=before.revision)
            assert await store.get(type(value), value.name) == written
            assert written.value == changed

    told(cluster, story)

    (pool,), (found,) = (cluster.ask("GET", PATHS[kind])["items"] for kind in (IPPool, Node))
    assert pool["metadata"]["finalizers"] == ["example.org/x"]
    assert json.loads(pool["metadata"]["annotations"]["projectcalico.org/metadata"])["uid"]
    assert found["metadata"]["annotations"] == {"example.org/x": "y"}
    pool["metadata"]["finalizers"] = []
    cluster.ask("PUT", f"{PATHS[IPPool]}/pool", pool)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (handle("a_b"), "cannot create IPAMHandle a_b: .*RFC 1123 subdomain"),
        (
            BGPPeer("p", IPv4Address("10.0.0.1"), 1, password="x"),  # noqa: S106
            "cannot keep the password of BGPPeer p in",
        ),
        (
            BGPConfiguration(mesh_password="x"),  # noqa: S106
            "cannot keep the password of BGPConfiguration default in",
        ),
    ],
)
def test_what_kubernetes_can_not_hold_is_refused(
    cluster: ApiServer, value: Handle | BGPPeer | BGPConfiguration, sentence: str
) -> None:
    async def story(store: KubernetesDatastore) -> None:
        with pytest.raises(InvalidInput, match=sentence):
            await store.create(value)

    told(cluster, story)


def test_a_password_is_no_change_that_kubernetes_can_hold_either(cluster: ApiServer) -> None:
    async def story(store: KubernetesDatastore) -> None:
        made = await store.create(BGPPeer("p", IPv4Address("10.0.0.1"), 1))
        secret = replace(made.value, password="x")  # noqa: S106
        with pytest.raises(InvalidInput, match="cannot keep the password of BGPPeer p in"):
            await store.update(secret, if_revision=made.revision)

    told(cluster, story)


def test_a_pool_keeps_its_range(cluster: ApiServer) -> None:
    async def story(store: KubernetesDatastore) -> None:
        created = await store.create(POOL)
        moved = replace(POOL, cidr=IPv4Network("10.0.0.0/16"))
        with pytest.raises(InvalidInput, match="cidr cannot be changed"):
            await store.update(moved, if_revision=created.revision)

    told(cluster, story)


async def created_and_deleted(store: KubernetesDatastore) -> None:
    """Do it again and again: a changed definition takes a moment."""
    for _ in range(300):
        created = await store.create(POOL)
        await store.delete(IPPool, "pool", if_revision=created.revision)
        await asyncio.sleep(0.1)


def test_a_definition_that_drops_a_field_is_told(cluster: ApiServer) -> None:
    where = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ippools.crd.projectcalico.org"
    definition = cluster.ask("GET", where)
    older = json.loads(json.dumps(definition))
    schema = older["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del schema["properties"]["assignmentMode"]

    async def story(store: KubernetesDatastore) -> None:
        with pytest.raises(DatastoreUnusable, match=r"older one .*spec.assignmentMode.*apply"):
            await created_and_deleted(store)
        assert (await store.list(IPPool)).items == ()

    try:
        cluster.ask("PUT", where, older)
        told(cluster, story)
    finally:
        older["spec"] = definition["spec"]
        older["metadata"] = cluster.ask("GET", where)["metadata"]
        cluster.ask("PUT", where, older)


def test_a_cluster_without_the_definitions_is_told_what_to_do(cluster: ApiServer) -> None:
    async def story(store: KubernetesDatastore) -> None:
        real = PATHS[IPPool]
        PATHS[IPPool] = "/apis/crd.projectcalico.org/v1/nothings"
        try:
            for attempt in (store.list(IPPool), store.get(IPPool, "x"), store.create(POOL)):
                with pytest.raises(DatastoreUnusable, match=r"apply deploy/crds.yaml"):
                    await attempt
        finally:
            PATHS[IPPool] = real

    told(cluster, story)


def test_an_object_that_is_no_valid_one_is_named(cluster: ApiServer) -> None:
    cluster.ask(
        "POST",
        HANDLES,
        {
            "apiVersion": "crd.projectcalico.org/v1",
            "kind": "IPAMHandle",
            "metadata": {"name": "one"},
            "spec": {"handleID": "other", "block": {}},
        },
    )

    async def story(store: KubernetesDatastore) -> None:
        with pytest.raises(DatastoreUnusable, match="IPAMHandle one: it describes other"):
            await store.list(Handle)

    told(cluster, story)


# --- credentials ----------------------------------------------------------------------------------


def test_a_configuration_that_is_none_is_refused(tmp_path: Path, cluster: ApiServer) -> None:
    async def refused(access: Access) -> str:
        with pytest.raises(DatastoreUnusable) as caught:
            await open_kubernetes(access)
        return str(caught.value)

    def because(text: str | None, *, name: str = "kubeconfig") -> str:
        if text is not None:
            (tmp_path / name).write_text(text, encoding="utf-8")
        return asyncio.run(refused(Access(tmp_path / name)))

    document = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))
    document["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True

    assert "No such file" in because(None, name="missing")
    assert "cannot use the kubeconfig" in because("")
    assert "cannot use the kubeconfig" in because("a: [")
    assert "switches off the verification" in because(yaml.safe_dump(document))
    in_pod = asyncio.run(refused(Access()))
    assert in_pod.startswith("cannot use the service account of this pod: ")


def test_a_server_that_another_authority_vouches_for_is_not_believed(
    tmp_path: Path, cluster: ApiServer, own_server: ApiServer
) -> None:
    document = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))
    document["clusters"][0]["cluster"]["server"] = own_server.url
    crossed = tmp_path / "crossed"
    crossed.write_text(yaml.safe_dump(document), encoding="utf-8")

    async def main() -> None:
        store = await open_kubernetes(Access(crossed))
        with pytest.raises(TryAgain, match=r"does not answer.*certificate"):
            await store.list(Node)
        await store.close()

    asyncio.run(main())


# --- many at once ---------------------------------------------------------------------------------


def test_five_writers_in_a_storm_of_conflicts_lose_nothing(cluster: ApiServer) -> None:
    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(opened(cluster)) for _ in range(5)]
            await stores[0].create(handle("counter", 0))
            conflicts = sum(await asyncio.gather(*map(add_twenty, stores)))
            final = await stores[0].get(Handle, "counter")
        assert final is not None
        assert final.value == handle("counter", 100)
        assert conflicts > 0

    async def add_twenty(store: KubernetesDatastore) -> int:
        conflicts = 0
        for _ in range(20):
            while True:
                stored = await store.get(Handle, "counter")
                assert stored is not None
                count = stored.value.blocks[0][1] + 1
                try:
                    await store.update(handle("counter", count), if_revision=stored.revision)
                    break
                except Conflict:
                    conflicts += 1
        return conflicts

    asyncio.run(main())


def test_a_long_list_comes_in_pages(cluster: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_api, "PAGE", 7)
    names = [f"h{number:02}" for number in range(30)]

    async def story(store: KubernetesDatastore) -> None:
        await asyncio.gather(*(store.create(handle(name)) for name in names))

        listing = await store.list(Handle)

        assert [one.value.id for one in listing.items] == names
        watch = store.watch(Handle, after=listing.cursor)
        await store.create(handle("next"))
        assert [change.name for change in await take(watch, 1)] == ["next"]
        await stop(watch)

    told(cluster, story)
