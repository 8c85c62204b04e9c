"""The DaemonSet's containers on a host without Python, over a real API server."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import pycni
from cluster import NotYet, eventually
from daemon_host import (
    CLEAN,
    MANIFEST,
    DaemonHost,
    daemon_host,
    documents,
    is_ready,
    pod_spec,
)
from pycni.datastore.kubernetes_objects import PATHS
from pycni.model.resources import Node

if TYPE_CHECKING:
    from conftest import Namespace
    from plugin_host import Pod

pytestmark = [pytest.mark.netns, pytest.mark.kubernetes, pytest.mark.long, pytest.mark.timeout(300)]

# Of Linux's capabilities by their numbers, those that are needed.
NAMES = {
    0: "CHOWN",
    5: "KILL",
    6: "SETGID",
    7: "SETUID",
    8: "SETPCAP",
    10: "NET_BIND_SERVICE",
    12: "NET_ADMIN",
    21: "SYS_ADMIN",
}
AGENTS = set(NAMES.values())
EXABGPS = {"NET_BIND_SERVICE"}
HELPER = "/usr/bin/python3 -IES /run/pycni/exabgp/bridge.py /run/pycni/exabgp/helper.sock"


@pytest.fixture
def bare(netns: Callable[[], Namespace], tmp_path: Path) -> Iterator[DaemonHost]:
    with daemon_host(tmp_path, netns) as made:
        made.run_to_end("install-plugin")
        yield made


@pytest.fixture
def host(bare: DaemonHost) -> DaemonHost:
    make_node(bare)
    bare.start_agent()
    eventually(lambda: bare.conflist() is not None, within_s=60, what=bare.agent_log)
    bare.adopt_network()
    return bare


def make_node(host: DaemonHost) -> None:
    """Make the Node object, with the address that the agent can't know."""
    host.make_node()
    node = host.ask("GET", f"{PATHS[Node]}/node-0")
    node["metadata"]["annotations"] = {"projectcalico.org/IPv4Address": "10.10.7.20/20"}
    host.ask("PUT", f"{PATHS[Node]}/node-0", node)


def status_of(pid: int) -> dict[str, str]:
    """Return what the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def zombies(host: DaemonHost) -> list[str]:
    """Return the agent's processes that have ended and that nobody has buried."""
    found = []
    for name, pid in host.pids().items():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # gone, and that is well
            if status_of(pid)["State"].startswith("Z"):
                found.append(name)
    return found


def capabilities(pid: int) -> dict[str, set[str]]:
    """Return a process's capability sets by the kernel's names of them."""
    return {
        name: {NAMES.get(bit, str(bit)) for bit in range(64) if int(value, 16) >> bit & 1}
        for name, value in status_of(pid).items()
        if name.startswith("Cap")
    }


def all_run(host: DaemonHost, seen: dict[str, int] | None = None) -> bool:
    """Tell whether the container has all of its processes, and no other; note which in `seen`."""
    found = host.pids()
    if set(found) != {"tini", "agent", "cni", "exabgp", HELPER}:
        raise NotYet(str(found))
    if seen is not None:
        seen.update(found)
    return True


def test_every_process_may_do_what_it_has_to_and_no_more(host: DaemonHost) -> None:
    pids: dict[str, int] = {}
    eventually(lambda: all_run(host, pids), within_s=60, what=host.agent_log)
    own = {"CapPrm": AGENTS, "CapEff": AGENTS, "CapBnd": AGENTS, "CapInh": set(), "CapAmb": set()}
    exabgps = dict.fromkeys(own, EXABGPS)

    assert {name: capabilities(pid) for name, pid in pids.items()} == {
        **dict.fromkeys(("tini", "agent", "cni"), own),
        **dict.fromkeys(("exabgp", HELPER), exabgps),
    }
    assert {status_of(pid)["NoNewPrivs"] for pid in pids.values()} == {"1"}
    users = {name: status_of(pid)["Uid"].split()[1] for name, pid in pids.items()}
    assert users == {**dict.fromkeys(pids, "0"), "exabgp": "64179", HELPER: "64179"}


def test_a_pod_comes_and_goes_on_a_host_without_python(host: DaemonHost) -> None:
    pod = host.pod()

    assert host.files("opt/cni/bin") == ["pycni", "pycni-ipam"]
    assert os.readlink(host.root / "opt/cni/bin/pycni-ipam") == "pycni"  # noqa: PTH115 - as it is
    added = host.call("ADD", pod)
    assert added.status == 0, added.output + added.errors
    checked = host.call("CHECK", pod, {"prevResult": added.document})
    assert (checked.status, checked.output) == (0, "")
    (address,) = (one.split("/")[0] for one in added.addresses)
    host.namespace.run("ping", "-c", "1", "-W", "10", address)
    assert f"version         {pycni.__version__}" in host.inside("pycnictl", "status")

    assert host.call("STATUS", pod).status == 0
    assert host.call("DEL", pod).status == 0

    assert host.settled()
    assert host.call("GC", pod, {"cni.dev/valid-attachments": []}).status == 0


