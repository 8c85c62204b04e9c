"""What a cluster says of itself: its nodes' addresses, and kubeadm's word on pods' subnets."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from pycni.datastore.kubernetes import KubernetesDatastore
from pycni.datastore.kubernetes_objects import PATHS
from pycni.errors import InvalidInput
from pycni.model.resources import Node
from tests.contract.datastore.kubernetes_stories import told
from tests.kube.apiserver import ApiServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(60)]

CONFIG_MAPS = "/api/v1/namespaces/kube-system/configmaps"


def test_internal_ips_are_read_and_left_to_the_kubelet(cluster: ApiServer) -> None:
    addresses = [{"type": "InternalIP", "address": "10.10.7.20"}]
    cluster.ask(
        "POST",
        PATHS[Node],
        {"metadata": {"name": "node-0"}, "status": {"addresses": addresses}},
    )

    async def story(store: KubernetesDatastore) -> None:
        stored = await store.get(Node, "node-0")
        assert stored is not None
        assert stored.value == Node("node-0", internal_ips=(ip_address("10.10.7.20"),))

        await store.update(Node("node-0", as_number=64513), if_revision=stored.revision)

        (listed,) = (await store.list(Node)).items
        assert listed.value.as_number == 64513
        assert listed.value.internal_ips == stored.value.internal_ips

    told(cluster, story)


def test_a_node_made_anew_has_another_uid_and_is_as_equal(cluster: ApiServer) -> None:
    async def story(store: KubernetesDatastore) -> None:
        seen = []
        for _ in range(2):
            cluster.ask("POST", PATHS[Node], {"metadata": {"name": "node-0"}})
            stored = await store.get(Node, "node-0")
            assert stored is not None
            seen.append(stored.value)
            cluster.ask("DELETE", f"{PATHS[Node]}/node-0")

        assert seen[0] == seen[1]
        assert len({"", *(one.uid for one in seen)}) == 3

    told(cluster, story)


def test_a_node_with_an_annotation_that_can_not_be_read_hides_no_other(cluster: ApiServer) -> None:
    annotation = "projectcalico.org/IPv4Address"
    cluster.ask("POST", PATHS[Node], {"metadata": {"name": "node-0"}})
    bad = {"name": "node-1", "annotations": {annotation: "somewhere"}}
    cluster.ask("POST", PATHS[Node], {"metadata": bad})

    async def story(store: KubernetesDatastore) -> None:
        good, other = [one.value for one in (await store.list(Node)).items]
        assert (good.unread, other.unread) == ((), (annotation,))
        stored = await store.get(Node, "node-1")
        assert stored is not None
        await store.update(replace(other, as_number=65001), if_revision=stored.revision)

    told(cluster, story)
    written = cluster.ask("GET", f"{PATHS[Node]}/node-1")["metadata"]["annotations"]
    assert written == {annotation: "somewhere", "projectcalico.org/ASNumber": "65001"}


def test_pods_subnets_are_kubeadms(cluster: ApiServer) -> None:
    said = "networking:\n  podSubnet: 192.168.0.0/16,fd00:192::/48\n"
    config_map = {"metadata": {"name": "kubeadm-config"}, "data": {"ClusterConfiguration": said}}

    async def story(store: KubernetesDatastore) -> None:
        assert await store.pod_subnets() == ()

        cluster.ask("POST", CONFIG_MAPS, config_map)

        subnets = (ip_network("192.168.0.0/16"), ip_network("fd00:192::/48"))
        assert await store.pod_subnets() == subnets

    told(cluster, story)
    cluster.ask("DELETE", f"{CONFIG_MAPS}/kubeadm-config")


def test_objects_of_others_are_listed_as_they_are(cluster: ApiServer) -> None:
    cluster.ask("POST", CONFIG_MAPS, {"metadata": {"name": "other"}, "data": {"a": "b"}})

    async def story(store: KubernetesDatastore) -> None:
        documents = store.documents()

        listed = await documents.list(CONFIG_MAPS)

        assert {"a": "b"} in [one.get("data") for one in listed]
        assert await documents.list("/apis/crd.projectcalico.org/v1/felixconfigurations") == ()
        with pytest.raises(InvalidInput, match="cannot list /api/v1/namespaces/default/b"):
            await documents.list("/api/v1/namespaces/default/bindings")

    told(cluster, story)
    cluster.ask("DELETE", f"{CONFIG_MAPS}/other")


def test_one_condition_of_a_node_is_written_and_the_others_stay(cluster: ApiServer) -> None:
    conditions = [
        {"type": "Ready", "status": "True", "reason": "KubeletReady"},
        {"type": "NetworkUnavailable", "status": "True", "reason": "CalicoIsDown"},
    ]
    node = {"metadata": {"name": "down"}, "status": {"conditions": conditions}}
    cluster.ask("POST", PATHS[Node], node)

    async def story(store: KubernetesDatastore) -> None:
        documents = store.documents()
        words = {"kind": "NetworkUnavailable", "status": "False", "reason": "PycniServes"}

        await documents.set_condition("down", **words)

        with pytest.raises(InvalidInput, match="cannot write the condition of Node none"):
            await documents.set_condition("none", **words)

    told(cluster, story)
    said = cluster.ask("GET", f"{PATHS[Node]}/down")["status"]["conditions"]
    assert {(one["type"], one["status"], one["reason"]) for one in said} == {
        ("Ready", "True", "KubeletReady"),
        ("NetworkUnavailable", "False", "PycniServes"),
    }
