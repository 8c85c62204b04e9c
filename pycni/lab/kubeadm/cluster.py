"""The cluster that kubeadm makes: its machines, and the steps that bring it about."""

import asyncio
import base64
import json
import secrets
from collections.abc import Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from pycni.ctl.usage import WrongUsage
from pycni.lab import bird, bpf, commands, underlay
from pycni.lab.kubeadm import blueprint, config, installing
from pycni.lab.kubeadm.config import Settings
from pycni.lab.kubeadm.kit import AGENT, REPOSITORY, Kit
from pycni.lab.kubeadm.machine import Machine
from pycni.lab.kubeadm.spec import CLONE, MachineSpec
from pycni.lab.layout import ROUTER, Layout, Plan, netns_path
from pycni.topology.model import UNDERLAY, Topology, TopologyNode, TopologyPod

ADMIN = "/etc/kubernetes/admin.conf"
AUTHORITY = "/etc/kubernetes/pki/ca.crt"
CONFIG = "/etc/kubernetes/kubeadm.yaml"
DISCOVERY = "/etc/kubernetes/discovery.conf"
# A kubelet that has been cut off is waited for in vain.
EXECUTE_S = 10.0
CONTROL_PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
EVERYWHERE = ("pause", "kube-proxy", "coredns", "toolbox")
WORKERS = ("pause", AGENT, "kube-proxy", "coredns", "toolbox", "redis")


