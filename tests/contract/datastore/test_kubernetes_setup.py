"""Preparing a new cluster by pycnictl, with a real API server."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pycni.ctl.main import main
from pycni.datastore import kubernetes_setup
from pycni.datastore.kubernetes import open_kubernetes
from pycni.datastore.kubernetes_api import APPLY_PATCH, Access, Api
from pycni.datastore.kubernetes_objects import PATHS
from pycni.errors import TryAgain
from pycni.model.resources import IPPool
from pycni.model.resources_bgp import BGPPeer
from tests.kube.apiserver import ROOT, ApiServer, bare_apiserver

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SECRETS = "/api/v1/namespaces/kube-system/secrets"
NAMES = ("crds.yaml", "rbac.yaml", "admission.yaml")
FILES = tuple(word for name in NAMES for word in ("-f", str(ROOT / "deploy" / name)))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with bare_apiserver(tmp_path_factory.mktemp("cluster")) as server:
        yield server


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[ApiServer]:
    """Run a server of its own: definitions that are deleted take their time to go."""
    with bare_apiserver(tmp_path / "cluster") as server:
        yield server


def cluster(server: ApiServer, *words: str) -> int:
    return main(["--kubeconfig", str(server.kubeconfig), "cluster", *words])


def give_token(server: ApiServer) -> None:
    """Do what the controller manager does to a Secret of an account."""
    while not (secrets := server.ask("GET", SECRETS)["items"]):
        time.sleep(0.05)
    (secret,) = secrets
    token = base64.b64encode(server.agents_token().encode()).decode()
    where = f"{SECRETS}/{secret['metadata']['name']}"
    server.ask("PUT", where, {**secret, "data": {"token": token}})


async def pools(kubeconfig: Path) -> list[str]:
    store = await open_kubernetes(Access(kubeconfig))
    try:
        return [stored.value.name for stored in (await store.list(IPPool)).items]
    finally:
        await store.close()


def test_definitions_serve_once_they_are_applied_and_may_be_applied_again(
    bare: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cluster(bare, "apply", *FILES) == 0
    first = capsys.readouterr().out.splitlines()
    assert asyncio.run(pools(bare.kubeconfig)) == []

    assert cluster(bare, "apply", *FILES) == 0

    assert capsys.readouterr().out.splitlines() == first
    assert len(first) == len(PATHS) - 1 + 5 + 2
    assert "applied CustomResourceDefinition ippools.crd.projectcalico.org" in first
    assert "applied RoleBinding pycni-agent" in first
    assert "applied ValidatingAdmissionPolicyBinding pycni-agent" in first


def test_kubectl_may_apply_after_us_what_agents_may_not_write(bare: ApiServer) -> None:
    assert cluster(bare, "apply", *FILES) == 0

    for document in yaml.safe_load_all((ROOT / "deploy/admission.yaml").read_text()):
        kind = f"{document['kind'].lower()}s".replace("policys", "policies")
        where = f"/apis/admissionregistration.k8s.io/v1/{kind}/pycni-agent?fieldManager=kubectl"
        # A field that was filled in and isn't stated would be a conflict.
        assert bare.ask("PATCH", where, document, content_type=APPLY_PATCH)


def test_a_definition_that_another_has_made_is_his_to_keep(
    bare: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = list(yaml.safe_load_all((ROOT / "deploy/crds.yaml").read_text()))
    (theirs,) = [d for d in documents if d["metadata"]["name"].startswith("bgppeers.")]
    theirs["metadata"]["labels"] = {"whose": "theirs"}
    before = bare.ask("POST", DEFINITIONS, theirs)

    assert cluster(bare, "apply", *FILES) == 0

    said = capsys.readouterr().out
    assert "kept CustomResourceDefinition bgppeers.crd.projectcalico.org, which another" in said
    after = bare.ask("GET", f"{DEFINITIONS}/{theirs['metadata']['name']}")
    assert (after["spec"], after["metadata"]["labels"]) == (before["spec"], {"whose": "theirs"})
    assert bare.ask("GET", PATHS[BGPPeer])["items"] == []


def test_an_older_definition_of_ours_gives_way(bare: ApiServer, tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all((ROOT / "deploy/crds.yaml").read_text()))
    (newer,) = [d for d in documents if d["metadata"]["name"].startswith("ipamblocks.")]
    older = json.loads(json.dumps(newer))
    _fields_of(older)["allocations"] = {
        "type": "array",
        "items": {"type": "integer", "nullable": True},
    }
    file = tmp_path / "older.yaml"
    file.write_text(yaml.safe_dump(older), encoding="utf-8")
    assert cluster(bare, "apply", "-f", str(file)) == 0
    where = f"{DEFINITIONS}/{newer['metadata']['name']}"
    assert _fields_of(bare.ask("GET", where))["allocations"]["type"] == "array"

    assert cluster(bare, "apply", *FILES) == 0

    assert _fields_of(bare.ask("GET", where)) == _fields_of(newer)


def _fields_of(definition: dict[str, Any]) -> dict[str, Any]:
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    fields: dict[str, Any] = schema["properties"]["spec"]["properties"]
    return fields


def test_the_kubeconfig_has_the_agents_rights_and_stays_the_same(
    bare: ApiServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cluster(bare, "apply", *FILES) == 0
    controller = threading.Thread(target=give_token, args=(bare,))
    controller.start()
    capsys.readouterr()

    assert cluster(bare, "kubeconfig") == 0
    controller.join()
    text = capsys.readouterr().out
    assert cluster(bare, "kubeconfig") == 0

    assert capsys.readouterr().out == text
    made = tmp_path / "kubeconfig"
    made.write_text(text)
    assert asyncio.run(pools(made)) == []
    with pytest.raises(TryAgain, match=r"secrets is forbidden.*pycni-agent"):
        asyncio.run(secrets(made))


async def secrets(kubeconfig: Path) -> None:
    api = Api(Access(kubeconfig))
    await api.connect()
    try:
        await api.call("GET", "/api/v1/secrets")
    finally:
        await api.close()


def test_without_a_controller_that_makes_tokens_the_reason_is_told(
    bare: ApiServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kubernetes_setup, "PATIENCE_S", 0.0)
    assert cluster(bare, "apply", "-f", str(ROOT / "deploy/rbac.yaml")) == 0

    assert cluster(bare, "kubeconfig") == 1

    assert "does kube-controller-manager run?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("kind: Pod\nmetadata: {name: a}\n", "cannot apply Pod a: known are"),
        ("kind: Role\n", "cannot apply Role None: known are"),
        ("- a\n", "every document must be an object"),
        (
            (
                '{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",'
                ' "metadata": {"name": "a"}, "rules": [{"resources": ["a"]}]}'
            ),
            "cannot PATCH /apis/rbac.authorization.k8s.io/v1/clusterroles/a: ",
        ),
    ],
)
def test_what_can_not_be_applied_is_told(
    fresh: ApiServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    complaint: str,
) -> None:
    (tmp_path / "objects.yaml").write_text(text)

    assert cluster(fresh, "apply", "-f", str(tmp_path / "objects.yaml")) == 1

    assert complaint in capsys.readouterr().err


def test_pods_subnets_are_printed_where_kubeadm_has_said_them(
    fresh: ApiServer, capsys: pytest.CaptureFixture[str]
) -> None:
    where = "/api/v1/namespaces/kube-system/configmaps"
    said = {"ClusterConfiguration": "networking: {podSubnet: '10.0.0.0/16,fd00::/48'}"}
    assert cluster(fresh, "subnets") == 0
    fresh.ask("POST", where, {"metadata": {"name": "kubeadm-config"}, "data": said})

    assert cluster(fresh, "subnets") == 0

    assert capsys.readouterr().out == "10.0.0.0/16\nfd00::/48\n"
