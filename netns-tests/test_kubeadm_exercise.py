"""The exercise with real objects, as docs/kubernetes-exercise.md walks through it."""

from __future__ import annotations

import difflib
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster import eventually
from kubeadm_cluster import (
    NODES,
    SOON_S,
    WITHIN,
    Cluster,
    make_boxes,
    up,
    wait_for_routes,
    wait_for_services,
)
from kubeadm_web import INDEX, curl, greeting, service, source, sources, tunnel_address
from lab_driver import CLONE, fresh, is_possible

pytestmark = [pytest.mark.kubeadm, *is_possible, pytest.mark.long, pytest.mark.timeout(900)]

EXAMPLES = CLONE / "examples" / "kubernetes"
EXERCISE = CLONE / "examples" / "exercise.yaml"
WORKERS = NODES[1:]
UNDERLAY = {"node-0": "10.10.7.20", "node-1": "10.10.24.89", "node-2": "10.10.43.25"}
OUTSIDE = "203.0.113.10"
ROLLED_OUT = ("rollout", "status", WITHIN)
SUFFIX = "default.svc.cluster.local"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The exercise's three nodes, with its web server and a pod on each worker to ask from."""
    for lab in fresh("bpf", "exercise"):
        up(lab)
        cluster = Cluster(lab)
        apply(cluster, "nginx.yaml")
        apply(cluster, "services.yaml")
        cluster.kubectl(*ROLLED_OUT, "deployment/nginx")
        cluster.kubectl(*ROLLED_OUT, "statefulset/stateful")
        make_boxes(cluster, {f"box-{node}": node for node in WORKERS})
        wait_for_routes(cluster)
        wait_for_services(cluster)
        wait_for_names(cluster)
        yield cluster


def apply(cluster: Cluster, name: str) -> None:
    """Have the cluster hold what an example's file says."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    cluster.lab.feed(text, "kubectl", "apply", "--filename=-")


def wait_for_names(cluster: Cluster) -> None:
    """Wait until the name servers know the pods that were the last to come."""
    pods = cluster.items("pods", "--selector=app=stateful")
    wanted = {pod["status"]["podIP"] for pod in pods}

    def found() -> list[set[str]]:
        return [lookup(cluster, f"box-{node}", f"headless.{SUFFIX}") for node in WORKERS]

    eventually(lambda: all(one == wanted for one in found()), within_s=SOON_S, what=found)


def addresses(cluster: Cluster, *words: str) -> dict[str, str]:
    """Pods' addresses by their nodes, where there is one on each."""
    pods = cluster.items("pods", *words)
    return {pod["spec"]["nodeName"]: pod["status"]["podIP"] for pod in pods}


def topology_now(cluster: Cluster) -> dict[str, Any]:
    """The exercise's topology with the pools, pods and tunnels that there are."""
    found: dict[str, Any] = yaml.safe_load(EXERCISE.read_text(encoding="utf-8"))
    pods = [p for p in cluster.items("pods", "-A") if not p["spec"].get("hostNetwork")]
    found["pods"] = [
        {
            "name": f"{pod['metadata']['namespace']}/{pod['metadata']['name']}",
            "node": pod["spec"]["nodeName"],
            "address": pod["status"]["podIP"],
        }
        for pod in pods
    ]
    pools = cluster.items("ippools.crd.projectcalico.org")
    found["resources"] = [
        {
            "apiVersion": "projectcalico.org/v3",
            "kind": "IPPool",
            "metadata": {"name": pool["metadata"]["name"]},
            "spec": pool["spec"],
        }
        for pool in pools
    ]
    # A pod may have been there before its node's tunnel, whose address is then the second one.
    found["resources"] += [
        {
            "apiVersion": "projectcalico.org/v3",
            "kind": "Node",
            "metadata": {"name": node},
            "spec": {"bgp": {"ipv4IPIPTunnelAddr": tunnel_address(cluster, node)}},
        }
        for node in NODES
    ]
    return found


def predicted_routes(cluster: Cluster, node: str, path: Path) -> list[str]:
    path.write_text(yaml.safe_dump(topology_now(cluster)), encoding="utf-8")
    words = [str(CLONE / "bin" / "pycnictl"), "predict", "-f", str(path), "--node", node]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return [line for line in ran.stdout.splitlines() if line and "$ " not in line]


