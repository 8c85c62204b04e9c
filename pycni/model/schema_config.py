"""What operators write, pools, peers, nodes and settings ↔ the `spec` of Calico's documents.

`projectcalico.org/v3` and `crd.projectcalico.org/v1` share these; only a Node is stored otherwise
(as annotations of Kubernetes's own Node).  A field that is not read here is refused by name.
"""

import contextlib
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, assert_never

from pycni.errors import InvalidInput
from pycni.model.network import IPAddress
from pycni.model.resources import (
    DEFAULT_BLOCK_SIZE,
    AssignmentMode,
    IPAMConfig,
    IPPool,
    IPReservation,
    Node,
    PoolUse,
    TunnelMode,
)
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer
from pycni.model.schema_bgp import bgp_configuration_spec, peer_spec
from pycni.model.schema_fields import (
    Fields,
    check_selector,
    only_default,
    parse_choice,
    parse_network,
)
from pycni.model.schema_filter import filter_spec
from pycni.model.vxlan import VxlanEnd

Config = IPPool | IPReservation | Node | BGPPeer | BGPFilter | BGPConfiguration | IPAMConfig

_ANNOTATION = "projectcalico.org/"
_MAX_BLOCKS = 2**31
_MAX_COOLDOWN_S = 1200
_DEFAULT_USES = (PoolUse.WORKLOAD, PoolUse.TUNNEL)


def config_spec(value: Config) -> dict[str, Any]:
    """Return the `spec` of a value's document."""
    match value:
        case IPPool():
            return _pool_spec(value)
        case IPReservation():
            return {"reservedCIDRs": [str(cidr) for cidr in value.cidrs]}
        case Node():
            return _node_spec(value)
        case BGPPeer():
            return peer_spec(value)
        case BGPFilter():
            return filter_spec(value)
        case BGPConfiguration():
            return bgp_configuration_spec(value)
        case IPAMConfig():
            return {
                "strictAffinity": value.is_strict_affinity,
                "autoAllocateBlocks": value.is_auto_allocating_blocks,
                "maxBlocksPerHost": value.max_blocks_per_host,
            } | ({"ipCooldownSeconds": value.cooldown_s} if value.cooldown_s else {})
        case _:
            assert_never(value)


def parse_pool(name: str, spec: Fields) -> IPPool:
    """Read an IPPool."""
    cidr = spec.network("cidr")
    sizes = range(cidr.max_prefixlen + 1)
    vxlan_mode = spec.choice("vxlanMode", TunnelMode, default=TunnelMode.NEVER)
    uses = [
        parse_choice(use, PoolUse, path=f"{spec.at('allowedUses')}[{index}]")
        for index, use in enumerate(spec.items("allowedUses"))
    ]
    block_size = spec.integer("blockSize", within=sizes)
    node_selector = check_selector(spec, "nodeSelector") or "all()"
    if PoolUse.LOAD_BALANCER in uses and node_selector != "all()":
        # As Calico's operator has it.
        raise InvalidInput(
            f"{spec.at('nodeSelector')}: {node_selector!r}: write all(), or leave it out, in a pool"
            " for LoadBalancer addresses, which are given to Services and not to nodes"
        )
    return IPPool(
        name=name,
        cidr=cidr,
        block_size=DEFAULT_BLOCK_SIZE[cidr.version] if block_size is None else block_size,
        ipip_mode=spec.choice("ipipMode", TunnelMode, default=TunnelMode.NEVER),
        vxlan_mode=vxlan_mode,
        nat_outgoing=spec.boolean("natOutgoing", default=False),
        is_disabled=spec.boolean("disabled", default=False),
        disable_bgp_export=spec.boolean("disableBGPExport", default=False),
        node_selector=node_selector,
        allowed_uses=frozenset(uses or _DEFAULT_USES),
        assignment_mode=spec.choice(
            "assignmentMode", AssignmentMode, default=AssignmentMode.AUTOMATIC
        ),
    )


