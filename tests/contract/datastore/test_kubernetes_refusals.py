"""What an API server with our definitions refuses, lest it keep less than what was said.

Objects are sent as kubectl sends them, past pycnictl: of a field that a definition does not know,
the server would drop what is said.
"""

import json
import time
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml

from pycni.datastore.kubernetes_api import JSON, MERGE_PATCH
from pycni.datastore.kubernetes_objects import PATHS
from pycni.model.resources import IPPool, Resource
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer
from tests.kube.apiserver import ROOT, ApiServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
PEER = {"peerIP": "10.0.0.1", "asNumber": 65000}
OF_ONE_NODE = {
    "listenPort": 1790,
    "prefixAdvertisements": [{"cidr": "10.0.0.0/16", "communities": ["1:2"]}],
    "communities": [{"name": "a", "value": "1:2"}],
    "logSeverityScreen": "Info",
}
LISTS = ("exportV4", "importV4", "exportV6", "importV6")


def made(
    server: ApiServer, kind: type[Resource], name: str, spec: object, *, is_trial: bool = False
) -> str:
    """Create an object, or only try to; return why it is refused, or nothing."""
    document = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": kind.__name__,
        "metadata": {"name": name},
        "spec": spec,
    }
    return refusal(server, "POST", PATHS[kind] + "?dryRun=All" * is_trial, document)


