"""What a prefix is to a plan: the key of its route, one address, or what a block has lent out."""

from ipaddress import ip_network

from pycni.model.network import (
    IPV6_DEFAULT_PRIORITY,
    MAIN_TABLE,
    IPAddress,
    IPNetwork,
    RouteKey,
)
from pycni.model.prefix import known_key
from pycni.model.resources import Block


def route_key(prefix: IPNetwork) -> RouteKey:
    """Return the key under which we write a prefix: main table, the kernel's default priority."""
    return known_key(prefix, MAIN_TABLE, 0, _priority(prefix))


def is_usual(key: RouteKey) -> bool:
    """Tell whether a key is one under which we write."""
    return key.priority == _priority(key.dst) and key.table == MAIN_TABLE and not key.tos


def _priority(prefix: IPNetwork) -> int:
    return IPV6_DEFAULT_PRIORITY if prefix.version == 6 else 0


def host_prefix(address: IPAddress) -> IPNetwork:
    """Return an address as a prefix of full length (/32 or /128)."""
    return ip_network(address)


def borrowed_in(block: Block) -> dict[IPNetwork, str]:
    """Return the addresses of a block that nodes other than its owner hold, and which."""
    usual = ("node", block.affinity)
    owners = {
        index: owner
        for index, attribute in enumerate(block.attributes)
        # Each new version of a block comes here, and nearly all hold nothing borrowed.
        if usual not in attribute.secondary
        and (owner := dict(attribute.secondary).get("node")) is not None
    }
    if not owners:
        return {}
    return {
        host_prefix(block.cidr[ordinal]): owners[index]
        for ordinal, index in enumerate(block.allocations)
        if index in owners
    }
