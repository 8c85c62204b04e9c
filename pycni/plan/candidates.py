"""Which of a host's addresses may be its node's, and which of these is.  Pure.

Methods and the names that they pass over are Calico's, and so is the order: the interface that was
made last comes first.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from pycni.autodetection import Kind, Method
from pycni.model.endpoints import HOST_VETH_PREFIX
from pycni.model.network import Address, IPAddress, IPInterface, Link

_NO_UNDERLAY = re.compile(
    r"docker|cbr|dummy|podman|virbr|lxcbr|veth|lo|cali|tunl|flannel|kube-ipvs|cni|nodelocaldns"
    r"|vxlan\.calico|vxlan-v6\.calico|wireguard\.cali|wg-v6\.cali"
    # A network of Docker's own: all bridges begin so, and these alone go on so.
    r"|br-[0-9a-f]{12}$"
)
_NEVER = re.compile(rf"{HOST_VETH_PREFIX}|kube-ipvs")
"""Pods, and the Services' addresses that every node has: no node's, whatever a method says."""
_FEW = 8

PATIENCE_S = 10.0
"""How long an address that is no candidate any more stays the node's, if there is another.

A renewed lease or a restarted network takes it away for a moment, and a new one costs all sessions.
"""


@dataclass(frozen=True, slots=True)
class Host:
    """What a choice looks at: the host's interfaces, and what it knows beside them.

    `source` is the kernel's answer from which address it reaches a method's destination,
    `internal_ips` are what the kubelet registers, and `ignores` tells what BGP is not to see.
    """

    links: Mapping[str, Link]
    addresses: Collection[Address]
    tunnel: str
    source: IPAddress | None = None
    internal_ips: tuple[IPAddress, ...] = ()
    ignores: Callable[[str], bool] = lambda _: False

    def of(self, version: int) -> list[Address]:
        """Return the addresses of one IP version whose interface is known."""
        return [
            one
            for one in self.addresses
            if one.interface.version == version and one.ifname in self.links
        ]


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Addresses of an interface that were not chosen, and why; `more` of them are not named."""

    ifname: str
    addresses: tuple[IPInterface, ...]
    more: int
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """The address to take (None: what the node has, it keeps), and since when that is in doubt."""

    address: IPInterface | None
    doubted_since: float | None = None


def settle(
    best: Address | None, *, current: IPInterface | None, doubted_since: float | None, now: float
) -> Standing:
    """Decide whether what a method finds is the node's address from now on."""
    if best is not None and (current is None or best.interface.ip == current.ip):
        return Standing(best.interface)
    since = now if doubted_since is None else doubted_since
    if best is None or now < since + PATIENCE_S:
        return Standing(None, since)
    return Standing(best.interface)


def nothing_fits(method: Method) -> str:
    """Say that a method finds no address, and what to do."""
    key = "node_address" if method.version == 4 else "node_address6"
    return (
        f"no IPv{method.version} address of this host fits {method} (pycnictl status names those"
        f" that there are): change that, or state {key} in agent.yaml"
    )


def choose(method: Method, host: Host, *, current: IPAddress | None = None) -> Address | None:
    """Return the address that a method finds; the current one for as long as it finds that too."""
    fitting = _fitting(method, host)
    kept = [one for one in fitting if one.interface.ip == current]
    if not fitting:
        return None
    best = min(kept or fitting, key=lambda one: _rank(one, host))
    # A second place without a subnet, as of a load balancer, says nothing of neighbours.
    return min(
        (one for one in fitting if one.interface.ip == best.interface.ip),
        key=lambda one: one.interface.network.prefixlen,
    )


def passed_over(method: Method, host: Host, *, chosen: Address | None) -> list[PassedOver]:
    """Say of all addresses but the chosen one why it is none of them, by interface."""
    groups: dict[tuple[str, str], list[IPInterface]] = {}
    best = choose(method, host)
    memo: dict[str, str] = {}
    for one in sorted(host.of(method.version), key=lambda one: _rank(one, host)):
        if one == chosen:
            continue
        reason = _reason_against(one, method, host, memo) or _comes_later(chosen, best=best)
        groups.setdefault((one.ifname, reason), []).append(one.interface)
    return [
        PassedOver(ifname, tuple(all_[:_FEW]), max(len(all_) - _FEW, 0), reason)
        for (ifname, reason), all_ in groups.items()
    ]


def _fitting(method: Method, host: Host) -> list[Address]:
    memo: dict[str, str] = {}
    return [one for one in host.of(method.version) if not _reason_against(one, method, host, memo)]


def _rank(one: Address, host: Host) -> tuple[bool, int, int, IPAddress]:
    """Order what fits: where a cable is first, then the interface made last."""
    link = host.links[one.ifname]
    network = one.interface.network
    return (not link.has_carrier, -link.index, network.prefixlen, one.interface.ip)


def _comes_later(chosen: Address | None, *, best: Address | None) -> str:
    if chosen is None:
        return "it fits, and is not taken yet"
    said = f"{chosen.interface} of {chosen.ifname}"
    if best is not None and best.interface.ip == chosen.interface.ip:
        return f"it fits, and {said} comes first"
    return f"it fits, and {said} is the node's already"


def _reason_against(one: Address, method: Method, host: Host, memo: dict[str, str]) -> str:
    """Say why an address is no candidate; "" if it is one.

    `memo` keeps what is known of interfaces: one may have an address for each Service.
    """
    name = one.ifname
    if name not in memo:
        memo[name] = _reason_against_link(host.links[name], method, host)
    return memo[name] or _reason_against_address(one, method, host)


def _reason_against_link(link: Link, method: Method, host: Host) -> str:
    name = link.name
    if name == host.tunnel or _NEVER.match(name):
        return "the interface is for pods or Services"
    if host.ignores(name):
        return "the interface is one of the BGPConfiguration's ignoredInterfaces"
    if not link.is_up:
        return "the interface is down"
    matches = any(pattern.search(name) for pattern in method.patterns)
    match method.kind:
        case Kind.INTERFACE if not matches:
            return f"the interface is not among {method.text}"
        case Kind.SKIP_INTERFACE if matches:
            return f"the interface is among {method.text}"
        case Kind.FIRST_FOUND | Kind.SKIP_INTERFACE if _NO_UNDERLAY.match(name):
            return "interfaces of this name lead to no other node"
    return ""


def _reason_against_address(one: Address, method: Method, host: Host) -> str:
    own = one.interface
    if one.is_temporary:
        return "it is a temporary address, which the kernel replaces by another"
    if own.ip.is_loopback:
        return "it is a loopback address"
    if own.ip.is_link_local:
        return "it is a link-local address"
    match method.kind:
        case Kind.CIDR if not any(own.ip in cidr for cidr in method.cidrs):
            return f"it is not in {method.text}"
        case Kind.CAN_REACH if own.ip != host.source:
            return f"the kernel does not send from it to {method.destination}"
        case Kind.INTERNAL_IP if own.ip not in host.internal_ips:
            return "the kubelet does not register it as an InternalIP"
    return ""