@pytest.mark.parametrize("node", ["node-0", "node-2"])
def test_nodes_route_as_predicted(cluster: Cluster, tmp_path: Path, node: str) -> None:
    path = tmp_path / "topology.yaml"

    def differences() -> list[str]:
        predicted = predicted_routes(cluster, node, path)
        return list(difflib.unified_diff(predicted, routes(cluster, node), n=0, lineterm=""))

    # Sessions may have begun a moment ago, and pods that another test deleted may still be going.
    eventually(lambda: not differences(), within_s=SOON_S, what=differences)


def routes(cluster: Cluster, node: str) -> list[str]:
    said = cluster.lab.execute(node, "ip", "route")
    return [line.strip() for line in said.splitlines()]


def test_a_node_asks_another_nodes_pod_from_its_tunnels_address(cluster: Cluster) -> None:
    pods = addresses(cluster, "--selector=app=nginx")

    assert sorted(pods) == sorted(WORKERS)
    assert greeting(cluster, "node-0", pods["node-2"]).startswith("Welcome to nginx-")
    for node in ("node-0", "node-1"):
        assert source(cluster, node, pods["node-2"]) == tunnel_address(cluster, node)


@pytest.mark.parametrize("name", ["any-cluster-ip", "fixed-cluster-ip"])
def test_every_node_reaches_a_cluster_ip(cluster: Cluster, name: str) -> None:
    spec = service(cluster, name)
    pods = {p["metadata"]["name"] for p in cluster.items("pods", "--selector=app=nginx")}

    assert spec["type"] == "ClusterIP"
    if name == "fixed-cluster-ip":
        assert spec["clusterIP"] == "10.96.10.10"
    for node in NODES:
        script = f"for _ in $(seq 20); do curl -sSf -m 5 {spec['clusterIP']}:8080/{INDEX}; done"
        said = cluster.lab.execute(node, "sh", "-c", script).splitlines()
        assert len(said) == 20
        assert set(said) == {f"Welcome to {pod}!" for pod in pods}, "both pods answer"


def test_pods_keep_their_address_behind_a_cluster_ip(cluster: Cluster) -> None:
    box = next(p for p in cluster.items("pods") if p["metadata"]["name"] == "box-node-1")

    seen = {
        cluster.execute("box-node-1", "wget", "-qO-", "http://any-cluster-ip:8080/cgi-bin/source")
        for _ in range(4)
    }

    assert {line.strip() for line in seen} == {box["status"]["podIP"]}


@pytest.mark.parametrize("name", ["any-node-port", "fixed-node-port"])
def test_everybody_reaches_a_node_port_of_every_node(cluster: Cluster, name: str) -> None:
    spec = service(cluster, name)
    port = spec["ports"][0]["nodePort"]

    assert port in range(30000, 32768)
    if name == "fixed-node-port":
        assert port == 30080
    for node, address in UNDERLAY.items():
        for asking in ("outside", node):
            said = greeting(cluster, asking, f"{address}:{port}")
            assert said.startswith("Welcome to nginx-"), (asking, node)


def test_a_node_port_asks_another_nodes_pod_from_the_nodes_tunnel(cluster: Cluster) -> None:
    """Or the answer would leave by the pod's own node, from an address that nobody asked."""
    seen = sources(cluster, "outside", f"{UNDERLAY['node-0']}:30080")

    assert seen == {tunnel_address(cluster, "node-0")}


def test_a_local_node_port_keeps_the_address_of_who_asks(cluster: Cluster) -> None:
    """The pods of the node that is asked, and no other's."""
    assert sources(cluster, "outside", f"{UNDERLAY['node-2']}:30081") == {OUTSIDE}


@pytest.fixture
def iptables(cluster: Cluster) -> Iterator[None]:
    """Let kube-proxy use iptables, as many clusters still do."""
    set_proxy_mode(cluster, "iptables")
    yield
    set_proxy_mode(cluster, "nftables")


