"""The verbs of a Kubernetes lab that is up, performed in the supervisor."""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from pycni.lab import interactive
from pycni.lab.kubeadm import bringup, checks
from pycni.lab.kubeadm.cluster import ADMIN, KubernetesCluster
from pycni.lab.session import Session
from pycni.lab.verbs import tell

TITLE_WIDTH = 60
Verb = Callable[[KubernetesCluster, Session], Awaitable[int]]


async def show(cluster: KubernetesCluster, session: Session) -> int:
    """Show nodes, pods and routes."""
    await bringup.show(cluster, session=session)
    return 1 if await cluster.missing() else 0


async def test(cluster: KubernetesCluster, session: Session) -> int:
    """Make all checks."""
    return await tell(session, partial(checks.run_all, cluster), width=TITLE_WIDTH)


async def execute(cluster: KubernetesCluster, session: Session) -> int:
    """Run a program, or a shell, in a node, a host or the router."""
    place = str(session.request.arguments["place"])
    words = [str(word) for word in session.request.arguments["command"]]
    env = {"KUBECONFIG": ADMIN}
    if not words:
        words, prompt = interactive.shell_command(place)
        env |= prompt
    return await interactive.run(session, words=cluster.words_inside(place, words), env=env)


async def kubectl(cluster: KubernetesCluster, session: Session) -> int:
    """Run kubectl as the cluster's administrator."""
    words = [str(word) for word in session.request.arguments["command"]]
    command = cluster.first.inside(["kubectl", *words])
    return await interactive.run(session, words=command, env={"KUBECONFIG": ADMIN})


async def node(cluster: KubernetesCluster, session: Session) -> int:
    """Plug a node's underlay cable in or out."""
    arguments = session.request.arguments
    await cluster.set_cable(str(arguments["node"]), is_up=arguments["action"] == "up")
    return 0


VERBS: Mapping[str, Verb] = {
    "show": show,
    "test": test,
    "exec": execute,
    "kubectl": kubectl,
    "node": node,
}
