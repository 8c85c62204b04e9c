"""Why an interface can't be made or taken for a tunnel, in words; pure."""

from pycni.model.network import Link, Tunnel
from pycni.plan.overlay import can_serve


def no_such_kind(wanted: Tunnel) -> str:
    """Say what helps where the kernel has no such tunnels."""
    field = "ipipMode" if wanted.vxlan is None else "vxlanMode"
    return (
        f"this kernel has no {wanted.kind} tunnels: load the module (modprobe {wanted.kind}), or"
        f" give every pool {field}: Never"
    )


def rival_of(wanted: Tunnel) -> str:
    """Say why a device can't be made although none has its name."""
    if wanted.vxlan is not None:
        return (
            f"another VXLAN device has VNI {wanted.vxlan.vni} and UDP port {wanted.vxlan.port}:"
            " find it by  ip -d link show type vxlan  and delete it if it is nobody's"
        )
    # The kernel has one tunnel per pair of endpoints, and `tunl0` is that for any to any.
    return f"another {wanted.kind} tunnel has the same endpoints; is there a tunl0?"


def unlike(link: Link, wanted: Tunnel) -> str | None:
    """Say why the interface of a tunnel's name can't serve as it, None where it can."""
    if link.kind != wanted.kind:
        return f"it exists and is of kind {link.kind!r}"
    if can_serve(link, wanted):  # what it lacks is mended when its event comes
        return None
    return (
        f"it exists, and is another's: {link.vxlan} with MAC address {link.mac}; delete it by"
        f"  ip link delete {link.name}  if it is nobody's"
    )
