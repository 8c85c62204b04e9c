"""What operators write, pools, peers, nodes and settings ↔ the `spec` of Calico's documents.

`projectcalico.org/v3` and `crd.projectcalico.org/v1` share these; only a Node is stored otherwise
(as annotations of Kubernetes's own Node).  A field that is not read here is refused by name.
"""

import re
from typing import Any, assert_never

from pycni.errors import InvalidInput
from pycni.model.resources import (
    DEFAULT_AS_NUMBER,
    DEFAULT_BLOCK_SIZE,
    AssignmentMode,
    BGPConfiguration,
    BGPPeer,
    IPAMConfig,
    IPPool,
    IPReservation,
    Node,
    PoolUse,
    TunnelMode,
)
from pycni.model.schema_fields import (
    Fields,
    check_password,
    parse_address,
    parse_choice,
    parse_network,
)
from pycni.model.selector import selector

Config = IPPool | IPReservation | Node | BGPPeer | BGPConfiguration | IPAMConfig

_ANNOTATION = "projectcalico.org/"
_MAX_PORT = 65535
_BGP_PORT = 179
_MAX_BLOCKS = 2**31
_MAX_COOLDOWN_S = 1200
_DEFAULT_USES = (PoolUse.WORKLOAD, PoolUse.TUNNEL)
_PEER = re.compile(
    r"\[(?P<v6>[^\[\]]+)\](?::(?P<v6port>\d{1,5}))?|(?P<v4>[^:]+):(?P<v4port>\d{1,5})"
)


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
            return _peer_spec(value)
        case BGPConfiguration():
            return {
                "asNumber": value.as_number,
                "nodeToNodeMeshEnabled": value.is_node_mesh_enabled,
                "listenPort": value.listen_port,
            }
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
    node_selector = spec.text("nodeSelector") or "all()"
    try:
        selector(node_selector)
    except InvalidInput as exc:
        raise InvalidInput(f"{spec.at('nodeSelector')}: {exc}") from None
    uses = [
        parse_choice(use, PoolUse, path=f"{spec.at('allowedUses')}[{index}]")
        for index, use in enumerate(spec.items("allowedUses"))
    ]
    block_size = spec.integer("blockSize", within=sizes)
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


def parse_peer(name: str, spec: Fields) -> BGPPeer:
    """Read a BGPPeer; `peerIP` may carry a port ("10.0.0.1:1179", "[fd00::1]:1179")."""
    text = spec.need("peerIP")
    match = _PEER.fullmatch(text)
    host = (match["v6"] or match["v4"]) if match else text
    port = (match["v6port"] or match["v4port"] or _BGP_PORT) if match else _BGP_PORT
    if not 0 < int(port) <= _MAX_PORT:
        raise InvalidInput(f"{spec.at('peerIP')}: port {port} is outside 1 to {_MAX_PORT}")
    as_number = spec.as_number("asNumber")
    if as_number is None:
        raise InvalidInput(f"{spec.at('asNumber')}: is missing")
    return BGPPeer(
        name=name,
        peer_ip=parse_address(host, path=spec.at("peerIP")),
        as_number=as_number,
        node=spec.name("node"),
        port=int(port),
        password=_password(spec),
    )


def _password(spec: Fields) -> str | None:
    if isinstance(spec.get("password"), dict):
        raise InvalidInput(
            f"{spec.at('password')}: references to secrets are not supported; give the text"
        )
    text = spec.text("password")
    return None if text is None else check_password(text, path=spec.at("password"))


def _peer_spec(peer: BGPPeer) -> dict[str, Any]:
    address = f"[{peer.peer_ip}]" if peer.peer_ip.version == 6 else str(peer.peer_ip)
    has_port = peer.port != _BGP_PORT
    spec: dict[str, Any] = {
        "peerIP": f"{address}:{peer.port}" if has_port else str(peer.peer_ip),
        "asNumber": peer.as_number,
    }
    if peer.node is not None:
        spec["node"] = peer.node
    if peer.password is not None:
        spec["password"] = peer.password
    return spec


def _only_default(name: str) -> str:
    if name != "default":
        raise InvalidInput(f"metadata.name: {name!r} is not supported; the name must be default")
    return name


def parse_bgp_configuration(name: str, spec: Fields) -> BGPConfiguration:
    """Read a BGPConfiguration."""
    port = spec.integer("listenPort", within=range(1, _MAX_PORT + 1))
    return BGPConfiguration(
        name=_only_default(name),
        as_number=spec.as_number("asNumber") or DEFAULT_AS_NUMBER,
        is_node_mesh_enabled=spec.boolean("nodeToNodeMeshEnabled", default=True),
        listen_port=_BGP_PORT if port is None else port,
    )


def parse_ipam_config(name: str, spec: Fields) -> IPAMConfig:
    """Read an IPAMConfig (IPAMConfiguration in v3)."""
    return IPAMConfig(
        name=_only_default(name),
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
        labels=labels,
    )
    bgp.finish()
    return node


def _node_settings(node: Node) -> dict[str, Any]:
    settings = {
        "ipv4Address": node.ipv4,
        "ipv6Address": node.ipv6,
        "asNumber": node.as_number,
        "ipv4IPIPTunnelAddr": node.ipip_tunnel_address,
    }
    return {key: value for key, value in settings.items() if value is not None}


def _node_spec(node: Node) -> dict[str, Any]:
    bgp = _node_settings(node)
    return {"bgp": {k: v if k == "asNumber" else str(v) for k, v in bgp.items()}} if bgp else {}


# v3's field → the annotation that Calico keeps it in, on Kubernetes's Node.
_NODE_ANNOTATIONS = {
    "ipv4Address": "IPv4Address",
    "ipv6Address": "IPv6Address",
    "asNumber": "ASNumber",
    "ipv4IPIPTunnelAddr": "IPv4IPIPTunnelAddr",
}


def node_document(node: Node) -> dict[str, Any]:
    """Return a Node as it is stored: Kubernetes's own, with Calico's annotations."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": dict(node.labels),
            "annotations": {
                _ANNOTATION + _NODE_ANNOTATIONS[key]: str(value)
                for key, value in _node_settings(node).items()
            },
        },
    }


def parse_stored_node(name: str, metadata: Fields) -> Node:
    """Read a stored Node; annotations and labels of others are none of our business."""
    annotations = metadata.child("annotations")
    bgp = {
        key: text
        for key, annotation in _NODE_ANNOTATIONS.items()
        if (text := annotations.text(_ANNOTATION + annotation))
    }
    spec = Fields({"bgp": bgp}, path="metadata.annotations")
    return parse_node(name, spec, labels=parse_labels(metadata))


def parse_labels(metadata: Fields) -> tuple[tuple[str, str], ...]:
    """Read the labels of an object, sorted."""
    raw = metadata.get("labels") or {}
    labels = metadata.child("labels")
    keys = raw if isinstance(raw, dict) else ()
    return tuple(sorted((str(key), labels.text(key) or "") for key in keys))
