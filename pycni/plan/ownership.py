"""Recognise what is ours in a kernel, from what each object says of itself.

A restarted agent remembers nothing and gets no word of what its predecessor made, so that every
object of ours carries a mark: routes a protocol number and a place, host veths their ifalias.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from pycni.ipam.pools import holds
from pycni.model.endpoints import EndpointKey
from pycni.model.network import MAIN_TABLE, IPNetwork, KernelState, Route
from pycni.model.tunnels import VXLAN_DEVICES

ALIAS_PREFIX = "pycni:"
"""Start of the ifalias of every host veth that we make; the endpoint's key follows."""

MAX_ALIAS_LENGTH = 255
"""IFALIASZ of linux/if.h, less the terminating zero."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """How to recognise what is ours in the kernel."""

    route_protocol: int
    tunnel_name: str
    pools: frozenset[IPNetwork]
    host_veths: frozenset[str]

    def owns(self, route: Route) -> bool:
        """Tell whether a route is ours: our protocol in a pool or on our tunnel, or a pod's."""
        if route.key.table != MAIN_TABLE:
            return False
        if route.oifs and route.oifs <= self.host_veths:
            return True
        if route.protocol != self.route_protocol:
            return False
        return not route.oifs.isdisjoint(self.tunnels) or self._lies_in_pool(route.key.dst)

    @property
    def tunnels(self) -> tuple[str, ...]:
        """Return the names of all tunnels' devices that we make."""
        return (self.tunnel_name, *VXLAN_DEVICES.values())

    def _lies_in_pool(self, prefix: IPNetwork) -> bool:
        return any(holds(pool, prefix) for pool in self.pools)


def host_veths(have: KernelState, *, recorded: Iterable[str]) -> frozenset[str]:
    """Return the names of interfaces that are ours: recorded, or saying so in their ifalias."""
    by_alias = {link.name for link in have.links.values() if link.alias.startswith(ALIAS_PREFIX)}
    return frozenset(by_alias.union(recorded))


def alias_of(key: EndpointKey) -> str:
    """Return the ifalias of an endpoint's host veth; a key over 255 bytes is hashed."""
    text = str(key)
    if len(ALIAS_PREFIX) + len(text) > MAX_ALIAS_LENGTH:
        text = hashlib.sha256(text.encode()).hexdigest()
    return ALIAS_PREFIX + text


def key_of_alias(alias: str) -> EndpointKey | None:
    """Return the endpoint that an ifalias names; None when it is not ours, or only a hash."""
    if not alias.startswith(ALIAS_PREFIX):
        return None
    parts = alias.removeprefix(ALIAS_PREFIX).split("/")
    return EndpointKey(*parts) if len(parts) == 3 else None
