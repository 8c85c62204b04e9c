"""The record of one pod interface, as both engines (agent and in-process) keep it on disk.

It is written before the first effect on datastore or kernel ("intent") and again once everything
is in place ("ready"), so that whoever comes after a crash knows what may have been left behind.
"""

import hashlib
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Interface

from pycni.model.network import IPAddress, IPInterface

HOST_VETH_PREFIX = "cali"
POD_ANNOTATION = "cni.projectcalico.org/"
"""What Calico\'s annotations of pods and of their namespaces begin with."""
"""What the host interface of every pod begins with, and nothing else's."""

GATEWAY_V4 = IPv4Address("169.254.1.1")
"""A pod's gateway: it exists nowhere, the host end answers ARP for it."""

GATEWAY_V6 = IPv6Interface("fe80::ecee:eeff:feee:eeee/64")
"""A pod's IPv6 gateway, an address of each host end.

It is what the kernel makes of the host ends' MAC address (EUI-64), which it need not: it is set in
so many words.
"""


def host_veth_name(seed: str) -> str:
    """Return a host interface's name; the seed of a Kubernetes pod is "namespace.name" (Calico)."""
    digest = hashlib.sha1(seed.encode(), usedforsecurity=False).hexdigest()
    return f"{HOST_VETH_PREFIX}{digest[:11]}"


@dataclass(frozen=True, slots=True, order=True)
class EndpointKey:
    """CNI's identity of an attachment: (network name, container id, interface name in the pod)."""

    network: str
    container_id: str
    ifname: str

    def __str__(self) -> str:
        return f"{self.network}/{self.container_id}/{self.ifname}"


class EndpointState(Enum):
    """How far an ADD has got."""

    INTENT = "intent"
    READY = "ready"


class Subnet(Enum):
    """What an address for another plugin shares its prefix with.

    NONE: nothing, it stands alone as our pods' do; BLOCK: its block, in which a gateway is held,
    too; POOL: its pool, as on a link that leads to all nodes.
    """

    NONE = "none"
    BLOCK = "block"
    POOL = "pool"


@dataclass(frozen=True, slots=True)
class AssignedAddress:
    """An address that IPAM gave, with the sequence number that guards its release.

    Pods of ours stand alone in their network; another plugin's may have their block's prefix length
    and a `gateway` in it.
    """

    interface: IPInterface
    sequence_number: int | None = None
    gateway: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class NetnsSight:
    """That a path led to a network namespace: its inode, as seen from a mount namespace.

    From another mount namespace the same path says nothing.
    """

    mount_namespace: int
    inode: int


@dataclass(frozen=True, slots=True)
class Delegation:
    """How to call the IPAM plugin that gave an endpoint its addresses, and takes them back.

    CNI_PATH, CNI_ARGS and the network configuration, as a runtime gave them; `answer` is the result
    of its ADD.
    """

    plugin: str
    path: str
    args: str
    config: str
    answer: str = ""


@dataclass(frozen=True, slots=True)
class WorkloadEndpoint:
    """One pod interface: where it is, what it was given, and how the host end is called.

    An empty `host_veth`: the interface is another plugin's, for which we manage addresses only.
    """

    key: EndpointKey
    node: str
    netns: str
    host_veth: str
    handle_id: str
    state: EndpointState
    addresses: tuple[AssignedAddress, ...] = ()
    mtu: int = 0
    host_mac: str = ""
    pod_mac: str = ""
    pod_namespace: str = ""
    pod_name: str = ""
    sight: NetnsSight | None = None
    delegation: Delegation | None = None

    @property
    def has_interface(self) -> bool:
        """Whether the interface is of our making."""
        return bool(self.host_veth)


def pod_of(endpoint: WorkloadEndpoint) -> str:
    """Return what people call an endpoint: its pod, or else its key."""
    pod = f"{endpoint.pod_namespace}/{endpoint.pod_name}"
    return pod if endpoint.pod_name else str(endpoint.key)


@dataclass(frozen=True, slots=True)
class PendingRelease:
    """A release that a DEL could not perform: replayed later, guarded by sequence numbers."""

    key: EndpointKey
    handle_id: str
    addresses: tuple[AssignedAddress, ...] = ()