class KubernetesCluster:
    """A cluster of machines; the topology's first node has the control plane."""

    def __init__(self, plan: Plan, *, layout: Layout, topology: Topology) -> None:
        self.plan = plan
        self.layout = layout
        self.topology = topology
        self.kit = Kit(Path(plan.kit))
        self.machines = {node.name: Machine(self._spec(node)) for node in topology.nodes}
        self._settings = Settings(
            version=self.kit.version(),
            repository=REPOSITORY,
            pods=str(blueprint.pod_subnet(topology)),
            server=str(topology.nodes[0].address.ip),
            token=f"{secrets.token_hex(3)}.{secrets.token_hex(8)}",
        )

    def _spec(self, node: TopologyNode) -> MachineSpec:
        is_first = node is self.topology.nodes[0]
        return MachineSpec(
            lab=self.layout.name,
            name=node.name,
            store=str(self.layout.node(node.name) / "machine"),
            kit=self.plan.kit,
            sandbox_image=self.kit.references()["pause"],
            gateway=str(node.gateway),
            names={other.name: str(other.address.ip) for other in self.topology.nodes},
            # The others are hosts without Python: all that they need is in the image.
            clone=self.plan.clone if is_first else "",
            has_python=is_first,
        )

    # --- steps of coming up ---------------------------------------------------------------------

    async def build_underlay(self) -> None:
        """Make router, hosts and the nodes' network namespaces, with tunnels if need be."""
        await underlay.build(blueprint.without_pods(self.topology))
        for name in self.machines:
            # kubeadm demands it before there is an agent to see to it; a new network namespace has
            # what the host has, and many a host does not forward.
            underlay.write_sysctl(name, name="net.ipv4.ip_forward", value="1")
        # Before kube-proxy serves it, a service's address is to be refused and not waited for.
        await commands.must("ip", "-n", ROUTER, "route", "add", "unreachable", config.SERVICES)
        if self.plan.tunnel == "bpf":
            path = Path(self.plan.bpf_object)
            for node in self.topology.nodes:
                await asyncio.to_thread(bpf.install, netns_path(node.name), UNDERLAY, path)
        await bird.start(self.topology, layout=self.layout)

    async def start_machines(self) -> None:
        """Start all machines at once."""
        await together(machine.start() for machine in self.machines.values())

    async def import_images(self, machine: Machine, names: Sequence[str]) -> None:
        """Give a machine images, one after the other."""
        for name in names:
            await machine.import_image(name)

    async def init(self) -> None:
        """Make the control plane on the first node."""
        text = config.init_documents(self._settings, name=self.first.name)
        self.first.write(CONFIG, text)
        await self.first.log_step("kubeadm", "kubeadm", "init", f"--config={CONFIG}")

    async def join(self, node: TopologyNode) -> None:
        """Take a node into the cluster."""
        machine = self.machines[node.name]
        authority = base64.b64encode(self.first.path(AUTHORITY).read_bytes()).decode("ascii")
        machine.write(DISCOVERY, config.discovery_document(self._settings, authority=authority))
        text = config.join_documents(
            self._settings, name=node.name, address=str(node.address.ip), discovery=DISCOVERY
        )
        machine.write(CONFIG, text)
        await machine.log_step("kubeadm", "kubeadm", "join", f"--config={CONFIG}")

    async def define_resources(self) -> None:
        """Give the cluster pycni's kinds, its agents' rights and the topology's objects.

        Before any agent starts: it would make pools of its own.
        """
        await self.kubectl("apply", "--server-side", "--kustomize", str(CLONE / "deploy"))
        kinds = "--for=condition=Established", "--timeout=30s", "--all", "crd"
        await self.kubectl("wait", *kinds)
        await self.apply(blueprint.objects(self.topology))

    async def run_on_workers(self) -> None:
        """Make pycni the network of all nodes but the first: by a DaemonSet."""
        await self.apply(blueprint.for_workers(self._manifest()))

    def _manifest(self) -> str:
        return Path(self.plan.clone, "deploy/pycni.yaml").read_text(encoding="utf-8")

    async def install(self) -> None:
        """Make pycni the first node's network: by an installation on the host."""
        await installing.install(self.first, name=self.first.name)

    async def make_pods(self) -> None:
        """Make the topology's pods."""
        await self.apply([blueprint.pod_document(pod) for pod in self.topology.pods])

    # --- questions ------------------------------------------------------------------------------

    @property
    def first(self) -> Machine:
        """Return the machine of the control plane."""
        return self.machines[self.topology.nodes[0].name]

    @property
    def others(self) -> list[TopologyNode]:
        """Return the nodes without control plane."""
        return list(self.topology.nodes[1:])

    async def kubectl(self, *words: str, stdin: str = "") -> str:
        """Ask, or tell, the cluster; return what kubectl printed."""
        return await self.first.must("kubectl", f"--kubeconfig={ADMIN}", *words, stdin=stdin)

    @property
    def has_api(self) -> bool:
        """Say whether kubeadm has come so far that there is somebody to ask."""
        return self.first.path(ADMIN).exists()

    async def find(self, *words: str) -> str:
        """Return what kubectl finds; nothing where it fails, since something has failed before."""
        command = ("kubectl", f"--kubeconfig={ADMIN}", "--request-timeout=5s", *words)
        return (await self.first.run(*command, timeout_s=EXECUTE_S)).output

    async def apply(self, documents: Sequence[dict[str, Any]]) -> None:
        """Have the cluster hold these objects."""
        if documents:
            await self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))

    async def items(self, *words: str) -> list[dict[str, Any]]:
        """Return the objects that `kubectl get` finds."""
        found: list[dict[str, Any]] = json.loads(
            await self.kubectl("get", *words, "--output=json")
        )["items"]
        return found

    async def execute(self, pod: TopologyPod, *command: str) -> commands.Ran:
        """Run a program in a pod of the topology."""
        where = (f"--namespace={pod.namespace}", pod.name)
        words = ("kubectl", f"--kubeconfig={ADMIN}", "exec", *where, "--", *command)
        return await self.first.run(*words, timeout_s=EXECUTE_S)

    async def missing(self) -> list[str]:
        """Return what is not ready yet: nodes, then pods."""
        nodes = await self.items("nodes")
        ready = {n["metadata"]["name"] for n in nodes if is_ready(n)}
        if late := [name for name in self.machines if name not in ready]:
            return late
        pods = await self.items("pods", "--all-namespaces")
        return [pod["metadata"]["name"] for pod in pods if not is_ready(pod)]

    def words_inside(self, place: str, command: Sequence[str]) -> list[str]:
        """Return what runs a command in a node, a host or a router."""
        if place in self.machines:
            return self.machines[place].inside(command)
        others = [host.name for host in self.topology.hosts]
        others += [router.name for router in self.topology.routers]
        if place in (ROUTER, *others):
            return commands.inside(place, command)
        known = ", ".join([*self.machines, *others])
        raise WrongUsage(
            f"there is no {place!r} here: use one of {ROUTER}, {known}; for a pod there is"
            "  bin/lab kubectl exec"
        )

    async def set_cable(self, node: str, *, is_up: bool) -> None:
        """Plug a node's cable in or out."""
        if node not in self.machines:
            raise WrongUsage(f"there is no node {node!r}: use one of {', '.join(self.machines)}")
        await underlay.set_cable(self.topology, node, is_up=is_up)


async def together(tasks: Iterable[Coroutine[None, None, None]]) -> None:
    """Do several things at once; the first error ends all of them and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(task)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


def is_ready(document: dict[str, Any]) -> bool:
    """Say whether a node or pod calls itself ready."""
    conditions = document.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
