"""Which LoadBalancer addresses a Service keeps, loses and is still to get: as Calico decides it.

A Service keeps what it has while its wishes and the pools allow that; it gets one address of each
of its IP versions, or those that it asks for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pycni.errors import InvalidInput
from pycni.ipam.block import Given
from pycni.ipam.pools import named, pool_of
from pycni.model.network import IPAddress
from pycni.model.resources import AssignmentMode, IPPool, PoolUse
from pycni.model.services import BalancedService


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the addresses that a Service holds, and what it is to get beside them.

    `wants` are particular addresses, or IP versions; `fault` says what keeps it from getting any.
    """

    keeps: tuple[Given, ...] = ()
    loses: tuple[Given, ...] = ()
    wants: tuple[IPAddress | int, ...] = ()
    fault: str = ""


def judge(service: BalancedService, held: Sequence[Given], pools: Sequence[IPPool]) -> Verdict:
    """Decide about one Service."""
    if not service.is_ours:
        return Verdict(loses=tuple(held))
    try:
        if service.fault:
            raise InvalidInput(service.fault)
        allowed = {version: _allowed(service, pools, version) for version in (4, 6)}
    except InvalidInput as exc:
        # What it has it keeps: a mistake in an annotation is to cut nobody off.
        return Verdict(keeps=tuple(held), fault=str(exc))
    keeps: dict[int, Given] = {}
    # What everybody has been told comes first.
    for one in sorted(held, key=lambda one: (one.address not in service.ingress, int(one.address))):
        version = one.address.version
        if version not in keeps and _may_stay(service, one.address, allowed[version]):
            keeps[version] = one
    kept = tuple(one for one in held if one in keeps.values())
    return Verdict(
        keeps=kept,
        loses=tuple(one for one in held if one not in kept),
        wants=tuple(_missing(service, keeps)),
    )


def _allowed(service: BalancedService, pools: Sequence[IPPool], version: int) -> Sequence[IPPool]:
    """Return the pools from which a Service may keep an address of an IP version."""
    balancing = [pool for pool in pools if PoolUse.LOAD_BALANCER in pool.allowed_uses]
    texts = service.ipv4_pools if version == 4 else service.ipv6_pools
    if service.addresses:
        return balancing
    if texts:
        return named(balancing, texts, version=version)
    # A pool that is disabled gives no more, and takes nothing away.
    return [pool for pool in balancing if pool.assignment_mode is AssignmentMode.AUTOMATIC]


def _may_stay(service: BalancedService, address: IPAddress, allowed: Iterable[IPPool]) -> bool:
    if service.addresses and address not in service.addresses:
        return False
    is_wanted = service.addresses or address.version in service.versions
    return bool(is_wanted) and pool_of(list(allowed), address) is not None


def _missing(service: BalancedService, keeps: dict[int, Given]) -> Iterable[IPAddress | int]:
    if service.addresses:
        return (one for one in service.addresses if one.version not in keeps)
    return (version for version in service.versions if version not in keeps)


def wanted_ingress(
    service: BalancedService, has: Sequence[IPAddress], lost: Iterable[IPAddress]
) -> tuple[IPAddress, ...]:
    """Return what the status of a Service is to say, IPv4 first; of others only ours is taken."""
    if not service.is_ours:
        gone = set(lost)
        return tuple(one for one in service.ingress if one not in gone)
    order = {version: number for number, version in enumerate(service.versions)}
    return tuple(sorted(has, key=lambda one: (order.get(one.version, 9), int(one))))