def test_the_network_comes_once_the_agent_serves_and_stays_when_it_goes(bare: DaemonHost) -> None:
    bare.start_agent()
    sentence = "there is no Node node-0 in the cluster"
    eventually(lambda: sentence in bare.agent_log(), within_s=60, what=bare.agent_log)
    before = bare.conflist()
    make_node(bare)
    eventually(lambda: bare.conflist() is not None, within_s=60, what=bare.agent_log)
    bare.stop_agent()

    assert before is None
    written = bare.conflist()
    assert written is not None
    assert written["plugins"][0]["nodename"] == "node-0"
    assert bare.files("etc/cni/net.d") == ["10-pycni.conflist"]


def test_an_upgrade_loses_no_packet(host: DaemonHost) -> None:
    pod = host.pod()
    added = host.call("ADD", pod)
    eventually(lambda: "blackhole" in host.namespace.sh("ip route"), within_s=60)
    routes = host.namespace.sh("ip route")

    address = added.addresses[0].split("/")[0]
    with host.stream(host.namespace, address, every_s=0.02) as losses:
        host.stop_agent()
        between = host.namespace.sh("ip route")
        host.run_to_end("install-plugin")
        host.start_agent()
        eventually(lambda: is_ready(host), within_s=60, what=host.agent_log)

    assert (between, host.namespace.sh("ip route")) == (routes, routes)
    assert losses[0].lost == 0
    assert losses[0].sent > 10
    assert host.call("CHECK", pod, {"prevResult": added.document}).status == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_pods_come_and_go_while_agents_follow_each_other(host: DaemonHost, number: int) -> None:
    is_over = threading.Event()
    done: list[str] = []

    def deploy() -> None:
        while not is_over.is_set():
            pod = host.pod(f"c{len(done)}")
            come_and_go(host, pod)
            done.append(pod.container)

    with ThreadPoolExecutor(1) as runtime:
        deploying = runtime.submit(deploy)
        try:
            for _ in range(4):
                host.stop_agent(number)
                host.start_agent()
                grown = partial(grew_beyond, done, len(done) + 1)
                eventually(grown, within_s=60, what=host.agent_log)
        finally:
            is_over.set()

    deploying.result()
    eventually(host.settled, within_s=60, what=host.agent_log)
    eventually(lambda: "cali" not in host.namespace.sh("ip link; ip route"), within_s=60)
    # What was given back is forgotten after that.
    eventually(lambda: kept(host) == (0, 0), within_s=60, what=lambda: kept(host))


def kept(host: DaemonHost) -> tuple[int, int]:
    """Return how many endpoints' records there are, and how many releases are owed."""
    return len(host.files("run/pycni/endpoints")), len(host.files("var/lib/pycni/journal"))


def grew_beyond(done: Sequence[str], count: int) -> bool:
    return len(done) > count


def come_and_go(host: DaemonHost, pod: Pod) -> None:
    """Add and delete a pod as a kubelet does: again and again while the plugin says so."""

    def is_done(verb: str) -> bool:
        said = host.call(verb, pod)
        if said.code == 11:
            raise NotYet(said.output)
        assert said.status == 0, said.output
        return True

    eventually(lambda: is_done("ADD"), within_s=60, what=host.agent_log)
    eventually(lambda: is_done("DEL"), within_s=60, what=host.agent_log)


def test_a_killed_agent_leaves_pods_alone_and_does_later_what_it_missed(host: DaemonHost) -> None:
    stays, goes, comes = host.pod("stays"), host.pod("goes"), host.pod("comes")
    added = {pod.container: host.call("ADD", pod) for pod in (stays, goes)}
    address = added["stays"].addresses[0].split("/")[0]
    eventually(lambda: "blackhole" in host.namespace.sh("ip route"), within_s=60)
    routes = host.namespace.sh("ip route")
    host.stop_agent(signal.SIGKILL)

    refused = host.call("ADD", comes)
    checked = host.call("CHECK", stays, {"prevResult": added["stays"].document})
    asked = host.call("STATUS", stays)
    deleted = [host.call("DEL", goes) for _ in range(2)]

    assert [refused.code, checked.code, asked.code] == [11, 11, 0], refused.output
    assert "no agent answers in /run/pycni" in refused.document["msg"]
    assert [(one.status, one.output) for one in deleted] == [(0, "")] * 2
    assert host.namespace.sh("ip route") == routes
    host.namespace.run("ping", "-c", "1", "-W", "10", address)
    assert len(host.files("var/lib/pycni/journal")) == 1
    host.start_agent()
    eventually(lambda: host.settled_but("stays"), within_s=60, what=host.agent_log)

    # Not even its namespace had to go for that.
    eventually(lambda: host.namespace.sh("ip -o link").count("cali") == 1, within_s=60)
    eventually(lambda: kept(host) == (1, 0), within_s=60, what=lambda: kept(host))
    host.namespace.run("ping", "-c", "1", "-W", "10", address)
    assert host.call("ADD", comes).status == 0


