"""Whether an endpoint stands as a request would make it, for a repeated ADD and for CHECK."""

from collections.abc import Sequence
from pathlib import Path

from pycni.cni.protocol import Request
from pycni.cni.tools import Engine
from pycni.errors import InvalidInput
from pycni.ipam import lookup
from pycni.kernel.netns import is_gone, sight
from pycni.model.endpoints import AssignedAddress, WorkloadEndpoint
from pycni.plan.ownership import alias_of
from pycni.ports import PlugRequest


def require_alike(request: Request, record: WorkloadEndpoint, *, netns_fd: int) -> None:
    """Refuse what two plugins of one list ask for the same interface.

    Without a result of plugins before, the list is another one than it was: then it's made anew.
    """
    is_other = record.has_interface == request.config.is_ipam
    is_later = request.config.prev_result is not None
    if is_other and is_later and _is_same_netns(request, record, netns_fd=netns_fd):
        other = "an interface of pycni's" if record.has_interface else "addresses by pycni-ipam"
        raise InvalidInput(
            f"{record.key} has {other} already: two plugins of one list must not both ask pycni"
            " for the same interface; remove one of them, or rename its network"
        )


def stands(engine: Engine, request: Request, record: WorkloadEndpoint, *, netns_fd: int) -> bool:
    """Tell whether an endpoint is what a repeated ADD would make."""
    if record.has_interface == request.config.is_ipam:
        return False
    if not record.has_interface:
        return _is_same_netns(request, record, netns_fd=netns_fd)
    plug = plug_request(engine, request, record, addresses=record.addresses, netns_fd=netns_fd)
    return not engine.podnet.check(plug)


def _is_same_netns(request: Request, record: WorkloadEndpoint, *, netns_fd: int) -> bool:
    seen = sight(request.netns, netns_fd)
    if seen is None or record.sight is None:
        return request.netns == record.netns
    # Whoever was here before may have seen it from another mount namespace, under another path.
    return seen.inode == record.sight.inode


async def holds_addresses(engine: Engine, record: WorkloadEndpoint) -> bool:
    """Tell whether a record's addresses are of our blocks, and still its own."""
    for address in record.addresses:
        holder = await lookup.holder(
            engine.datastore, address.interface.ip, expected=record.handle_id
        )
        if holder != record.handle_id:
            return False
    return True


def is_dead(record: WorkloadEndpoint, living: frozenset[str]) -> bool:
    """Tell whether a pod is gone for certain; `living` are the ifaliases of the host's interfaces.

    A path may be out of sight from here; a pair of ours lives as long as its namespace.
    """
    if not record.has_interface:
        return is_gone(record)
    return alias_of(record.key) not in living and not Path(record.netns).exists()


def plug_request(
    engine: Engine,
    request: Request,
    endpoint: WorkloadEndpoint,
    *,
    addresses: Sequence[AssignedAddress],
    netns_fd: int,
) -> PlugRequest:
    """Say what has to be there for an endpoint: what ADD builds and CHECK compares."""
    return PlugRequest(
        netns_fd=netns_fd,
        ifname=request.ifname,
        host_veth=endpoint.host_veth,
        alias=alias_of(endpoint.key),
        addresses=tuple([a.interface for a in addresses]),
        mtu=endpoint.mtu,
        pod_mac=endpoint.pod_mac,
        route_protocol=engine.route_protocol,
        has_default_route=request.config.has_default_route,
        allow_ip_forwarding=request.config.allow_ip_forwarding,
    )