def refusal(
    server: ApiServer, method: str, path: str, document: object, content_type: str = JSON
) -> str:
    """Return why a request is refused, or nothing."""
    try:
        server.ask(method, path, document, content_type=content_type)
    except HTTPError as exc:
        with exc:
            if exc.code != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            return str(json.loads(exc.read())["message"])
    return ""


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        (BGPPeer, PEER | {"keepaliveTime": "3s"}, "keepaliveTime"),
        (BGPPeer, PEER | {"reachableBy": "10.0.0.9"}, "reachableBy"),
        (BGPPeer, PEER | {"localWorkloadSelector": "all()"}, "localWorkloadSelector"),
        (BGPConfiguration, {"programClusterRoutes": "Enabled"}, "programClusterRoutes"),
        (BGPConfiguration, {"localWorkloadPeeringIPV4": "1.1.1.1"}, "localWorkloadPeeringIPV4"),
        (BGPConfiguration, {"localWorkloadPeeringIPV6": "fd00::1"}, "localWorkloadPeeringIPV6"),
        (IPPool, {"cidr": "10.0.0.0/16", "namespaceSelector": "all()"}, "namespaceSelector"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_field_of_calicos_that_pycni_lacks_is_refused_by_name(
    cluster: ApiServer, kind: type[Resource], spec: dict[str, Any], field: str
) -> None:
    said = made(cluster, kind, "default", spec)

    assert f"spec.{field}: " in said
    assert f"{field} is not supported by pycni; remove it" in said
    assert made(cluster, kind, "default", {k: v for k, v in spec.items() if k != field}) == ""


@pytest.mark.parametrize("rules", LISTS)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peerType", "eBGP"),
        ("communities", {"values": ["1:2"]}),
        ("asPathPrefix", [65000]),
        ("priority", 5),
        ("operations", [{"setPriority": {"value": 5}}]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_rule_that_would_apply_to_more_than_it_says_is_refused_by_name(
    cluster: ApiServer, rules: str, field: str, value: object
) -> None:
    """Without the field it is one that applies always."""
    narrow = {"action": "Accept", field: value}

    said = made(cluster, BGPFilter, "one", {rules: [{"action": "Accept"}, narrow]})

    assert f"spec.{rules}[1].{field}: " in said
    assert f"{field} is not supported by pycni; remove it" in said
    assert made(cluster, BGPFilter, "one", {rules: [{"action": "Accept"}] * 1000}) == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("asNumber", 65000),
        ("nodeToNodeMeshEnabled", False),
        ("nodeMeshPassword", {"secretKeyRef": {"name": "a", "key": "b"}}),
        ("nodeMeshMaxRestartTime", "60s"),
        ("serviceClusterIPs", [{"cidr": "10.96.0.0/16"}]),
        ("serviceExternalIPs", [{"cidr": "10.96.0.0/16"}]),
        ("serviceLoadBalancerIPs", [{"cidr": "10.96.0.0/16"}]),
        ("bindMode", "NodeIP"),
        ("ignoredInterfaces", ["eth0"]),
        ("serviceLoadBalancerAggregation", "Disabled"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_holds_for_all_nodes_is_refused_of_one(
    cluster: ApiServer, field: str, value: object
) -> None:
    said = made(cluster, BGPConfiguration, "node.node-0", OF_ONE_NODE | {field: value})

    assert f"spec.{field} belongs into the BGPConfiguration named default" in said
    assert made(cluster, BGPConfiguration, "default", {field: value}) == ""


def test_what_one_node_may_have_of_its_own_is_taken(cluster: ApiServer) -> None:
    usual = {"serviceLoadBalancerAggregation": "Enabled", "serviceClusterIPs": []}

    assert made(cluster, BGPConfiguration, "node.node-0", OF_ONE_NODE | usual) == ""


@pytest.mark.parametrize("name", ["foo", "node", "node-0", "xnode.x"])
def test_settings_of_a_name_that_means_nothing_are_refused(cluster: ApiServer, name: str) -> None:
    assert "must be default, or node.NAME" in made(cluster, BGPConfiguration, name, {})


@pytest.mark.parametrize("text", ["*", "***", "", "eth0\n", "eth 0", "a234567890123456"])
def test_what_names_no_interfaces_is_refused(cluster: ApiServer, text: str) -> None:
    said = made(cluster, BGPConfiguration, "default", {"ignoredInterfaces": ["eth0", text]})

    assert "spec.ignoredInterfaces[1]" in said
    usual = ["br-*", "*a", "e*h", "a23456789012345", "*.7"]
    assert made(cluster, BGPConfiguration, "default", {"ignoredInterfaces": usual}) == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("nodeMeshMaxRestartTime", "soon"),
        ("nodeMeshMaxRestartTime", "1.5s"),
        ("nodeMeshMaxRestartTime", ""),
        ("communities", [{"name": "pods"}]),
        ("communities", [{"value": "1:2"}]),
        ("communities", [{"name": "my pods", "value": "1:2"}]),
        ("communities", [{"name": "pods", "value": "no-export"}]),
        ("prefixAdvertisements", [{"cidr": "10.0.0.0/8"}]),
        ("prefixAdvertisements", [{"communities": ["1:2"]}]),
        ("prefixAdvertisements", [{"cidr": "10.0.0.0/8", "communities": []}]),
    ],
    ids=str,
)
def test_a_value_that_no_agent_can_read_is_refused(
    cluster: ApiServer, field: str, value: object
) -> None:
    assert f"spec.{field}" in made(cluster, BGPConfiguration, "default", {field: value})


@pytest.mark.parametrize("text", ["0s", "120s", "2m", "1m0s", "1h8m15s"])
def test_a_duration_as_agents_read_it_is_taken(cluster: ApiServer, text: str) -> None:
    settings = OF_ONE_NODE | {"nodeMeshMaxRestartTime": text}

    assert made(cluster, BGPConfiguration, "default", settings) == ""
    assert made(cluster, BGPPeer, "one", PEER | {"maxRestartTime": text}) == ""


def test_a_password_that_stands_in_the_object_is_refused_by_name(cluster: ApiServer) -> None:
    assert "spec.password" in made(cluster, BGPPeer, "one", PEER | {"password": "x"})
    said = made(cluster, BGPConfiguration, "default", {"nodeMeshPassword": "x"})
    assert "spec.nodeMeshPassword" in said


def test_what_was_kept_before_may_be_labelled_and_mended(own_server: ApiServer) -> None:
    """Calico's definitions, and our former ones, keep what these refuse."""
    documents = yaml.safe_load_all((ROOT / "deploy/crds.yaml").read_text(encoding="utf-8"))
    ours = {document["spec"]["names"]["kind"]: document for document in documents}
    rule = {"action": "Reject", "peerType": "eBGP"}
    kept: dict[type[Resource], object] = {
        BGPPeer: PEER | {"keepaliveTime": "3s"},
        BGPFilter: {"exportV4": [rule]},
    }
    for kind, spec in kept.items():
        define(own_server, without_rules(ours[kind.__name__]))
        wait_until(own_server, kind, spec, is_refused=False)
        assert made(own_server, kind, "old", spec) == ""
        define(own_server, ours[kind.__name__])
        wait_until(own_server, kind, spec, is_refused=True)

    mends: dict[type[Resource], object] = {
        BGPPeer: {"keepaliveTime": None},
        BGPFilter: {"exportV4": []},
    }
    for kind, mend in mends.items():
        where = f"{PATHS[kind]}/old"
        labelled = {"metadata": {"labels": {"a": "b"}}}
        assert refusal(own_server, "PATCH", where, labelled, MERGE_PATCH) == ""
        assert refusal(own_server, "PATCH", where, {"spec": mend}, MERGE_PATCH) == ""


def without_rules(document: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a definition that refuses nothing."""
    if isinstance(document, dict):
        named = "x-kubernetes-validations"
        return {key: without_rules(one) for key, one in document.items() if key != named}
    return [without_rules(one) for one in document] if isinstance(document, list) else document


def define(server: ApiServer, document: dict[str, Any]) -> None:
    where = f"{DEFINITIONS}/{document['metadata']['name']}"
    version = server.ask("GET", where)["metadata"]["resourceVersion"]
    metadata = document["metadata"] | {"resourceVersion": version}
    server.ask("PUT", where, document | {"metadata": metadata})


def wait_until(server: ApiServer, kind: type[Resource], spec: object, *, is_refused: bool) -> None:
    """Try until the server knows the definition, which takes it a moment."""
    deadline = time.monotonic() + 30
    while bool(made(server, kind, "trial", spec, is_trial=True)) != is_refused:
        assert time.monotonic() < deadline, f"the server does not know {kind.__name__}'s definition"
        time.sleep(0.05)
