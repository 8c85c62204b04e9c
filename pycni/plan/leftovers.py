"""What of ours is in a kernel for which nobody wants anything any more: pure."""

from pycni.model.network import DeleteLink, KernelState, Op, SetSysctl
from pycni.plan.delta import Gate, plan
from pycni.plan.desired import Desired
from pycni.plan.ownership import Ownership
from pycni.plan.podsysctls import interface_sysctl


def sysctls_of_tunnel(tunnel: str) -> tuple[str, str]:
    """Return the tunnel's setting that is ours, and the one from which the kernel takes it."""
    own, usual = (
        interface_sysctl("ipv4", ifname=name, key="rp_filter") for name in (tunnel, "default")
    )
    return own, usual


def plan_removal(have: KernelState, *, ownership: Ownership) -> list[Op]:
    """Remove routes, the tunnel's address, the tunnel and our nftables table.

    Pods' host ends with their routes go with the pods.  Forwarding stays: it was on for
    others as well, or they have come to rely on it.
    """
    ops = plan(Desired(), have, ownership=ownership, gate=Gate()).ops
    own, usual = sysctls_of_tunnel(ownership.tunnel_name)
    is_over = DeleteLink(ownership.tunnel_name) in ops
    if is_over and own in have.sysctls and have.sysctls[own] != have.sysctls.get(usual, "0"):
        # Before the tunnel goes; the module's own stays, as a new one would be.
        ops.insert(0, SetSysctl(own, have.sysctls.get(usual, "0")))
    return ops
