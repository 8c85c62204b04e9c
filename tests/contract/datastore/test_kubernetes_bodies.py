"""What goes over the wire for a block: no more than somebody needs, for every ADD writes one."""

import asyncio
from dataclasses import replace
from ipaddress import IPv4Network

import pytest
import yaml

from pycni.datastore.kubernetes import KubernetesDatastore
from pycni.datastore.kubernetes_api import Access, Api
from pycni.datastore.kubernetes_objects import PATHS, place, replacement
from pycni.model.resources import Block, Handle
from tests.contract.datastore.kubernetes_stories import told
from tests.contract.datastore.stories import handle
from tests.kube.apiserver import ROOT, ApiServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]

CIDR = IPv4Network("192.168.39.192/30")
BLOCK = Block(CIDR, "node-0", (None,) * 4, (0, 1, 2, 3), sequence_numbers=(None,) * 4)


def test_the_server_keeps_no_account_of_who_has_written_which_field(cluster: ApiServer) -> None:
    """It compares both versions for that; Calico's definitions make it the dearer."""

    async def story(store: KubernetesDatastore) -> None:
        created = await store.create(BLOCK)
        (item,) = cluster.ask("GET", PATHS[Block])["items"]
        assert item["metadata"]["managedFields"]
        for number in (1, 2):
            changed = replace(BLOCK, sequence_number=number)
            created = await store.update(changed, if_revision=created.revision)

            (item,) = cluster.ask("GET", PATHS[Block])["items"]
            assert item["spec"]["sequenceNumber"] == number
            assert "managedFields" not in item["metadata"]

    told(cluster, story)


def test_a_write_is_answered_with_metadata_alone(cluster: ApiServer) -> None:
    async def main() -> None:
        api = Api(Access(cluster.kubeconfig))
        await api.connect()
        try:
            store = KubernetesDatastore(api)
            written = await store.create(handle("a"))

            answer = await api.call(
                "PUT", place(Handle, "a"), body=replacement(handle("a", 2), written.revision)
            )
            assert answer["metadata"]["name"] == "a"
            assert "spec" not in answer
            read = await store.get(Handle, "a")
        finally:
            await api.close()
        assert read is not None
        assert read.value == handle("a", 2)
        assert read.revision.token == answer["metadata"]["resourceVersion"]

    asyncio.run(main())


def test_no_definition_has_the_server_look_at_each_element_of_a_block() -> None:
    """A validator for each is half of what a write costs the server."""
    documents = list(yaml.safe_load_all((ROOT / "deploy/crds.yaml").read_text()))
    (blocks,) = [d for d in documents if d["metadata"]["name"].startswith("ipamblocks.")]
    spec = blocks["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]

    long = {name for name, said in spec["properties"].items() if "type" not in said}

    assert long == {"allocations", "unallocated", "attributes", "sequenceNumberForAllocation"}
    assert not {"items", "additionalProperties"} & {
        key for said in spec["properties"].values() for key in said
    }
