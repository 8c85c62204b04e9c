"""A node of Calico's becomes pycni's in place, and Calico's again, beside a real API server."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import pytest

from calico_node import (
    BLOCK,
    CALICO_FILE,
    FAR,
    FAR_BLOCK,
    FAR_POD,
    NETWORK,
    OUTSIDE,
    CalicoNode,
    calico_node,
    host_veth,
    make_definition,
)
from cluster import NotYet, eventually
from plugin_host import ROOT, Pod
from pycni.datastore.kubernetes_objects import PATHS
from pycni.model.resources import IPPool

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Namespace

pytestmark = [pytest.mark.netns, pytest.mark.kubernetes, pytest.mark.long, pytest.mark.timeout(300)]

FELIX = "/apis/crd.projectcalico.org/v1/felixconfigurations"
OWN = "10.10.7.20"
LEARNED = f"{FAR_BLOCK} via {FAR} dev eth0"
# pycnictl, killed by itself when it has told of the first step: the next one has not begun.
DYING = """
import builtins, os, signal, sys
from pycni.ctl.main import main

told, said = print, []

def tell(*words, **options):
    told(*words, **options)
    said.append("".join(words))
    if said[-2:-1] == ["\\ndone:"] and said[-1].startswith("  "):
        os.kill(os.getpid(), signal.SIGKILL)

