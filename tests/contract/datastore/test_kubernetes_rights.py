"""What an agent may do in a cluster, by deploy/rbac.yaml: what it needs, and nothing else."""

import json
import time
import urllib.error
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml

from pycni.datastore.kubernetes_objects import PATHS
from pycni.model.resources import IPPool, Node
from tests.kube.apiserver import ROOT, ApiServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(60)]

RULES = """
"" events: create
"" namespaces,nodes,pods: get list watch
"" nodes/status,pods/status: patch
"" services: list watch
crd.projectcalico.org bgpconfigurations,bgpfilters,bgppeers,ipreservations: list watch
crd.projectcalico.org blockaffinities,ipamblocks: get list watch create update patch delete
crd.projectcalico.org ipamconfigs: get list watch
crd.projectcalico.org ipamhandles: get list create update patch delete
crd.projectcalico.org ippools: get list watch create
discovery.k8s.io endpointslices: list watch
networking.k8s.io networkpolicies: list watch
"""
KUBEADM = '"" configmaps kubeadm-config: get'
# What Kubernetes lets everybody ask about himself (system:basic-user).
EVERYBODYS = ("authorization.k8s.io", "authentication.k8s.io")
SYSTEM = "/api/v1/namespaces/kube-system"
POD = "/api/v1/namespaces/default/pods/one/status"
NODE = f"{PATHS[Node]}/node-0/status"


@pytest.fixture
def node(cluster: ApiServer) -> Iterator[ApiServer]:
    """Hand out a server with a Node, a pod of it, and a secret."""
    there = {"annotations": {"there.io/a": "b"}}
    containers = [{"name": "c", "image": "i"}]
    pod = {"metadata": {"name": "one", **there}, "spec": {"containers": containers}}
    pods, secrets = "/api/v1/namespaces/default/pods", f"{SYSTEM}/secrets"
    cluster.ask("POST", PATHS[Node], {"metadata": {"name": "node-0", **there}})
    cluster.ask("POST", pods, pod)
    cluster.ask("POST", secrets, {"metadata": {"name": "secret"}})
    yield cluster
    cluster.ask("DELETE", f"{pods}/one", {"gracePeriodSeconds": 0})
    cluster.ask("DELETE", f"{secrets}/secret")


def rules(server: ApiServer, namespace: str) -> set[str]:
    """Return what the agent's account may do in a namespace, as the server itself sees it."""
    review = {"kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    where = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"
    answer = server.ask("POST", where, review, token=server.agents_token())
    assert not answer["status"]["incomplete"]
    return {
        line(rule)
        for rule in answer["status"]["resourceRules"]
        if not set(rule["apiGroups"]) & set(EVERYBODYS)
    }


def line(rule: dict[str, Any]) -> str:
    groups = ",".join(group or '""' for group in rule["apiGroups"])
    names = "".join(f" {name}" for name in rule.get("resourceNames", ()))
    return f"{groups} {','.join(rule['resources'])}{names}: {' '.join(rule['verbs'])}"


def test_an_agent_has_the_rights_that_are_listed_here_and_no_others(cluster: ApiServer) -> None:
    everywhere = set(RULES.strip().splitlines())

    assert rules(cluster, "default") == everywhere
    assert rules(cluster, "kube-system") == {*everywhere, KUBEADM}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"{SYSTEM}/secrets/secret", None),
        ("GET", "/api/v1/secrets", None),
        ("GET", f"{SYSTEM}/configmaps", None),
        ("GET", f"{SYSTEM}/configmaps/other", None),
        ("POST", "/api/v1/namespaces/default/pods/one/exec?command=id", None),
        ("POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "two"}}),
        ("DELETE", "/api/v1/namespaces/default/pods/one", None),
        ("DELETE", f"{PATHS[Node]}/node-0", None),
        ("POST", PATHS[Node], {"metadata": {"name": "node-1"}}),
        ("PUT", f"{PATHS[Node]}/node-0", {"metadata": {"name": "node-0"}}),
        ("DELETE", f"{PATHS[IPPool]}/pool", None),
        ("PUT", f"{PATHS[IPPool]}/pool", {"metadata": {"name": "pool"}}),
        ("POST", f"{SYSTEM}/serviceaccounts/pycni-agent/token", {"spec": {}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_node_needs_is_denied(
    node: ApiServer, method: str, path: str, body: object
) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        node.ask(method, path, body, token=node.agents_token())

    assert caught.value.code == HTTPStatus.FORBIDDEN
    assert "pycni-agent" in json.loads(caught.value.read())["message"]
    caught.value.close()


STATUS = "application/strategic-merge-patch+json"
NOW = "2026-01-01T00:00:00Z"
CONDITION = {"type": "NetworkUnavailable", "status": "False", "reason": "PycniServes"}


def patched(server: ApiServer, path: str, change: dict[str, Any]) -> tuple[int, str]:
    """Patch a status with an agent's rights; return what the server says."""
    try:
        server.ask("PATCH", path, change, token=server.agents_token(), content_type=STATUS)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, str(json.loads(exc.read())["message"])
    return int(HTTPStatus.OK), ""


@pytest.fixture
def guarded(node: ApiServer) -> ApiServer:
    """Hand out a server that knows by now what its agents may not write."""
    count = 0
    while patched(node, POD, {"metadata": {"labels": {"count": str(count)}}})[0] == HTTPStatus.OK:
        count += 1
        time.sleep(0.1)
    return node


@pytest.mark.parametrize("path", [POD, NODE])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"metadata": {"labels": {"app": "shop"}}}, "no other metadata"),
        ({"metadata": {"finalizers": ["pycni.io/stay"]}}, "no other metadata"),
        ({"metadata": {"annotations": {"other.io/a": "b"}}}, "of the network's, and no others"),
        ({"metadata": {"annotations": {"there.io/a": None}}}, "of the network's, and no others"),
        ({"metadata": {"annotations": {"there.io/a": "c"}}}, "of the network's, and no others"),
        ({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, "status"),
        ({"status": {"phase": "Failed"}}, "status"),
    ],
)
def test_an_agent_can_write_nothing_of_nodes_and_pods_but_annotations(
    guarded: ApiServer, path: str, change: dict[str, Any], sentence: str
) -> None:
    code, message = patched(guarded, path, change)

    assert code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert sentence in message


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (POD, {"status": {"podIPs": [{"ip": "10.0.0.1"}], "podIP": "10.0.0.1"}}),
        (NODE, {"status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}),
        (NODE, {"status": {"capacity": {"cpu": "1"}}}),
        (NODE, {"status": {"images": [{"names": ["image"], "sizeBytes": 1}]}}),
    ],
)
def test_an_agent_can_not_say_where_a_node_or_pod_is(
    guarded: ApiServer, path: str, change: dict[str, Any]
) -> None:
    assert patched(guarded, path, change)[0] == HTTPStatus.UNPROCESSABLE_ENTITY


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (POD, {"metadata": {"annotations": {"cni.projectcalico.org/podIP": "10.0.0.1"}}}),
        (NODE, {"metadata": {"annotations": {"projectcalico.org/IPv4Address": "10.0.0.1/24"}}}),
        (NODE, {"metadata": {"annotations": {"pycni.io/check": "{}"}}}),
        (NODE, {"status": {"conditions": [CONDITION]}}),
    ],
)
def test_an_agent_can_write_what_it_has_to(
    guarded: ApiServer, path: str, change: dict[str, Any]
) -> None:
    assert patched(guarded, path, change) == (HTTPStatus.OK, "")