def set_proxy_mode(cluster: Cluster, mode: str) -> None:
    """Have kube-proxy do its work in another way; it takes the former way's rules along."""
    words = ("configmap", "kube-proxy", "--namespace=kube-system")
    said = cluster.kubectl("get", *words, "-o", "json")
    changed = re.sub(r"\bmode: \w+", f"mode: {mode}", json.loads(said)["data"]["config.conf"])
    patch = json.dumps({"data": {"config.conf": changed}})
    cluster.kubectl("patch", *words, "--patch", patch)
    proxy = ("daemonset/kube-proxy", "--namespace=kube-system")
    cluster.kubectl("rollout", "restart", *proxy)
    cluster.kubectl(*ROLLED_OUT, *proxy)
    wait_for_services(cluster, mode=mode)


@pytest.mark.usefixtures("iptables")
def test_services_work_by_iptables_too(cluster: Cluster) -> None:
    test_every_node_reaches_a_cluster_ip(cluster, "fixed-cluster-ip")
    test_pods_keep_their_address_behind_a_cluster_ip(cluster)
    test_everybody_reaches_a_node_port_of_every_node(cluster, "fixed-node-port")
    test_a_node_port_asks_another_nodes_pod_from_the_nodes_tunnel(cluster)
    test_a_local_node_port_keeps_the_address_of_who_asks(cluster)


def lookup(cluster: Cluster, box: str, name: str) -> set[str]:
    """The addresses that a pod finds behind a whole name, asked of CoreDNS's Service."""
    said = cluster.execute(box, "nslookup", name)
    assert "10.96.0.10:53" in said
    lines = said.partition("\n\n")[2].splitlines()
    return {line.removeprefix("Address: ") for line in lines if line.startswith("Address: ")}


@pytest.mark.parametrize("node", WORKERS)
def test_names_lead_to_cluster_ips(cluster: Cluster, node: str) -> None:
    for name in ("any-cluster-ip", "fixed-cluster-ip", "any-node-port"):
        expected = service(cluster, name)["clusterIP"]

        assert lookup(cluster, f"box-{node}", f"{name}.{SUFFIX}") == {expected}


def test_a_headless_service_names_each_of_its_pods(cluster: Cluster) -> None:
    found = cluster.items("pods", "--selector=app=stateful")
    pods = {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in found}

    assert service(cluster, "headless")["clusterIP"] == "None"
    assert lookup(cluster, "box-node-1", f"headless.{SUFFIX}") == set(pods.values())
    for name, address in pods.items():
        assert lookup(cluster, "box-node-1", f"{name}.headless.{SUFFIX}") == {address}
        page = cluster.execute("box-node-2", "wget", "-qO-", f"http://{name}.headless/")
        assert page.strip() == name


def test_an_external_name_is_an_alias(cluster: Cluster) -> None:
    expected = service(cluster, "any-cluster-ip")["clusterIP"]

    assert "clusterIP" not in service(cluster, "external-name")
    assert lookup(cluster, "box-node-1", f"external-name.{SUFFIX}") == {expected}
    page = cluster.execute("box-node-1", "wget", "-qO-", f"http://external-name:8080/{INDEX}")
    assert page.startswith("Welcome to nginx-")


def test_namespaces_have_pools_of_their_own(cluster: Cluster) -> None:
    apply(cluster, "namespaces.yaml")
    for namespace, node in (("blue", "node-1"), ("green", "node-2")):
        # No pod is admitted before a namespace has its account.
        cluster.kubectl("wait", "--for=create", WITHIN, "serviceaccount/default", "-n", namespace)
        web(cluster, namespace, node)
    for namespace in ("blue", "green"):
        cluster.kubectl("wait", "--for=condition=Ready", WITHIN, "pod/web", "-n", namespace)

    blue = addresses(cluster, "-n", "blue")["node-1"]
    green = addresses(cluster, "-n", "green")["node-2"]
    assert (blue.rpartition(".")[0], green.rpartition(".")[0]) == ("172.20.1", "172.20.2")
    asked = ("exec", "-n", "blue", "web", "--", "wget", "-qO-", f"http://{green}/cgi-bin/source")
    # Routes to these pools' first blocks come a moment after their pods.
    eventually(lambda: cluster.kubectl(*asked), within_s=SOON_S)
    eventually(lambda: source(cluster, "node-0", blue), within_s=SOON_S)
    assert cluster.kubectl(*asked).strip() == blue
    assert source(cluster, "node-0", blue) == tunnel_address(cluster, "node-0")
    # Beyond kubeadm's podSubnet: kube-proxy has its node ask for it.
    to_a_service = (*asked[:-1], "http://any-cluster-ip.default:8080/cgi-bin/source")
    seen = {cluster.kubectl(*to_a_service).strip() for _ in range(5)}
    assert seen <= {UNDERLAY["node-1"], tunnel_address(cluster, "node-1")}
    make_boxes(cluster, {"neither": "node-1"})
    assert addresses(cluster, "--field-selector=metadata.name=neither")["node-1"].startswith("192.")