builtins.print = tell
sys.exit(main())
"""


@pytest.fixture
def node(netns: Callable[[], Namespace], tmp_path: Path) -> Iterator[CalicoNode]:
    with calico_node(tmp_path, netns) as host:
        yield host


def start_agent(node: CalicoNode) -> None:
    node.start_agent()
    node.wait_until_served()


def passes(node: CalicoNode, pod: Pod, address: str) -> bool:
    """Tell that a runtime's CHECK after the result that Calico gave it succeeds in a moment.

    The agent brings the interface's settings about once it sees the record.
    """
    result = {"cniVersion": "1.0.0", "ips": [{"address": f"{address}/32"}]}

    def is_well() -> bool:
        said = node.call("CHECK", pod, {"prevResult": result})
        if said.code:
            raise NotYet(said.output)
        return True

    return eventually(is_well, within_s=60) >= 0


def aliases(node: CalicoNode) -> set[str]:
    return {
        words[1]
        for line in node.namespace.sh("ip link").splitlines()
        if (words := line.split())[0] == "alias"
    }


def records(node: CalicoNode) -> list[str]:
    return [one.name for one in (node.directory / "run" / "endpoints").glob("*.json")]


def routes(node: CalicoNode) -> set[str]:
    return {" ".join(line.split()) for line in node.namespace.sh("ip route").splitlines()}


def test_pods_of_calicos_are_taken_over_without_a_lost_packet(node: CalicoNode) -> None:
    pods = {name: node.calico_pod(name) for name in ("web", "db")}
    node.make_rules("web")
    node.make_unavailable()
    before = routes(node)
    start_agent(node)
    shown = node.migrate("--from", "calico")
    assert shown.status == 0, shown.errors + shown.output
    assert (node.net_dir / CALICO_FILE).exists()
    assert aliases(node) == set()

    with (
        node.stream(node.outside, pods["web"][1]) as into,
        node.stream(node.inside["web"], OUTSIDE) as out,
    ):
        said = node.migrate("--from", "calico", "--yes")

    assert said.status == 0, said.errors + said.output
    assert (into[0].lost, out[0].lost) == (0, 0)
    assert min(into[0].sent, out[0].sent) > 10, "both streams have run meanwhile"
    rules = node.namespace.sh("iptables-nft-save")
    assert "cali" not in rules
    assert "-j KUBE-FORWARD" in rules
    assert not (node.net_dir / CALICO_FILE).exists()
    assert before <= routes(node)
    assert node.conditions() == {"NetworkUnavailable": "False", "Ready": "True"}
    again = node.migrate("--from", "calico", "--yes")
    assert again.status == 0, again.errors
    assert "steps" not in again.output
    for name, (pod, address) in pods.items():
        assert passes(node, pod, address)
        deleted = node.call("DEL", pod)
        assert deleted.status == 0, deleted.output
        assert host_veth(name) not in node.namespace.sh("ip link")
    assert node.held() == []
    assert node.ctl("ipam", "check", "--run-dir", str(node.directory / "run"))


def test_a_new_pod_gets_through_where_calicos_rules_knew_no_other(node: CalicoNode) -> None:
    node.calico_pod("web")
    node.make_rules("web")
    start_agent(node)
    pod = node.make_pod("new")
    assert node.call("ADD", pod).status == 0
    inside = node.inside["new"]
    assert inside.run("ping", "-c1", "-W1", OUTSIDE, check=False).returncode != 0

    said = node.migrate("--from", "calico", "--yes")

    assert said.status == 0, said.errors + said.output
    ping = partial(inside.run, "ping", "-c1", "-W2", OUTSIDE, check=False)
    eventually(lambda: ping().returncode == 0, within_s=60, what=ping)


def test_a_namespace_with_the_same_address_is_not_taken_for_the_pods(node: CalicoNode) -> None:
    other = node.make()
    other.sh("ip link add eth7 type veth peer name far; ip addr add 192.168.39.192/32 dev eth7")
    node.run_in(other, "sleep", "1000")
    pod, address = node.calico_pod("web")
    assert address == "192.168.39.192"
    start_agent(node)

    said = node.migrate("--from", "calico", "--yes")

    assert said.status == 0, said.errors + said.output
    assert passes(node, pod, address)
    (name,) = records(node)
    record = json.loads((node.directory / "run" / "endpoints" / name).read_text())
    assert record["netns"] == f"/proc/{node.living[-1].pid}/ns/net"


def test_a_pod_that_calicos_plugin_is_just_making_is_taken_over(node: CalicoNode) -> None:
    node.calico_pod("web")
    start_agent(node)
    plugin = node.directory / "calico"
    shutil.copy("/bin/sleep", plugin)
    working = node.run_in(node.namespace, str(plugin), "1000")
    words = node.migrate_words("--from", "calico", "--yes")
    line = [sys.executable, "-m", "pycni.ctl", *node.datastore_words, *words]
    migration = node.run_in(node.namespace, *line, stdout=subprocess.DEVNULL, cwd=ROOT)
    eventually(lambda: not (node.net_dir / CALICO_FILE).exists(), within_s=60)

    pod, address = node.calico_pod("late")
    assert migration.poll() is None
    working.kill()
    working.wait()

    assert migration.wait(timeout=120) == 0
    assert len(aliases(node)) == 2
    assert passes(node, pod, address)


def test_what_a_runtime_does_not_list_goes_with_its_handle(node: CalicoNode) -> None:
    (keep, address), _ = (node.calico_pod(name) for name in ("keep", "gone"))
    start_agent(node)
    assert node.migrate("--from", "calico", "--yes").status == 0
    valid = {"cni.dev/valid-attachments": [{"containerID": keep.container, "ifname": "eth0"}]}

    said = node.call("GC", keep, valid)

    assert said.status == 0, said.output
    assert passes(node, keep, address)
    assert node.held() == [f"{NETWORK}.{keep.container}"] * 2
    assert host_veth("gone") not in node.namespace.sh("ip link")


@pytest.mark.parametrize("protocol", ["bird", "80"])
def test_pods_reach_a_node_of_calicos_all_the_while(node: CalicoNode, protocol: str) -> None:
    if shutil.which("bird") is None:
        pytest.fail("BIRD is missing: run  apt-get install bird2")
    _, address = node.calico_pod("web")
    node.start_bird(node.far, own=FAR, peer=OWN, block=FAR_BLOCK)
    own = node.start_bird(node.namespace, own=OWN, peer=FAR, block=BLOCK)
    eventually(lambda: has_route(node.namespace, FAR_BLOCK), within_s=60)
    eventually(lambda: has_route(node.far, BLOCK), within_s=60)

    with (
        node.stream(node.inside["web"], FAR_POD) as out,
        node.stream(node.far, address) as into,
    ):
        own.kill()  # as the kubelet ends calico-node: its grace period is 0
        own.wait()
        if protocol == "80":
            rewrite(node.namespace, protocol)
        start_agent(node)
        said = node.migrate("--from", "calico", "--yes")
        assert said.status == 0, said.errors + said.output
        eventually(lambda: is_up(node), within_s=60)

    assert (out[0].lost, into[0].lost) == (0, 0)
    # A session says what came by it before the kernel has it.
    wanted = {f"{LEARNED} proto bird", f"blackhole {BLOCK} proto bird"}
    now = partial(routes, node)
    eventually(lambda: wanted <= now() and "proto 80" not in str(now()), within_s=60, what=now)
    eventually(lambda: node.problems() == [], within_s=60, what=node.problems)


def has_route(namespace: Namespace, block: str) -> bool:
    if " via " not in namespace.sh(f"ip route show {block}"):
        raise NotYet(namespace.sh("ip route"))
    return True


def rewrite(namespace: Namespace, protocol: str) -> None:
    """Let the routes between nodes be Felix's, as with programClusterRoutes."""
    for line in namespace.sh("ip route show proto bird").splitlines():
        words = " ".join(word for word in line.split() if word not in ("proto", "bird"))
        namespace.sh(f"ip route replace {words} proto {protocol}")


def is_up(node: CalicoNode) -> bool:
    (peer,) = node.status()["peers"]
    if peer["state"] != "up" or not peer["paths"]:
        raise NotYet(str(peer))
    return True


