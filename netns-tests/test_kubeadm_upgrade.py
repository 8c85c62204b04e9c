"""A real cluster whose nodes get another version, and then lose pycni, while pods talk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest
import yaml

import pycni
from cluster import eventually
from daemon_host import CLEAN, MANIFEST, pod_spec
from kubeadm_cluster import LATER_S, NODES, SOON_S, WITHIN, Cluster, make_boxes, up
from kubeadm_load import Stream, agents, lost_of, start_streams
from lab_driver import fresh, is_possible
from pycni.lab.kubeadm.blueprint import for_workers
from pycni.lab.kubeadm.spec import CLONE, KIT

pytestmark = [pytest.mark.kubeadm, *is_possible, pytest.mark.long, pytest.mark.timeout(900)]

IMAGE = pod_spec()["containers"][0]["image"]
NEXT = f"{IMAGE.partition(':')[0]}:next"
KUBE_SYSTEM = ("--namespace", "kube-system")
DAEMONSET = ("--namespace", "kube-system", "rollout", "status", "daemonset/pycni-node")
INSTALL = ("env", "PIP_NO_INDEX=1", f"PIP_FIND_LINKS={KIT / 'wheels'}", str(CLONE / "install.sh"))
# What a release before this one has left: another version, and a module that is no more.
MAKE_OLDER = """
cd /opt/pycni/venv/lib/python3*/site-packages/pycni
sed -i 's/^__version__ = .*/__version__ = "0.0.9"/' __init__.py
touch former.py
systemctl restart pycni-agent
"""
# As docs/kubernetes.md and docs/daemonset.md have it; the machine's own files lie below a mount.
CLEAR_INSTALLED = "rm -r /run/pycni /var/lib/pycni/*; userdel pycni-bgp"
CLEAR_HOST = """
rm -r /opt/cni/bin/pycni /opt/cni/bin/pycni-ipam /run/pycni /var/lib/pycni/*
"""
# Directories that are mounts stay, empty: those of the lab's machines. Images are the runtime's.
LEFT = r"""
pgrep -a -f '[p]ython.*(pycni|exabgp)' | grep -v lab.kubeadm.boot || true
find /etc /opt /usr/local /run /var/lib -name '*pycni*' ! -empty \
    ! -path '/run/units/*' ! -path '/var/lib/containerd/*' ! -path '/var/lib/kubelet/*'
getent passwd pycni-bgp || true
ip -o link show | grep ': cali' || true
ip route show proto bird
ip -o -4 addr show tunl0
nft list tables | grep pycni || true
"""
HAD = "ip route show proto bird; nft list tables"


@dataclass(frozen=True, slots=True)
class Removed:
    """A cluster without pycni, and what the streams lost before their pods were deleted.

    `had` is what was in the nodes' kernels before, `told` what install.sh said.
    """

    cluster: Cluster
    lost: dict[str, list[int]]
    had: dict[str, str]
    told: str


@dataclass(frozen=True, slots=True)
class Upgraded:
    """A cluster whose agents are all new, and the streams that ran meanwhile."""

    cluster: Cluster
    streams: list[Stream]
    before: dict[str, str]


@pytest.fixture(scope="module")
def upgraded() -> Iterator[Upgraded]:
    """The exercise's three nodes, each upgraded as its documents say."""
    for lab in fresh("bpf", "kubeadm-next"):
        up(lab)
        cluster = Cluster(lab)
        lab.execute("node-0", "sh", "-euc", MAKE_OLDER)
        assert "0.0.9" in lab.execute("node-0", "pycnictl", "--version")
        streams = start_streams(cluster)
        before = agents(cluster)
        for node in NODES[1:]:
            lab.execute(node, "ctr", "--namespace=k8s.io", "images", "tag", IMAGE, NEXT)

        where = ("--namespace=kube-system", "set", "image", "daemonset/pycni-node")
        cluster.kubectl(*where, f"*={NEXT}")
        cluster.kubectl(*DAEMONSET, WITHIN)
        install(cluster, "--datastore", "kubernetes")
        yield Upgraded(cluster, streams, before)


def install(cluster: Cluster, *words: str) -> str:
    ran = cluster.lab.run("exec", "node-0", "--", *INSTALL, *words, timeout=LATER_S)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.fixture(scope="module")
def lost(upgraded: Upgraded) -> dict[str, list[int]]:
    """What the streams lost by the upgrade; asked before anything is removed."""
    return lost_of(upgraded.streams)


def test_an_upgrade_costs_no_packet(lost: dict[str, list[int]]) -> None:
    assert lost == {}


@pytest.fixture(scope="module")
def said(upgraded: Upgraded) -> dict[str, object]:
    """What the nodes say of the version that they run."""
    cluster = upgraded.cluster
    module = "find /opt/pycni -name former.py"
    eventually(lambda: all(agents(cluster).values()), within_s=SOON_S, what=lambda: agents(cluster))
    pods = cluster.items("pods", "-n", "kube-system", "--selector=app.kubernetes.io/name=pycni")
    found: dict[str, object] = {
        "images": {pod["spec"]["containers"][0]["image"] for pod in pods},
        "version": cluster.lab.execute("node-0", "pycnictl", "--version"),
        "former": cluster.lab.execute("node-0", "sh", "-c", module),
        "agents": agents(cluster),
    }
    make_boxes(cluster, {f"later-{node}": node for node in NODES})
    return found


def test_after_an_upgrade_all_nodes_run_the_new_version(
    upgraded: Upgraded, said: dict[str, object]
) -> None:
    assert said["images"] == {NEXT}
    assert pycni.__version__ in str(said["version"])
    assert said["former"] == ""
    now = said["agents"]
    assert isinstance(now, dict)
    assert all(now[node] and now[node] != upgraded.before[node] for node in NODES)


@pytest.fixture(scope="module")
def removed(upgraded: Upgraded, lost: dict[str, list[int]], said: dict[str, object]) -> Removed:
    """The cluster after its agents were removed while pods talk, then the pods, then all else."""
    del lost, said  # asked before
    cluster = upgraded.cluster
    cluster.kubectl(*KUBE_SYSTEM, "delete", "daemonset", "pycni-node")
    pods = "--namespace=kube-system", "--selector=app.kubernetes.io/name=pycni"
    cluster.kubectl("wait", "--for=delete", "pod", *pods, WITHIN)
    still_lost = lost_of(upgraded.streams)
    cluster.kubectl("-n", "kube-system", "scale", "deployment/coredns", "--replicas=0")
    cluster.kubectl("delete", "pod", "--all", WITHIN)
    dns = "--namespace=kube-system", "--selector=k8s-app=kube-dns"
    cluster.kubectl("wait", "--for=delete", "pod", *dns, WITHIN)
    had = {node: cluster.lab.execute(node, "sh", "-c", HAD) for node in NODES}
    told = install(cluster, "--uninstall")
    clean_others(cluster)
    cluster.lab.execute("node-0", "sh", "-euc", CLEAR_INSTALLED)
    for node in NODES[1:]:
        cluster.lab.execute(node, "sh", "-euc", CLEAR_HOST)
    secret = ("--selector=app.kubernetes.io/name=pycni-agent-token",)
    cluster.kubectl("--namespace=kube-system", "delete", "secret", *secret)
    cluster.kubectl("delete", "--kustomize", str(CLONE / "deploy"))
    return Removed(cluster, still_lost, had, told)


def clean_others(cluster: Cluster) -> None:
    """Remove what the DaemonSet's agents have left, and the set's other objects."""
    text = yaml.safe_dump_all(for_workers(CLEAN.read_text(encoding="utf-8")))
    cluster.lab.feed(text, "kubectl", "apply", "--filename=-")
    rollout = (*KUBE_SYSTEM, "rollout", "status", "daemonset/pycni-clean")
    cluster.kubectl(*rollout, WITHIN)
    for manifest in (text, MANIFEST.read_text(encoding="utf-8")):
        words = ("delete", "--wait", "--ignore-not-found", "--filename=-")
        cluster.lab.feed(manifest, "kubectl", *words)


@pytest.mark.parametrize("node", NODES)
def test_nothing_is_left_on_a_node_after_removal(removed: Removed, node: str) -> None:
    left = partial(removed.cluster.lab.execute, node, "sh", "-c", LEFT)
    # A container's own files go a little after its pod's object.
    eventually(lambda: left() == "", within_s=SOON_S, what=left)


@pytest.mark.parametrize("node", NODES)
def test_there_was_something_to_remove(removed: Removed, node: str) -> None:
    assert "inet pycni" in removed.had[node]


def test_an_uninstalled_node_has_left_first(removed: Removed) -> None:
    said = removed.told
    left, cleaned = said.index("node node-0 has left"), said.index("removed table inet pycni")
    assert left < said.index("stop pycni-agent") < cleaned, said


def test_pods_talk_on_while_the_daemonset_goes(removed: Removed) -> None:
    assert removed.lost == {}


def test_nothing_is_left_in_the_cluster_after_removal(removed: Removed) -> None:
    kinds = "crd,clusterrole,clusterrolebinding,role,rolebinding,serviceaccount,secret,configmap,ds"
    kinds += ",validatingadmissionpolicy,validatingadmissionpolicybinding"
    names = removed.cluster.kubectl("get", kinds, "--all-namespaces", "--output=name").split()

    assert [name for name in names if "pycni" in name or "projectcalico" in name] == []
