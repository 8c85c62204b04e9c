"""What must hold between objects before any of a file is written: Calico's rules, pure.

A single object's own rules are in `pycni.model.resources` and the readers; these need the others.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

from pycni.model.network import IPNetwork
from pycni.model.resources import IPPool, Node
from pycni.model.schema_config import Config
from pycni.model.schema_yaml import Manifest
from pycni.model.tunnels import TunnelKind, address_in, with_address

_FORBIDDEN: tuple[tuple[IPNetwork, str], ...] = (
    (IPv4Network("169.254.0.0/16"), "link-local addresses, among them the pods' gateway"),
    (IPv6Network("fe80::/10"), "link-local addresses, among them the pods' gateway"),
)


def mistakes_of(manifests: Sequence[Manifest], *, existing: Iterable[Config]) -> list[str]:
    """Return what forbids to apply these objects beside the existing ones, a sentence each."""
    before = {(type(value), value.name): value for value in existing}
    after = dict(before)
    where = {}
    for manifest in manifests:
        key = (type(manifest.value), manifest.value.name)
        after[key] = manifest.value
        where[key] = manifest.where
    pools = [value for value in after.values() if isinstance(value, IPPool)]
    nodes = [value for value in after.values() if isinstance(value, Node)]
    found: list[str] = []
    for key, place in where.items():
        value = after[key]
        mistakes: list[str] = []
        if isinstance(value, IPPool):
            mistakes += _changed(before.get(key), value) + _pool_mistakes(value, pools, nodes)
        elif isinstance(value, Node):
            mistakes += [
                f"{subnet} of node {value.name} overlaps pool {pool.name} ({pool.cidr})"
                for subnet in subnets_of(value)
                for pool in pools
                if pool.cidr.overlaps(subnet)
            ]
        found += [f"{place}: {mistake}" for mistake in mistakes]
    return found


def _changed(old: Config | None, new: IPPool) -> list[str]:
    if not isinstance(old, IPPool):
        return []
    return [
        f"spec.{field}: cannot be changed from {was} to {now};"
        " make another pool, disable this one, and delete it once it is empty"
        for field, was, now in (
            ("cidr", old.cidr, new.cidr),
            ("blockSize", old.block_size, new.block_size),
        )
        if was != now
    ]


def _pool_mistakes(pool: IPPool, pools: Sequence[IPPool], nodes: Sequence[Node]) -> list[str]:
    taken = [
        (other.cidr, f"pool {other.name} ({other.cidr})")
        for other in pools
        if other.name != pool.name
    ]
    taken += [
        (subnet, f"the subnet {subnet} of node {node.name}")
        for node in nodes
        for subnet in subnets_of(node)
    ]
    taken += [(cidr, f"{cidr} ({what})") for cidr, what in _FORBIDDEN]
    return [
        f"spec.cidr: {pool.cidr} overlaps {what}"
        for cidr, what in taken
        if cidr.overlaps(pool.cidr)
    ]


def subnets_of(node: Node) -> list[IPNetwork]:
    """Return the subnets that a node stands in, or of one that is not known yet the address."""
    known: list[IPNetwork] = [one.network for one in (node.ipv4, node.ipv6) if one is not None]
    alone = (ip_network(address) for address in node.internal_ips)
    return known + [one for one in alone if not any(one.version == k.version for k in known)]


def merged(value: Config, *, existing: Config | None) -> Config:
    """Return what to store for an applied value: the agent's own findings are kept."""
    if isinstance(value, Node) and isinstance(existing, Node):
        for kind in TunnelKind:
            value = with_address(value, kind, address_in(value, kind) or address_in(existing, kind))
    return value
