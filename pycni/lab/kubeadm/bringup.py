"""The `up` verb of a Kubernetes lab: the order of the steps, then what there is to see."""

import asyncio

from pycni.lab import waiting
from pycni.lab.bringup import TUNNEL_TEXT
from pycni.lab.kubeadm.cluster import (
    CONTROL_PLANE,
    EVERYWHERE,
    WORKERS,
    KubernetesCluster,
    together,
)
from pycni.lab.kubeadm.machine import Machine
from pycni.lab.session import Session
from pycni.topology.model import TopologyNode

# CoreDNS asks the API again only now and then.
READY_S = 150.0
PODS = ("get", "pods", "--all-namespaces", "--output=wide")
EVENTS = ("get", "events", "--all-namespaces", "--field-selector=type=Warning")
LINES = 20
LOGGED = ("containerd", "kubelet", "kubeadm", "installation", "pycni-agent")


async def come_up(cluster: KubernetesCluster, *, session: Session) -> bool:
    """Do all steps and show the result; True: everything is as it should be."""
    await cluster.build_underlay()
    await cluster.start_machines()
    await session.step(
        f"machines: {len(cluster.machines)} with containerd, behind a router;"
        f" {TUNNEL_TEXT[cluster.plan.tunnel]}"
    )
    server = asyncio.Event()
    await together(
        [
            _serve(cluster, server=server, session=session),
            *(_join(cluster, node, server=server, session=session) for node in cluster.others),
        ]
    )
    await cluster.make_pods()
    await waiting.until_nothing_is_missing(
        cluster.missing, what="ready", session=session, within_s=READY_S
    )
    await session.step("ready: all nodes and pods")
    await show(cluster, session=session)
    return True


async def _serve(cluster: KubernetesCluster, *, server: asyncio.Event, session: Session) -> None:
    """Make the first node; `server` is set when others can join."""
    names = (*EVERYWHERE, *CONTROL_PLANE)
    lanes = (names[::2], names[1::2])
    await together(cluster.import_images(cluster.first, lane) for lane in lanes)
    await session.step(f"images: {len(names)} for {cluster.first.name}")
    await cluster.init()
    await cluster.define_resources()
    await session.step(f"kubeadm: {cluster.first.name} has the control plane")
    server.set()
    await cluster.run_on_workers()
    await cluster.install()
    await session.step(f"pycni: installed on {cluster.first.name}, a DaemonSet on the others")


async def _join(
    cluster: KubernetesCluster, node: TopologyNode, *, server: asyncio.Event, session: Session
) -> None:
    """Make one more node."""
    await cluster.import_images(cluster.machines[node.name], WORKERS)
    await server.wait()
    await cluster.join(node)
    await session.step(f"kubeadm: {node.name} has joined")


async def show(cluster: KubernetesCluster, *, session: Session) -> None:
    """Print the cluster's nodes and pods and each node's routes."""
    for words in (("get", "nodes", "--output=wide"), PODS):
        text = await cluster.kubectl(*words)
        await session.say("", f"$ kubectl {' '.join(words)}", *text.splitlines())
    for machine in cluster.machines.values():
        routes = await machine.must("ip", "route")
        await session.say("", f"{machine.name}: ip route", *(f"  {r}" for r in routes.splitlines()))


async def show_logs(cluster: KubernetesCluster, *, session: Session) -> None:
    """Show what the machines' services said last, after something has failed."""
    for machine in cluster.machines.values():
        await _show_logs_of(machine, session=session)
    for words in (PODS, EVENTS):
        if cluster.has_api and (text := await cluster.find(*words)):
            await session.complain("", f"$ kubectl {' '.join(words)}", *text.splitlines()[-LINES:])


async def _show_logs_of(machine: Machine, *, session: Session) -> None:
    for name in LOGGED:
        if lines := machine.log_tail(name):
            await session.complain("", f"the end of {machine.name}'s {name}.log:")
            await session.complain(*(f"  {line}" for line in lines))