def web(cluster: Cluster, namespace: str, node: str) -> None:
    """Make the web server's pod in a namespace, on a node."""
    documents = list(yaml.safe_load_all((EXAMPLES / "nginx.yaml").read_text(encoding="utf-8")))
    pages, deployment = documents
    spec = deployment["spec"]["template"]["spec"] | {"nodeName": node}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}
    text = yaml.safe_dump_all([pages, pod])
    cluster.lab.feed(text, "kubectl", "apply", "--namespace", namespace, "--filename=-")


def make_coins(cluster: Cluster) -> None:
    """Make DockerCoins as far as it goes without Services."""
    programs = (EXAMPLES / "dockercoins").glob("*.py")
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "dockercoins"},
        "data": {path.name: path.read_text(encoding="utf-8") for path in programs},
    }
    cluster.lab.feed(yaml.safe_dump(config), "kubectl", "apply", "--filename=-")
    apply(cluster, "dockercoins.yaml")
    for name in ("redis", "rng", "hasher", "webui", "worker"):
        cluster.kubectl(*ROLLED_OUT, f"deployment/{name}")


def hashes(cluster: Cluster, address: str) -> int:
    """The counter behind the web page; -1 as long as kube-proxy or redis have none."""
    words = ("curl", "--silent", "--fail", "--max-time", "2", f"http://{address}/json")
    ran = cluster.lab.run("exec", "outside", "--", *words)
    return int(json.loads(ran.stdout)["hashes"]) if ran.returncode == 0 else -1


def wait_for_hashes(cluster: Cluster, address: str, count: int) -> None:
    """Wait until so many more have been made."""
    wanted = max(hashes(cluster, address), 0) + count
    eventually(
        lambda: hashes(cluster, address) >= wanted,
        within_s=SOON_S,
        what=lambda: f"{hashes(cluster, address)} hashes of {wanted} by {address}",
    )


def test_dockercoins_mine_once_there_are_services(cluster: Cluster) -> None:
    """The exercise's last part: without Services, with them, with more workers, with more rngs."""
    make_coins(cluster)
    log = ("logs", "deployment/worker")
    eventually(lambda: "cannot work: " in cluster.kubectl(*log), within_s=SOON_S)

    apply(cluster, "dockercoins-services.yaml")
    port = service(cluster, "webui")["ports"][0]["nodePort"]
    pages = [f"{address}:{port}" for address in UNDERLAY.values()]
    for page in pages:
        wait_for_hashes(cluster, page, 5)
        assert "DockerCoin Miner" in curl(cluster, "outside", page)

    scale_workers(cluster)
    wait_for_hashes(cluster, pages[0], 100)

    replace_rng(cluster)
    wait_for_hashes(cluster, pages[0], 100)
    stop_mining(cluster)


def scale_workers(cluster: Cluster) -> None:
    """Have ten, each with an address of its own."""
    cluster.kubectl("scale", "deployment/worker", "--replicas=10")
    cluster.kubectl(*ROLLED_OUT, "deployment/worker")

    pods = cluster.items("pods", "--selector=app=worker")
    assert len({pod["status"]["podIP"] for pod in pods}) == 10
    assert {pod["spec"]["nodeName"] for pod in pods} == set(WORKERS)


def replace_rng(cluster: Cluster) -> None:
    """Have a DaemonSet's pods where a Deployment's was."""
    apply(cluster, "rng-daemonset.yaml")
    cluster.kubectl(*ROLLED_OUT, "daemonset/rng")
    cluster.kubectl("delete", "deployment/rng", "--cascade=foreground")

    pods = cluster.items("pods", "--selector=app=rng")
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == sorted(WORKERS)


def stop_mining(cluster: Cluster) -> None:
    """Leave the processors to other tests."""
    cluster.kubectl("scale", "deployment/worker", "--replicas=0")
    cluster.kubectl("delete", "pod", "--selector=app=worker", "--grace-period=1")
