"""An endpoint, what is owed for it, and the door to both as another process has it."""

from ipaddress import ip_interface
from pathlib import Path

from pycni.endpoints import FileEndpoints
from pycni.model.endpoints import (
    AssignedAddress,
    EndpointKey,
    EndpointState,
    PendingRelease,
    WorkloadEndpoint,
)

KEY = EndpointKey("net", "c0ffee", "eth0")
ADDRESSES = (
    AssignedAddress(ip_interface("192.168.39.193/32"), 7),
    AssignedAddress(ip_interface("fd00::1/128"), None),
)
RECORD = WorkloadEndpoint(
    key=KEY,
    node="node-0",
    netns="/run/netns/c0ffee",
    host_veth="cali1",
    handle_id="net.c0ffee",
    state=EndpointState.READY,
    addresses=ADDRESSES,
    mtu=1480,
    host_mac="ee:ee:ee:ee:ee:ee",
    pod_mac="02:00:00:00:00:01",
    pod_namespace="default",
    pod_name="nginx",
)
DEBT = PendingRelease(KEY, handle_id="net.c0ffee", addresses=ADDRESSES)

Directories = tuple[Path, Path]


def other(directories: Directories) -> FileEndpoints:
    """Return the door as another process has it."""
    return FileEndpoints(run_dir=directories[0], state_dir=directories[1])


def keyed(name: str) -> EndpointKey:
    return EndpointKey("net", name, "eth0")
