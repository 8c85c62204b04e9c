"""What a machine is made of: its place in the lab and the files that it begins with.  Pure."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

KIT = Path("/mnt/kit")
CLONE = Path("/mnt/pycni")
CONTAINERD_SOCKET = Path("/run/containerd/containerd.sock")
UNITS = Path("/etc/systemd/system")
LOGS = Path("/var/log/units")

# Directories in which a machine begins with nothing, whatever its host has there.  What keeps data
# must not lie on the overlay: containerd makes overlays of its own.
EMPTY = (
    "etc/cni", "etc/containerd", "etc/kubernetes", "etc/pycni", "etc/systemd/system",
    "opt/cni", "opt/pycni",
    "var/lib/cni", "var/lib/containerd", "var/lib/etcd", "var/lib/kubelet", "var/lib/pycni",
    "var/log",
)  # fmt: skip

# The kubelet sets these, which belong to the whole host.  Here it finds them set: a machine has a
# file of its own over each.
SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """One machine.  `store` keeps all that it writes, in the lab's own memory.

    `names` maps the cluster's nodes to their addresses; `clone` is pycni's own source, "" for a
    machine that gets none of it; one without `has_python` hides the host's interpreters.
    """

    lab: str
    name: str
    store: str
    kit: str
    sandbox_image: str
    gateway: str
    names: Mapping[str, str]
    clone: str = ""
    has_python: bool = True

    def text(self) -> str:
        """Return what travels on the command line."""
        return json.dumps(asdict(self))


def parse_spec(text: str) -> MachineSpec:
    """Read a machine from the command line."""
    return MachineSpec(**json.loads(text))


def files_of(spec: MachineSpec) -> dict[str, str]:
    """Return the files that a machine begins with, by path."""
    hosts = "".join(f"{address} {name}\n" for name, address in spec.names.items())
    return {
        "etc/hostname": f"{spec.name}\n",
        "etc/hosts": f"127.0.0.1 localhost\n{hosts}",
        # Nobody answers there; names of the world outside are not known.
        "etc/resolv.conf": f"nameserver {spec.gateway}\n",
        "etc/containerd/config.toml": containerd_config(spec.sandbox_image),
        "etc/systemd/system/containerd.service": unit("containerd"),
        "etc/systemd/system/kubelet.service": unit(KUBELET),
    }


def containerd_config(sandbox_image: str) -> str:
    """Return containerd's configuration."""
    return f"""\
version = 3
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp"]

[debug]
  level = "warn"

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{sandbox_image}"

[plugins."io.containerd.cri.v1.runtime"]
  # Lowering oom_score_adj takes CAP_SYS_RESOURCE, which a container that runs the lab may lack.
  restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/opt/cni/bin"]
  conf_dir = "/etc/cni/net.d"
  use_internal_loopback = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


# Its arguments as in kubeadm's own unit; the flags are kubeadm's to write.
KUBELET = (
    "/bin/sh -c '. /var/lib/kubelet/kubeadm-flags.env; exec kubelet"
    " --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf"
    " --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml"
    " $KUBELET_KUBEADM_ARGS'"
)


def unit(command: str) -> str:
    """Return a unit file as far as `pycni.lab.kubeadm.units` reads one."""
    return f"[Service]\nExecStart={command}\nRestart=always\n"
