"""Render our one nftables table: masquerading, and drops of what pods and strangers must not send.

Pure; every text in it comes from a typed value.  The table is always written whole.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network

from pycni.errors import InvalidInput
from pycni.model.bgp import BGP_PORT
from pycni.model.endpoints import HOST_VETH_PREFIX
from pycni.model.network import IPAddress, IPNetwork, Ruleset

TABLE = "pycni"
DIGEST_PREFIX = "digest_"
"""An empty chain of that name and the digest marks the table: readable without the nft program."""

COUNTERS = ("spoofed", "pod_tunnel", "foreign_ipip", "foreign_vxlan", "distant_bgp", "no_service")
_DIGEST_LENGTH = 32
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class NatInputs:
    """What the table depends on.

    `pools` are all pools (traffic to them keeps its source), `nat_pools` those with natOutgoing;
    `nodes` the addresses of all nodes, this one's included; `vxlan_port` None without VXLAN;
    `close_peers` the BGP peers that must be near: address, port and the least TTL (RFC 5082);
    `listen_port` where this node accepts their sessions; `services` the ranges of Services that
    are announced.
    """

    pools: frozenset[IPNetwork] = frozenset()
    nat_pools: frozenset[IPNetwork] = frozenset()
    nodes: frozenset[IPAddress] = frozenset()
    has_ipip: bool = True
    vxlan_port: int | None = None
    blocks_spoofing: bool = True
    close_peers: frozenset[tuple[IPAddress, int, int]] = frozenset()
    listen_port: int = BGP_PORT
    services: frozenset[IPNetwork] = frozenset()

    def __post_init__(self) -> None:
        if self.vxlan_port is not None and not 0 < self.vxlan_port <= _MAX_PORT:
            raise InvalidInput(f"VXLAN port {self.vxlan_port} is not between 1 and {_MAX_PORT}")


def render(inputs: NatInputs) -> Ruleset:
    """Return the table for these inputs; equal inputs give equal text and digest."""
    chains = [*_antispoof(inputs), *_input(inputs), *_forward(inputs), *_postrouting()]
    rules = sum(line.startswith("\t\t") and not line.startswith("\t\ttype ") for line in chains)
    lines = [*(f"\tcounter {name} {{ }}" for name in COUNTERS), *_sets(inputs), *chains]
    body = "\n".join(lines)
    digest = f"{hashlib.sha256(body.encode()).hexdigest()[:_DIGEST_LENGTH]}_{rules}"
    text = (
        # Adding first lets the deletion succeed where there is no table yet.
        f"add table inet {TABLE}\n"
        f"delete table inet {TABLE}\n"
        f"table inet {TABLE} {{\n"
        f"\tchain {DIGEST_PREFIX}{digest} {{ }}\n"
        f"{body}\n"
        "}\n"
    )
    return Ruleset(text, digest)


def rule_count(digest: str) -> int:
    """Return how many rules a table of that digest has, or -1 when it is no digest of ours."""
    _, _, count = digest.rpartition("_")
    return int(count) if count.isascii() and count.isdigit() else -1


def _sets(inputs: NatInputs) -> list[str]:
    lines = []
    for version in (4, 6):
        kind = f"type ipv{version}_addr;"
        lines += _set(f"pools{version}", f"{kind} flags interval;", _merged(inputs.pools, version))
        nat = _merged(inputs.nat_pools, version)
        lines += _set(f"nat_pools{version}", f"{kind} flags interval;", nat)
        nodes = sorted(address for address in inputs.nodes if address.version == version)
        lines += _set(f"nodes{version}", kind, map(str, nodes))
        services = _merged(inputs.services, version)
        if services:
            lines += _set(f"services{version}", f"{kind} flags interval;", services)
    return lines


def _merged(prefixes: Iterable[IPNetwork], version: int) -> list[str]:
    # An interval set refuses prefixes that overlap.
    merged: Iterable[IPNetwork] = (
        collapse_addresses(p for p in prefixes if isinstance(p, IPv4Network))
        if version == 4
        else collapse_addresses(p for p in prefixes if isinstance(p, IPv6Network))
    )
    return [str(prefix) for prefix in merged]


def _set(name: str, kind: str, elements: Iterable[str]) -> list[str]:
    listed = ", ".join(elements)
    # An empty list of elements is a syntax error.
    return [f"\tset {name} {{ {kind}{f' elements = {{ {listed} }};' if listed else ''} }}"]


def _antispoof(inputs: NatInputs) -> list[str]:
    """Judge what pods send before anything else does, connection tracking included."""
    rules = []
    if inputs.blocks_spoofing:
        rules += [
            # Neighbour discovery speaks from link-local or no address; neither is forwarded.
            "ip6 saddr { ::, fe80::/10 } return",
            # Strict reverse path: the source must be routed back by the very interface, which only
            # the pod's own /32 is.  Another pod's address leads elsewhere, a free one of the block
            # to the blackhole, a node's own is local: `missing`, all of them.
            "fib saddr . iif oif missing counter name spoofed drop",  # codespell:ignore iif
        ]
    if inputs.has_ipip:
        # Encapsulated by a pod, a packet could claim any inner source at the far node.
        rules.append("ip daddr @nodes4 meta l4proto 4 counter name pod_tunnel drop")
    if inputs.vxlan_port is not None:
        port = f"udp dport {inputs.vxlan_port}"
        rules += [
            f"ip daddr @nodes4 {port} counter name pod_tunnel drop",
            f"ip6 daddr @nodes6 {port} counter name pod_tunnel drop",
        ]
    return [
        "\tchain from_pod {",
        *(f"\t\t{rule}" for rule in rules),
        "\t}",
        "\tchain prerouting {",
        "\t\ttype filter hook prerouting priority raw; policy accept;",
        f'\t\tiifname "{HOST_VETH_PREFIX}*" jump from_pod',
        "\t}",
    ]


def _input(inputs: NatInputs) -> list[str]:
    """Refuse tunnel packets of strangers where they would be decapsulated: at local delivery."""
    rules = []
    if inputs.has_ipip:
        rules.append("meta l4proto 4 ip saddr != @nodes4 counter name foreign_ipip drop")
    if inputs.vxlan_port is not None:
        port = f"udp dport {inputs.vxlan_port}"
        rules += [
            f"{port} ip saddr != @nodes4 counter name foreign_vxlan drop",
            f"{port} ip6 saddr != @nodes6 counter name foreign_vxlan drop",
        ]
    rules += _distant(inputs)
    return [
        "\tchain input {",
        "\t\ttype filter hook input priority filter; policy accept;",
        *(f"\t\t{rule}" for rule in rules),
        "\t}",
    ]


def _distant(inputs: NatInputs) -> list[str]:
    """Refuse BGP packets in a near peer's name that have come from afar.

    ExaBGP asks the kernel for this on the connections that it makes, and not on those it accepts.
    """
    rules = []
    for address, port, least in sorted(inputs.close_peers, key=str):
        ip, ttl = ("ip", "ttl") if address.version == 4 else ("ip6", "hoplimit")
        for side in (f"dport {inputs.listen_port:d}", f"sport {port:d}"):
            far = f"{ip} saddr {address} tcp {side} {ip} {ttl} < {least}"
            rules.append(f"{far} counter name distant_bgp drop")
    return rules


def _forward(inputs: NatInputs) -> list[str]:
    """Drop what is for an address that no Service has: the router would send it back to a node.

    No blackhole route: to the packets of this node's own programs kube-proxy gives an endpoint's
    address after they have been routed (netfilter's OUTPUT), so these would all be lost.
    """
    versions = {cidr.version: "ip" if cidr.version == 4 else "ip6" for cidr in inputs.services}
    if not versions:
        return []
    return [
        "\tchain forward {",
        # Later than kube-proxy's own rules: it says "refused" for a Service without endpoints.
        "\t\ttype filter hook forward priority filter + 10; policy accept;",
        *(
            f"\t\t{ip} daddr @services{version} {ip} daddr != @nodes{version}"
            " counter name no_service drop"
            for version, ip in sorted(versions.items())
        ),
        "\t}",
    ]


def _postrouting() -> list[str]:
    """Hide pods behind the node's address towards everything that is no pod."""
    towards = "fib daddr type != { broadcast, multicast }"
    return [
        "\tchain postrouting {",
        "\t\ttype nat hook postrouting priority srcnat; policy accept;",
        f"\t\tip saddr @nat_pools4 ip daddr != @pools4 {towards} counter masquerade fully-random",
        f"\t\tip6 saddr @nat_pools6 ip6 daddr != @pools6 {towards} counter masquerade fully-random",
        "\t}",
    ]


PROBE = render(
    NatInputs(
        vxlan_port=4789,
        close_peers=frozenset((ip_address(a), BGP_PORT, 255) for a in ("192.0.2.1", "2001:db8::1")),
        services=frozenset(map(ip_network, ("192.0.2.0/24", "2001:db8::/32"))),
    )
).text
"""A table with every kind of expression that we use, for asking a kernel whether it knows them."""