def test_a_deletion_that_is_owed_spares_the_next_pod_of_that_name(host: DaemonHost) -> None:
    first = host.make_pod("web")
    second = replace(first, container="second", netns=host.pod().netns)
    assert host.call("ADD", first).status == 0
    # As if no agent had been there: nobody listens in that directory.
    assert host.call("DEL", first, {"run_dir": "/run/elsewhere"}).status == 0

    added = host.call("ADD", second)

    assert added.status == 0, added.output
    eventually(lambda: host.settled_but("second"), within_s=60, what=host.agent_log)
    assert host.call("CHECK", second, {"prevResult": added.document}).status == 0
    host.namespace.run("ping", "-c", "1", "-W", "10", added.addresses[0].split("/")[0])


def test_the_first_process_buries_what_exabgp_leaves_behind(host: DaemonHost) -> None:
    pids: dict[str, int] = {}
    eventually(lambda: all_run(host, pids), within_s=60, what=host.agent_log)
    before = pids["exabgp"]

    os.kill(before, signal.SIGKILL)

    eventually(lambda: host.pids().get("exabgp", before) != before, within_s=60)
    eventually(lambda: all_run(host), within_s=60)
    eventually(lambda: not zombies(host), within_s=60, what=lambda: zombies(host))


def of_ours(host: DaemonHost) -> str:
    """Return what an agent leaves in a kernel."""
    words = "ip route show proto bird; ip -o -4 addr show tunl0; nft list tables"
    return host.namespace.run("sh", "-c", words, check=False).stdout


def test_a_node_that_left_and_was_cleaned_has_nothing_of_ours(host: DaemonHost) -> None:
    pod = host.pod()
    assert host.call("ADD", pod).status == 0
    eventually(lambda: "blackhole" in of_ours(host), within_s=60, what=lambda: of_ours(host))
    with pytest.raises(AssertionError, match="can't leave while pods are here"):
        host.inside("pycnictl", "node", "leave")
    assert host.call("DEL", pod).status == 0

    assert "node node-0 has left" in host.inside("pycnictl", "node", "leave")
    assert host.call("ADD", host.pod("late")).code == 11
    host.stop_agent()
    said = host.run_to_end("clean", manifest=CLEAN)

    annotations = host.ask("GET", f"{PATHS[Node]}/node-0")["metadata"].get("annotations", {})
    assert [name for name in annotations if "calico" in name or "pycni" in name] == []
    kinds = ("ipamblocks", "blockaffinities", "ipamhandles")
    listed = {kind: host.ask("GET", f"/apis/crd.projectcalico.org/v1/{kind}") for kind in kinds}
    assert {kind: found["items"] for kind, found in listed.items()} == {key: [] for key in kinds}
    assert "removed table inet pycni" in said
    assert [word for word in ("bird", "inet 192.168", "pycni") if word in of_ours(host)] == []
    assert host.conflist() is None


def test_a_host_that_did_not_leave_is_cleaned_with_its_pods_named(host: DaemonHost) -> None:
    assert host.call("ADD", host.pod()).status == 0
    # An ADD doesn't wait for the agent, which hears of the block a little later.
    eventually(lambda: "blackhole 192.168." in of_ours(host), within_s=60)
    host.stop_agent(9)

    said = host.run_to_end("clean", manifest=CLEAN)

    assert "removed route blackhole 192.168." in said
    assert "note: pods are still here" in said
    assert "bird" not in of_ours(host)


def test_the_cleaning_pods_have_of_the_host_what_the_agents_have() -> None:
    agents, cleaners = pod_spec(), pod_spec(CLEAN)
    (agent,), (cleaner,) = agents["containers"], cleaners["initContainers"]

    assert [one for one in cleaners["volumes"] if one not in agents["volumes"]] == []
    assert [one for one in cleaner["volumeMounts"] if one not in agent["volumeMounts"]] == []
    assert cleaner["image"] == agent["image"]
    added = cleaner["securityContext"]["capabilities"]["add"]
    assert set(added) <= set(agent["securityContext"]["capabilities"]["add"])


def test_an_api_server_takes_the_manifest_to_the_letter(bare: DaemonHost) -> None:
    places = {"ConfigMap": "api/v1", "DaemonSet": "apis/apps/v1"}

    for kind, document in (*documents().items(), *documents(CLEAN).items()):
        place = f"/{places[kind]}/namespaces/kube-system/{kind.lower()}s"
        taken = bare.ask("POST", f"{place}?fieldValidation=Strict&dryRun=All", document)
        assert taken["metadata"]["name"] == document["metadata"]["name"]


def test_nothing_in_the_manifest_is_privileged() -> None:
    spec = pod_spec()

    for container in (*spec["initContainers"], *spec["containers"]):
        assert "privileged" not in container["securityContext"]
        assert container["image"] == f"localhost/pycni:{pycni.__version__}"
    assert set(spec["containers"][0]["securityContext"]["capabilities"]["add"]) == AGENTS
    made = yaml.safe_load_all((MANIFEST.parent / "rbac.yaml").read_text(encoding="utf-8"))
    (account,) = (one["metadata"]["name"] for one in made if one["kind"] == "ServiceAccount")
    assert spec["serviceAccountName"] == account
