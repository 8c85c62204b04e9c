"""Which LoadBalancer addresses a Service keeps, loses and is still to get: as Calico decides it.

A Service keeps what it has while its wishes and the pools allow that; it gets one address of each
of its IP versions, or those that it asks for.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
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

    `yields` are given up once there is one of the same IP version in their place; `wants` are
    particular addresses, or IP versions; `fault` says what keeps it from getting more.
    """

    keeps: tuple[Given, ...] = ()
    loses: tuple[Given, ...] = ()
    yields: tuple[Given, ...] = ()
    wants: tuple[IPAddress | int, ...] = ()
    fault: str = ""


def judge(service: BalancedService, held: Sequence[Given], pools: Sequence[IPPool]) -> Verdict:
    """Decide about one Service."""
    if not service.is_ours:
        return Verdict(loses=tuple(held))
    if service.fault:
        return _halted(held, pools, service.fault)
    allowed, faults = _allowed_of_each(service, pools)
    if faults and (service.requires_all or len(faults) == len(service.wanted_versions)):
        return _halted(held, pools, "; ".join(faults.values()))
    keeps: dict[int, Given] = {}
    # What everybody has been told comes first.
    for one in sorted(held, key=lambda one: (one.address not in service.ingress, int(one.address))):
        version = one.address.version
        is_wished = not service.addresses or one.address in service.addresses or version in faults
        has_pool = pool_of(allowed.get(version, ()), one.address) is not None
        if version not in keeps and is_wished and has_pool:
            keeps[version] = one
    kept = tuple(one for one in held if one in keeps.values())
    wants = tuple(_missing(service, {*keeps, *faults}))
    yields = _yielding([one for one in held if one not in kept], wants, pools)
    loses = tuple(one for one in held if one not in kept and one not in yields.values())
    return Verdict(kept, loses, tuple(yields.values()), wants, "; ".join(faults.values()))


def _halted(held: Sequence[Given], pools: Sequence[IPPool], fault: str) -> Verdict:
    """Give nothing, and take nothing: a mistake cuts nobody off; without a pool nothing stays."""
    ours = balanced(pools)
    stays = tuple(one for one in held if pool_of(ours, one.address))
    return Verdict(stays, tuple(one for one in held if one not in stays), fault=fault)


def _allowed_of_each(
    service: BalancedService, pools: Sequence[IPPool]
) -> tuple[dict[int, Sequence[IPPool]], dict[int, str]]:
    """Return for each IP version the pools of what it may keep, and why it can get no other.

    With a mistake about the pools of one it keeps what it has of any, and gets the other.
    """
    allowed: dict[int, Sequence[IPPool]] = {}
    faults = dict(service.pool_faults)
    for version in sorted(service.wanted_versions):
        try:
            if version not in faults:
                allowed[version] = _allowed(service, pools, version)
        except InvalidInput as exc:
            faults[version] = str(exc)
    return allowed | dict.fromkeys(faults, balanced(pools)), faults


def _yielding(
    others: Iterable[Given], wants: Sequence[IPAddress | int], pools: Sequence[IPPool]
) -> dict[int, Given]:
    """Return what stays until it is replaced, by IP version: nobody is cut off for a mere wish."""
    versions = {want if isinstance(want, int) else want.version for want in wants}
    found: dict[int, Given] = {}
    for one in others:
        if one.address.version in versions and pool_of(balanced(pools), one.address):
            found.setdefault(one.address.version, one)
    return found


def balanced(pools: Iterable[IPPool]) -> list[IPPool]:
    """Return the pools that serve load balancers."""
    return [pool for pool in pools if PoolUse.LOAD_BALANCER in pool.allowed_uses]


def _allowed(service: BalancedService, pools: Sequence[IPPool], version: int) -> Sequence[IPPool]:
    """Return the pools from which a Service may keep an address of an IP version."""
    balancing = balanced(pools)
    texts = service.ipv4_pools if version == 4 else service.ipv6_pools
    if service.addresses:
        return balancing
    if texts:
        return named(balancing, texts, version=version)
    # A pool that is disabled gives no more, and takes nothing away.
    return [pool for pool in balancing if pool.assignment_mode is AssignmentMode.AUTOMATIC]


def _missing(service: BalancedService, settled: AbstractSet[int]) -> Iterable[IPAddress | int]:
    if service.addresses:
        return (one for one in service.addresses if one.version not in settled)
    return (version for version in service.versions if version not in settled)


def wanted_ingress(
    service: BalancedService,
    has: Sequence[IPAddress],
    *,
    lost: Iterable[Given],
    pools: Sequence[IPPool],
) -> tuple[IPAddress, ...]:
    """Return what the status of a Service is to say, in the order of its IP versions.

    Where it has nothing of ours, what others have given stays.
    """
    if not has:
        ours, gone = balanced(pools), {one.address for one in lost}
        others = (one for one in service.ingress if pool_of(ours, one) is None)
        return tuple(one for one in others if one not in gone)
    order = {version: number for number, version in enumerate(service.versions)}
    return tuple(sorted(has, key=lambda one: (order.get(one.version, len(order)), int(one))))
