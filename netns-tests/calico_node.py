"""A node as Calico leaves it: its plugin's pods, its objects, rules and routes, BIRD or none.

Made by hand after what Calico 3.31 writes (Kubernetes datastore, calico-ipam, iptables): objects
to the letter, past everything of ours.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from conftest import Namespace, link
from kubernetes_host import KubernetesHost, apiserver_of
from plugin_host import ADDRESS, Pod, Said, install, network_config
from pycni.datastore.kubernetes_objects import PATHS
from pycni.model.resources import Block, BlockAffinity, Handle, Node

if TYPE_CHECKING:
    from pathlib import Path

NETWORK = "k8s-pod-network"
BLOCK = "192.168.39.192/26"
FAR_BLOCK = "192.168.84.128/26"
FAR_POD = "192.168.84.130"
FAR = "10.10.7.21"
CALICO_FILE = "10-calico.conflist"
OUTSIDE = "10.11.0.2"
_FIRST = 192
_TYPE = {"apiVersion": "crd.projectcalico.org/v1"}

CONFLIST = {
    "name": NETWORK,
    "cniVersion": "0.3.1",
    "plugins": [
        {
            "type": "calico",
            "log_level": "info",
            "log_file_path": "/var/log/calico/cni/cni.log",
            "datastore_type": "kubernetes",
            "nodename": "node-0",
            "mtu": 0,
            "ipam": {"type": "calico-ipam"},
            "policy": {"type": "k8s"},
            "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
        },
        {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    ],
}

# What Felix makes of a node with one pod, cut short: it drops what comes from others of its prefix.
RULES = """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-FORWARD - [0:0]
:cali-FORWARD - [0:0]
:cali-INPUT - [0:0]
:cali-from-wl-dispatch - [0:0]
:cali-fw-{veth} - [0:0]
-A INPUT -m comment --comment "cali:Cz_u1IQiXIMmKD4c" -j cali-INPUT
-A FORWARD -m comment --comment "cali:wUHhoiAYhphO9Mso" -j cali-FORWARD
-A FORWARD -m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD
-A FORWARD -m comment --comment "cali:S93hcgKJrXEqnTfs" -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-FORWARD -i cali+ -m comment --comment "cali:8ZoYfO5HKXWbB3pk" -j cali-from-wl-dispatch
-A cali-from-wl-dispatch -i {veth} -m comment --comment "cali:abc" -g cali-fw-{veth}
-A cali-from-wl-dispatch -m comment --comment "cali:zTj6P0TIgYvgz-md" -j DROP
-A cali-fw-{veth} -m comment --comment "cali:def" -j MARK --set-xmark 0x10000/0x10000
-A cali-fw-{veth} -m comment --comment "cali:ghi" -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:cali-POSTROUTING - [0:0]
:cali-nat-outgoing - [0:0]
-A POSTROUTING -m comment --comment "cali:O3lYWMrLQYEMJtB5" -j cali-POSTROUTING
-A cali-POSTROUTING -m comment --comment "cali:Z-c7XtVd2Bq7s_hA" -j cali-nat-outgoing
-A cali-nat-outgoing -s 192.168.0.0/16 ! -d 192.168.0.0/16 -j MASQUERADE
COMMIT
"""

# As confd renders it, but for VRFs: BIRD 2 in place of Calico's own 1.6.
BIRD = """
router id {own};
protocol device {{ scan time 2; }}
protocol direct {{ ipv4; interface -"cali*", "*"; }}
protocol kernel {{ learn; persist; scan time 2; graceful restart; metric 0;
  ipv4 {{ import all; export where source != RTS_DEVICE; }}; }}
protocol static blocks {{ ipv4; route {block} blackhole; }}
template bgp mesh {{ local {own} as 64512; multihop; connect delay time 1; connect retry time 1;
  error wait time 1, 2; graceful restart on;
  ipv4 {{ import all; next hop self; gateway recursive; export where proto = "blocks"; }}; }}
protocol bgp Mesh from mesh {{ neighbor {peer} as 64512; {passive} }}
"""


def host_veth(pod: str) -> str:
    """Return what Calico calls the host's end of a pod of the default namespace."""
    digest = hashlib.sha1(f"default.{pod}".encode(), usedforsecurity=False).hexdigest()
    return f"cali{digest[:11]}"