def parse_reservation(name: str, spec: Fields) -> IPReservation:
    """Read an IPReservation; an address without a prefix length is that address alone."""
    items = spec.items("reservedCIDRs")
    path = spec.at("reservedCIDRs")
    if not items:
        raise InvalidInput(f"{path}: at least one CIDR or address is needed")
    cidrs = (parse_network(item, path=f"{path}[{n}]") for n, item in enumerate(items))
    return IPReservation(name, tuple(cidrs))


def _pool_spec(pool: IPPool) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "cidr": str(pool.cidr),
        "blockSize": pool.block_size,
        "ipipMode": pool.ipip_mode.value,
        "vxlanMode": pool.vxlan_mode.value,
        "natOutgoing": pool.nat_outgoing,
        "nodeSelector": pool.node_selector,
        "allowedUses": [use.value for use in PoolUse if use in pool.allowed_uses],
        "assignmentMode": pool.assignment_mode.value,
    }
    if pool.is_disabled:
        spec["disabled"] = True
    if pool.disable_bgp_export:
        spec["disableBGPExport"] = True
    return spec


def parse_ipam_config(name: str, spec: Fields) -> IPAMConfig:
    """Read an IPAMConfig (IPAMConfiguration in v3)."""
    return IPAMConfig(
        name=only_default(name),
        is_strict_affinity=spec.boolean("strictAffinity", default=False),
        is_auto_allocating_blocks=spec.boolean("autoAllocateBlocks", default=True),
        max_blocks_per_host=spec.integer("maxBlocksPerHost", within=range(_MAX_BLOCKS)) or 0,
        cooldown_s=spec.integer("ipCooldownSeconds", within=range(_MAX_COOLDOWN_S + 1)) or 0,
    )


def parse_node(name: str, spec: Fields, *, labels: tuple[tuple[str, str], ...] = ()) -> Node:
    """Read a Node as people write it."""
    bgp = spec.child("bgp")
    node = Node(
        name=name,
        ipv4=bgp.interface("ipv4Address", version=4),
        ipv6=bgp.interface("ipv6Address", version=6),
        as_number=bgp.as_number("asNumber"),
        ipip_tunnel_address=bgp.address("ipv4IPIPTunnelAddr"),
        vxlan=VxlanEnd(
            spec.address("ipv4VXLANTunnelAddr", version=4), spec.mac("vxlanTunnelMACAddr")
        ),
        vxlan6=VxlanEnd(
            spec.address("ipv6VXLANTunnelAddr", version=6), spec.mac("vxlanTunnelMACAddrV6")
        ),
        labels=labels,
        reflector_cluster_id=bgp.address("routeReflectorClusterID", version=4),
    )
    bgp.finish()
    return node


def _node_settings(node: Node) -> dict[str, Any]:
    settings = {
        "ipv4Address": node.ipv4,
        "ipv6Address": node.ipv6,
        "asNumber": node.as_number,
        "ipv4IPIPTunnelAddr": node.ipip_tunnel_address,
        "routeReflectorClusterID": node.reflector_cluster_id,
        "ipv4VXLANTunnelAddr": node.vxlan.address,
        "vxlanTunnelMACAddr": node.vxlan.mac,
        "ipv6VXLANTunnelAddr": node.vxlan6.address,
        "vxlanTunnelMACAddrV6": node.vxlan6.mac,
    }
    return {key: value for key, value in settings.items() if value is not None}


def _node_spec(node: Node) -> dict[str, Any]:
    settings = _node_settings(node)
    return _nested({k: v if k == "asNumber" else str(v) for k, v in settings.items()})


def _nested(settings: dict[str, Any]) -> dict[str, Any]:
    """Put a Node's settings where v3 has them: of VXLAN beside, all others in `bgp`."""
    beside = {key: value for key, value in settings.items() if key in _BESIDE_BGP}
    bgp = {key: value for key, value in settings.items() if key not in _BESIDE_BGP}
    return beside | ({"bgp": bgp} if bgp else {})


