"""install.sh in a new cluster: first a control-plane node, then a worker with its credentials."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from pycni.datastore.kubernetes_objects import PATHS
from pycni.model.resources import IPPool
from tests.kube.apiserver import ROOT, ApiServer, bare_apiserver

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(300)]

KUBECONFIG = "etc/pycni/kubeconfig"
SUBNETS = {"ClusterConfiguration": "networking: {podSubnet: '10.128.0.0/12,fd00:128::/48'}"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ApiServer]:
    with bare_apiserver(tmp_path / "cluster") as server:
        server.start_controllers("serviceaccount-token-controller")
        config_maps = "/api/v1/namespaces/kube-system/configmaps"
        server.ask("POST", config_maps, {"metadata": {"name": "kubeadm-config"}, "data": SUBNETS})
        yield server


def run(root: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {key: text for key, text in os.environ.items() if key != "PYCNI_VENV"}
    return subprocess.run(
        [str(ROOT / "install.sh"), "--root", str(root), "--datastore", "kubernetes", *words],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip


def install(root: Path, *words: str) -> str:
    ran = run(root, *words)
    assert ran.returncode == 0, ran.stderr
    return ran.stderr


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60  # the server remembers for a while whom it has let in
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def pycnictl(root: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    line = [str(root / "usr/local/bin/pycnictl"), "--kubeconfig", str(root / KUBECONFIG), *words]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def take_back_credentials(cluster: ApiServer, root: Path, stolen: Path) -> None:
    """Delete the token's Secret and install again; check that old ones stay worthless."""
    kubeconfig = root / KUBECONFIG
    stolen.write_text(kubeconfig.read_text())
    cluster.ask("DELETE", "/api/v1/namespaces/kube-system/secrets")
    wait_until(lambda: "denies it" in pycnictl(root, "get", "pools").stderr)

    left = kubeconfig.with_name("kubeconfig.new.7")  # by a run that was killed
    left.touch()

    said = install(root)

    assert not left.exists()
    assert f"install.sh: wrote {kubeconfig}\n" in said
    assert f"install.sh: {root}/etc/pycni/agent.yaml stays as it is\n" in said
    assert pycnictl(root, "get", "pools").returncode == 0
    refused = pycnictl(root, "get", "pools", "--kubeconfig", str(stolen))
    assert "Unauthorized" in refused.stderr


def test_a_control_plane_node_and_a_worker_are_installed_by_a_command_each(
    cluster: ApiServer, tmp_path: Path
) -> None:
    first, worker = tmp_path / "first", tmp_path / "worker"
    admin = first / "etc/kubernetes/admin.conf"
    for directory in (admin.parent, worker):
        directory.mkdir(parents=True)
    admin.write_bytes(cluster.kubeconfig.read_bytes())

    said = install(first, "--node-name", "node-0", "--pool", "10.128.0.0/12")

    kubeconfig = first / KUBECONFIG
    assert kubeconfig.stat().st_mode & 0o777 == 0o600
    assert yaml.safe_load((first / "etc/pycni/agent.yaml").read_text()) == {
        "node": "node-0",
        "datastore": "kubernetes",
        "kubeconfig": str(kubeconfig),
        "pool": "10.128.0.0/12",
        "bgp_user": "pycni-bgp",
    }
    network = json.loads((first / "etc/cni/net.d/10-pycni.conflist").read_text())
    (plugin,) = network["plugins"]
    assert (plugin["datastore_type"], plugin["nodename"]) == ("kubernetes", "node-0")
    assert plugin["ipam"]["assign_ipv6"] == "true"  # as kubeadm was told
    assert "applied CustomResourceDefinition ippools.crd.projectcalico.org" in said
    # The agent's rights: it may read pools, and not change them.
    pool = {"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "one"}}
    cluster.ask("POST", PATHS[IPPool], {**pool, "spec": {"cidr": "10.0.0.0/8"}})
    assert "10.0.0.0/8" in pycnictl(first, "get", "pools").stdout
    assert "the API server denies it" in pycnictl(first, "delete", "pool", "one").stderr

    take_back_credentials(cluster, first, tmp_path / "stolen")
    made = kubeconfig.read_text()

    install(worker, "--kubeconfig", str(kubeconfig), "--node-name", "node-1")

    assert (worker / KUBECONFIG).read_text() == made
    assert (worker / KUBECONFIG).stat().st_mode & 0o777 == 0o600
    assert pycnictl(worker, "get", "nodes").returncode == 0

    for root in (first, worker):
        install(root, "--uninstall")
        assert files(root) <= {"etc/kubernetes/admin.conf"}
        assert not (root / "etc/pycni").exists()

    cluster.kill_apiserver()
    refused = run(first)

    assert refused.returncode == 1
    assert "the API server does not answer" in refused.stderr
    assert "can't be prepared with" in refused.stderr.splitlines()[-1]
    assert files(first) == {"etc/kubernetes/admin.conf"}