@dataclass
class CalicoNode(KubernetesHost):
    """The node, what its runtime finds, and the processes that live on it."""

    around: dict[str, Namespace] = field(default_factory=dict)
    inside: dict[str, Namespace] = field(default_factory=dict)
    living: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def far(self) -> Namespace:
        """The neighbour, a node of Calico's."""
        return self.around["far"]

    @property
    def outside(self) -> Namespace:
        """A machine that is no node."""
        return self.around["outside"]

    @property
    def net_dir(self) -> Path:
        """Where runtimes look for network configurations."""
        return self.directory / "etc"

    # --- what Calico writes ---------------------------------------------------------------------

    def make_neighbour(self) -> None:
        """Make the Node object of a node that Calico keeps."""
        annotations = {"projectcalico.org/IPv4Address": f"{FAR}/20"}
        body = {"metadata": {"name": "node-1", "annotations": annotations}}
        self.ask("POST", PATHS[Node], body)

    def make_books(self) -> None:
        """Make the node's block, and the one of its neighbour, a Calico node."""
        self.ask("POST", PATHS[Block], _block(BLOCK, "node-0"))
        self.ask("POST", PATHS[BlockAffinity], _affinity(BLOCK, "node-0"))
        self.ask("POST", PATHS[Block], _block(FAR_BLOCK, "node-1"))
        self.ask("POST", PATHS[BlockAffinity], _affinity(FAR_BLOCK, "node-1"))
        self.net_dir.mkdir()
        (self.net_dir / CALICO_FILE).write_text(json.dumps(CONFLIST, indent=2))
        ours = {"name": NETWORK, "cniVersion": "1.0.0", "plugins": [self.config]}
        (self.net_dir / "10-pycni.conflist").write_text(json.dumps(ours))

    def give(self, pod: str, *, container: str) -> str:
        """Do what calico-ipam does for a pod; return its address."""
        handle_id = f"{NETWORK}.{container}"
        count = {BLOCK: 1}
        spec = {"handleID": handle_id, "block": count, "deleted": False}
        name = {"name": handle_id.lower()}
        handle = _TYPE | {"kind": "IPAMHandle", "metadata": name, "spec": spec}
        self.ask("POST", PATHS[Handle], handle)
        block = self.ask("GET", f"{PATHS[Block]}/192-168-39-192-26")
        spec = block["spec"]
        ordinal = spec["unallocated"].pop(0)
        secondary = {
            "namespace": "default",
            "node": "node-0",
            "pod": pod,
            "timestamp": "2026-01-01 00:00:00.0 +0000 UTC",
        }
        spec["allocations"][ordinal] = len(spec["attributes"])
        spec["attributes"].append({"handle_id": handle_id, "secondary": secondary})
        spec["sequenceNumberForAllocation"][str(ordinal)] = spec["sequenceNumber"]
        spec["sequenceNumber"] += 1
        self.ask("PUT", f"{PATHS[Block]}/192-168-39-192-26", block)
        return f"192.168.39.{_FIRST + ordinal}"

    def calico_pod(self, name: str) -> tuple[Pod, str]:
        """Do what Calico's plugin does for a pod; return it with its address."""
        pod = self.make_pod(name)
        address = self.give(name, container=pod.container)
        veth = host_veth(name)
        inside = self.inside[name]
        inside.sh(f"ip link add eth0 type veth peer name {veth} netns {self.namespace.path}")
        self.namespace.sh(
            f"ip link set {veth} address ee:ee:ee:ee:ee:ee up;"
            f"sysctl -qw net.ipv4.conf.{veth}.route_localnet=1 net.ipv4.conf.{veth}.proxy_arp=1"
            f" net.ipv4.neigh.{veth}.proxy_delay=0 net.ipv4.conf.{veth}.forwarding=1;"
            f"ip route add {address} dev {veth} scope link"
        )
        inside.sh(
            "ip link set eth0 up; ip route add 169.254.1.1 dev eth0 scope link;"
            f"ip route add default via 169.254.1.1 dev eth0; ip addr add {address}/32 dev eth0;"
            "sysctl -qw net.ipv4.ip_forward=0"
        )
        notes = {"podIP": f"{address}/32", "podIPs": f"{address}/32", "containerID": pod.container}
        self.annotate(name, notes)
        return pod, address

    def pod(self, container: str = "c0ffee", **fields: str) -> Pod:
        """Make a pod's namespace, with the process that keeps every pod's."""
        made = self.make()
        self.inside[container.removeprefix("container-")] = made
        self.run_in(made, "sleep", "1000")
        return Pod(made.path, container, **fields)

    def annotate(self, pod: str, notes: dict[str, str]) -> None:
        """Write Calico's annotations of a pod."""
        place = f"/api/v1/namespaces/default/pods/{pod}"
        document = self.ask("GET", place)
        said = document["metadata"].setdefault("annotations", {})
        said.update({f"cni.projectcalico.org/{key}": text for key, text in notes.items()})
        self.ask("PUT", place, document)

    def make_rules(self, pod: str) -> None:
        """Write what Felix writes, with one pod."""
        rules = RULES.replace("{veth}", host_veth(pod))
        with self.namespace.entered():
            subprocess.run(["iptables-nft-restore"], input=rules.encode(), check=True, timeout=30)

    def make_unavailable(self) -> None:
        """Write what calico-node writes of its Node when it ends."""
        node = self.ask("GET", f"{PATHS[Node]}/node-0")
        node["status"]["conditions"] = [
            {"type": "Ready", "status": "True", "reason": "KubeletReady"},
            {"type": "NetworkUnavailable", "status": "True", "reason": "CalicoIsDown"},
        ]
        self.ask("PUT", f"{PATHS[Node]}/node-0/status", node)

    def conditions(self) -> dict[str, str]:
        """Return the conditions of the Node."""
        node = self.ask("GET", f"{PATHS[Node]}/node-0")
        return {one["type"]: one["status"] for one in node["status"]["conditions"]}

    # --- processes ------------------------------------------------------------------------------

    def run_in(
        self,
        where: Namespace,
        *words: str,
        **options: Any,  # noqa: ANN401 - Popen's own
    ) -> subprocess.Popen[bytes]:
        """Start a process in a namespace, to be ended with the node."""
        with where.entered():
            process = subprocess.Popen(words, **options)
        self.living.append(process)
        return process

    def start_bird(
        self, where: Namespace, *, own: str, peer: str, block: str
    ) -> subprocess.Popen[bytes]:
        """Run a Calico node's BIRD; of two, the one with the greater address dials."""
        directory = self.directory / f"bird-{own}"
        directory.mkdir(exist_ok=True)
        passive = "passive on;" if own < peer else ""
        text = BIRD.format(own=own, peer=peer, block=block, passive=passive)
        (directory / "bird.conf").write_text(text)
        words = ["bird", "-f", "-R", "-c", "bird.conf", "-s", "bird.ctl", "-P", "bird.pid"]
        return self.run_in(where, *words, cwd=directory, stderr=subprocess.DEVNULL)

    def migrate(self, *words: str) -> Said:
        """Run pycnictl migrate, however that ends."""
        return self.try_ctl(*self.migrate_words(*words))

    def migrate_words(self, *words: str) -> list[str]:
        """Return the words of pycnictl migrate on this node."""
        config = str(self.directory / "agent.yaml")
        place = ["--node", "node-0", "--config", config, "--net-dir", str(self.net_dir)]
        return ["migrate", *words, *place]

    def end(self) -> None:
        """End all that lives on the node."""
        self.stop_agent()
        for process in self.living:
            process.kill()
            process.wait()


