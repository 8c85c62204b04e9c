"""Install pycni on a machine of the cluster, as its operator would: docs/kubernetes.md.

What a machine is given lies below /mnt.
"""

from pycni.lab.agents import HOLD_TIME_S
from pycni.lab.kubeadm.machine import Machine
from pycni.lab.kubeadm.spec import CLONE, KIT


async def install(machine: Machine, *, name: str) -> None:
    """Install the program where the control plane is, and let the agent start."""
    words = ["--no-start", "--datastore", "kubernetes", "--node-name", name]
    wheels = ("env", "PIP_NO_INDEX=1", f"PIP_FIND_LINKS={KIT / 'wheels'}")
    await machine.log_step("installation", *wheels, str(CLONE / "install.sh"), *words)
    with machine.path("/etc/pycni/agent.yaml").open("a", encoding="utf-8") as file:
        file.write(f"hold_time_s: {HOLD_TIME_S}\n")
    await machine.must("systemctl", "start", "pycni-agent")