def test_a_migration_that_is_killed_anywhere_is_ended_by_the_next(node: CalicoNode) -> None:
    pods = [node.calico_pod(name) for name in ("web", "db")]
    node.make_rules("web")
    text = (node.net_dir / CALICO_FILE).read_text()
    start_agent(node)
    killed = 0

    with node.stream(node.outside, pods[0][1]) as losses:
        for _ in range(10):
            if not kill_after_a_step(node):
                break
            killed += 1

    assert killed == 4
    assert losses[0].lost == 0
    assert len(records(node)) == len(aliases(node)) == 2
    assert "cali" not in node.namespace.sh("iptables-nft-save")
    assert all(passes(node, pod, address) for pod, address in pods)
    node.stop_agent()
    back = node.migrate("--back", "--yes")
    assert back.status == 0, back.errors + back.output
    assert (node.net_dir / CALICO_FILE).read_text() == text


def kill_after_a_step(node: CalicoNode) -> bool:
    """Let a migration do one step and die; return whether there was one."""
    words = node.migrate_words("--from", "calico", "--yes")
    line = [sys.executable, "-c", DYING, *node.datastore_words, *words]
    process = node.run_in(node.namespace, *line, stdout=subprocess.DEVNULL, cwd=ROOT)
    status = process.wait(timeout=120)
    assert status in (0, -signal.SIGKILL)
    return status != 0


def test_a_node_goes_back_with_the_pods_that_pycni_made(node: CalicoNode) -> None:
    node.calico_pod("web")
    text = (node.net_dir / CALICO_FILE).read_text()
    start_agent(node)
    assert node.migrate("--from", "calico", "--yes").status == 0
    pod = node.make_pod("new")
    added = node.call("ADD", pod)
    assert added.status == 0, added.output
    eventually(lambda: "podIP" in node.notes_of("new") or _not_yet(), within_s=60)
    before = {one for one in routes(node) if "dev cali" in one or "blackhole" in one}
    refused = node.migrate("--back", "--yes")
    assert (refused.status, len(aliases(node))) == (3, 2)
    assert "pycni's agent runs" in refused.output
    node.stop_agent()

    with node.stream(node.outside, added.addresses[0].split("/")[0]) as losses:
        said = node.migrate("--back", "--yes")

    assert said.status == 0, said.errors + said.output
    assert losses[0].lost == 0
    assert (node.net_dir / CALICO_FILE).read_text() == text
    assert (aliases(node), records(node)) == (set(), [])
    assert before <= routes(node)
    assert "pycni" not in node.namespace.sh("nft list tables")
    # By these Calico's plugin finds what its DEL of that pod has to release.
    assert f"{NETWORK}.{pod.container}" in node.held()
    assert node.notes_of("new")["containerID"] == pod.container
    assert "there is nothing to go back from" in node.migrate("--back").errors


def _not_yet() -> bool:
    raise NotYet


def test_what_pycni_can_not_carry_on_is_refused_by_name(node: CalicoNode) -> None:
    node.calico_pod("web")
    start_agent(node)
    make_definition(node, "felixconfigurations", "FelixConfiguration")
    felix = {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "FelixConfiguration",
        "metadata": {"name": "default"},
        "spec": {"bpfEnabled": True, "logSeverityScreen": "Info", "natPortRange": "1:2"},
    }
    eventually(lambda: made(node, FELIX, felix), within_s=60)
    pool = node.ask("GET", f"{PATHS[IPPool]}/default")
    pool["spec"]["vxlanMode"] = "Always"
    node.ask("PUT", f"{PATHS[IPPool]}/default", pool)
    daemon = node.directory / "calico-node"
    shutil.copy("/bin/sleep", daemon)
    process = node.run_in(node.namespace, str(daemon), "1000")

    said = node.migrate("--from", "calico")
    tried = node.migrate("--from", "calico", "--yes")

    assert (said.status, tried.status) == (3, 3)
    for sentence in (
        "IPPool default uses VXLAN (vxlanMode: Always)",
        "FelixConfiguration default asks for the eBPF dataplane (bpfEnabled: true)",
        "pycni does nothing of natPortRange",
        f"calico-node (pid {process.pid}) of Calico's runs here",
    ):
        assert sentence in said.output
    assert (node.net_dir / CALICO_FILE).exists()
    assert records(node) == []
    assert not (node.directory / "state" / "migration.json").exists()


def made(node: CalicoNode, path: str, body: object) -> bool:
    try:
        node.ask("POST", path, body)
    except OSError as exc:
        raise NotYet(str(exc)) from exc
    return True


def test_with_an_agents_rights_it_says_what_it_could_not_look_at(node: CalicoNode) -> None:
    node.calico_pod("web")
    start_agent(node)
    words = node.migrate_words("--from", "calico")
    line = ["--kubeconfig", str(node.api.agents_kubeconfig), *words]
    with node.namespace.entered():
        ran = subprocess.run(
            [sys.executable, "-m", "pycni.ctl", *line],
            capture_output=True, text=True, check=False, cwd=ROOT,
        )  # fmt: skip

    assert ran.returncode == 0, ran.stderr
    assert "not looked at: felixconfigurations (" in ran.stdout
    assert "take over default/web: 192.168.39.192" in ran.stdout
    assert json.loads((node.net_dir / CALICO_FILE).read_text())["name"] == NETWORK