def _block(cidr: str, node: str) -> dict[str, Any]:
    return _TYPE | {
        "kind": "IPAMBlock",
        "metadata": {"name": cidr.translate(str.maketrans("./", "--"))},
        "spec": {
            "cidr": cidr,
            "affinity": f"host:{node}",
            "strictAffinity": False,
            "deleted": False,
            "allocations": [None] * 64,
            "unallocated": list(range(64)),
            "attributes": [],
            "sequenceNumber": 1700000000000000001,
            "sequenceNumberForAllocation": {},
        },
    }


def _affinity(cidr: str, node: str) -> dict[str, Any]:
    digest = base64.b32encode(hashlib.sha3_256(node.encode()).digest()).decode().rstrip("=")
    return _TYPE | {
        "kind": "BlockAffinity",
        "metadata": {
            "name": f"{node}-{cidr.translate(str.maketrans('./', '--'))}",
            "labels": {
                "projectcalico.org/hostname-hash": digest,
                "projectcalico.org/affinity-type": "host",
                "projectcalico.org/ip-version": "4",
            },
        },
        "spec": {
            "node": node,
            "cidr": cidr,
            "state": "confirmed",
            "type": "host",
            "deleted": "false",
        },
    }


def make_definition(node: CalicoNode, plural: str, kind: str) -> None:
    """Make one of Calico's definitions that pycni has none of."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    spec = {
        "group": "crd.projectcalico.org",
        "names": {
            "kind": kind,
            "plural": plural,
            "singular": kind.lower(),
            "listKind": f"{kind}List",
        },
        "scope": "Cluster",
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
        ],
    }
    where = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    name = {"name": f"{plural}.crd.projectcalico.org"}
    node.ask("POST", where, {"metadata": name, "spec": spec})


@contextlib.contextmanager
def calico_node(directory: Path, make: Callable[[], Namespace]) -> Iterator[CalicoNode]:
    """Run an API server on a node of Calico's, beside a neighbour, and end whatever runs there."""
    install(directory / "bin", "c")
    config = network_config(directory, datastore_type="kubernetes") | {"name": NETWORK}
    namespace, far, outside = make(), make(), make()
    link(namespace, "eth0", far, "eth0")
    link(namespace, "eth1", outside, "eth0")
    namespace.sh(
        f"ip addr add {ADDRESS} dev eth0; ip addr add 10.11.0.1/24 dev eth1;"
        "sysctl -qw net.ipv4.ip_forward=1;"
        # Without one the host answers no pod's question for its gateway.
        f"ip route add default via {OUTSIDE}"
    )
    far.sh(f"ip addr add {FAR}/20 dev eth0; ip addr add {FAR_POD}/32 dev lo")
    outside.sh(f"ip addr add {OUTSIDE}/24 dev eth0; ip route add 192.168.0.0/16 via 10.11.0.1")
    node = CalicoNode(namespace, directory, make, config)
    node.around = {"far": far, "outside": outside}
    with apiserver_of(node):
        try:
            node.make_node()
            node.make_neighbour()
            node.make_books()
            yield node
        finally:
            node.end()