_BESIDE_BGP = (
    "ipv4VXLANTunnelAddr",
    "vxlanTunnelMACAddr",
    "ipv6VXLANTunnelAddr",
    "vxlanTunnelMACAddrV6",
)
# v3's field → the annotation that Calico keeps it in, on Kubernetes's Node.
_NODE_ANNOTATIONS = {
    "ipv4Address": "IPv4Address",
    "ipv6Address": "IPv6Address",
    "asNumber": "ASNumber",
    "ipv4IPIPTunnelAddr": "IPv4IPIPTunnelAddr",
    "routeReflectorClusterID": "RouteReflectorClusterID",
    "ipv4VXLANTunnelAddr": "IPv4VXLANTunnelAddr",
    "vxlanTunnelMACAddr": "VXLANTunnelMACAddr",
    "ipv6VXLANTunnelAddr": "IPv6VXLANTunnelAddr",
    "vxlanTunnelMACAddrV6": "VXLANTunnelMACAddrV6",
}


def node_document(node: Node) -> dict[str, Any]:
    """Return a Node as it is stored: Kubernetes's own, with Calico's annotations."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": dict(node.labels),
            "annotations": {k: v for k, v in node_annotations(node).items() if v is not None},
        },
    }


def node_annotations(node: Node) -> dict[str, str | None]:
    """Return the annotations that say what a node is; None: it has none of that name.

    One that can't be read is its writer's to correct, unless there is a value for it.
    """
    settings = _node_settings(node)
    return {
        _ANNOTATION + annotation: str(settings[key]) if key in settings else None
        for key, annotation in _NODE_ANNOTATIONS.items()
        if key in settings or _ANNOTATION + annotation not in node.unread
    }


def parse_stored_node(name: str, metadata: Fields, *, status: Fields) -> Node:
    """Read a stored Node; annotations and labels of others are none of our business.

    Each node's kubelet may annotate its Node: one node's mistake must not hide the others from
    everybody, so what says nothing that can be is left out, and named.
    """
    annotations = metadata.child("annotations")
    settings: dict[str, str] = {}
    unread = []
    for key, annotation in _NODE_ANNOTATIONS.items():
        try:
            settings |= _node_setting(name, key, annotations.text(_ANNOTATION + annotation))
        except InvalidInput:
            unread.append(_ANNOTATION + annotation)
    node = parse_node(name, _spec_fields(settings), labels=parse_labels(metadata))
    uid = metadata.text("uid") or ""
    internal_ips = _internal_ips(status.get("addresses"))
    return replace(node, internal_ips=internal_ips, uid=uid, unread=tuple(unread))


def _node_setting(name: str, key: str, text: str | None) -> dict[str, str]:
    """Return one setting of a Node as it is spelled, if there is one and it can be."""
    if not text:
        return {}
    said = {key: text}
    parse_node(name, _spec_fields(said))
    return said


def _spec_fields(settings: dict[str, str]) -> Fields:
    return Fields(_nested(settings), path="metadata.annotations")


def _internal_ips(addresses: object) -> tuple[IPAddress, ...]:
    """Return the first InternalIP of each IP version, IPv4's first; what is none is left out."""
    first: dict[int, IPAddress] = {}
    for one in addresses if isinstance(addresses, list) else ():
        if isinstance(one, dict) and one.get("type") == "InternalIP":
            with contextlib.suppress(ValueError):
                address = ip_address(str(one.get("address")))
                first.setdefault(address.version, address)
    return tuple(first[version] for version in sorted(first))


def parse_labels(metadata: Fields) -> tuple[tuple[str, str], ...]:
    """Read the labels of an object, sorted."""
    raw = metadata.get("labels") or {}
    labels = metadata.child("labels")
    keys = raw if isinstance(raw, dict) else ()
    return tuple(sorted((str(key), labels.text(key) or "") for key in keys))