SERVICES = "/api/v1/namespaces/default/services"
OURS = f"{SERVICES}/shop/status"
SHOP = {"type": "LoadBalancer", "ports": [{"port": 80}]}
INGRESS = {"status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7"}]}}}


@pytest.fixture
def balanced(cluster: ApiServer) -> Iterator[ApiServer]:
    """Hand out a server whose agents give Services addresses, and that holds them to it by now."""
    cluster.apply("load-balancer.yaml")
    classes = {"of-calico": "calico", "of-another": "example.com/cloud"}
    services = {name: SHOP | {"loadBalancerClass": its} for name, its in classes.items()}
    services["shop"] = SHOP
    for name, spec in services.items():
        cluster.ask("POST", SERVICES, {"metadata": {"name": name}, "spec": spec})
    count, code = 0, 0
    while code != HTTPStatus.UNPROCESSABLE_ENTITY:
        # First it knows of no right, then of no limit.
        code, _ = patched(cluster, OURS, {"metadata": {"labels": {"count": str(count)}}})
        count += 1
        time.sleep(0.1)
    yield cluster
    for name in services:
        cluster.ask("DELETE", f"{SERVICES}/{name}")
    cluster.remove("load-balancer.yaml")


@pytest.mark.parametrize("name", ["shop", "of-calico"])
def test_an_agent_can_write_which_addresses_a_service_has(balanced: ApiServer, name: str) -> None:
    path = f"{SERVICES}/{name}/status"

    assert patched(balanced, path, INGRESS) == (HTTPStatus.OK, "")
    assert patched(balanced, path, {"status": {"loadBalancer": None}}) == (HTTPStatus.OK, "")


def test_an_agent_can_not_write_those_of_another_load_balancers_services(
    balanced: ApiServer,
) -> None:
    code, message = patched(balanced, f"{SERVICES}/of-another/status", INGRESS)

    assert code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "of type LoadBalancer without a class" in message


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"metadata": {"labels": {"app": "shop"}}}, "no other metadata"),
        ({"metadata": {"annotations": {"projectcalico.org/a": "b"}}}, "and no others"),
        (
            {"status": {"conditions": [CONDITION | {"message": "", "lastTransitionTime": NOW}]}},
            "status",
        ),
    ],
)
def test_an_agent_can_write_nothing_else_of_services(
    balanced: ApiServer, change: dict[str, Any], sentence: str
) -> None:
    code, message = patched(balanced, OURS, INGRESS | change)

    assert code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert sentence in message


def test_a_service_of_another_type_has_lost_its_addresses(balanced: ApiServer) -> None:
    """So that no agent has to write the status of one that is not its own any more."""
    assert patched(balanced, OURS, INGRESS)[0] == HTTPStatus.OK

    change = {"spec": {"type": "ClusterIP"}}
    after = balanced.ask("PATCH", f"{SERVICES}/shop", change, content_type=STATUS)

    assert after["status"] == {"loadBalancer": {}}


def test_kustomization_names_what_lies_beside_it() -> None:
    directory = ROOT / "deploy"
    named = yaml.safe_load((directory / "kustomization.yaml").read_text())["resources"]

    assert all(Path(directory / name).is_file() for name in named)
    assert {"admission.yaml", "crds.yaml", "rbac.yaml"} <= set(named)
