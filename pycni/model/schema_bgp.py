"""BGPPeer and BGPConfiguration ↔ the `spec` of Calico's documents."""

import re
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

from pycni.errors import InvalidInput
from pycni.model.bgp import MAX_TTL, parse_community
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.resources_bgp import (
    DEFAULT_AS_NUMBER,
    BGPConfiguration,
    BGPPeer,
    LogSeverity,
    Password,
    PrefixAdvertisement,
    SecretKey,
    node_of,
)
from pycni.model.schema_fields import (
    Fields,
    check_name,
    check_password,
    check_selector,
    parse_address,
    parse_choice,
)
from pycni.model.service_ranges import ServiceRanges

_MAX_PORT = 65535
_MAX_RESTART_S = 4095  # 12 bits (RFC 4724, section 3)
_MAX_OWN_AS = 255
_HOST = re.compile(
    r"\[(?P<v6>[^\[\]]+)\](?::(?P<v6port>\d{1,5}))?|(?P<v4>[^:]+):(?P<v4port>\d{1,5})"
)
# A duration as Go writes it, in whole seconds.
_DURATION = re.compile(r"(?=.)(?:(\d{1,4})h)?(?:(\d{1,4})m)?(?:(\d{1,5})s)?", re.ASCII)
_COMMUNITY_NAME = re.compile(r"[a-zA-Z0-9_.-]{1,128}", re.ASCII)
_INTERFACES = re.compile(r"[a-zA-Z0-9_.*-]{1,15}", re.ASCII)
_NEXT_HOP_MODES = ("Auto", "Self", "Keep")
_REVERSE_PEERING = ("Auto", "Manual")
_SECRETS_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_BIND_MODES = ("NodeIP", "None")
# Loopback, link-local and multicast (RFC 6890, RFC 4291).
_NO_SERVICES = tuple(
    map(
        ip_network,
        ("127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "::1/128", "fe80::/10", "ff00::/8"),
    )
)
_AGGREGATION = ("Enabled", "Disabled")
_OF_ONE_NODE = ("communities", "listenPort", "logSeverityScreen", "prefixAdvertisements")
# With what each says in any case, which a server may have added: Calico's adds the last of these.
_OF_ALL_NODES: Mapping[str, object] = {
    "asNumber": None,
    "nodeToNodeMeshEnabled": None,
    "nodeMeshPassword": None,
    "nodeMeshMaxRestartTime": None,
    "serviceClusterIPs": [],
    "serviceExternalIPs": [],
    "serviceLoadBalancerIPs": [],
    "bindMode": None,
    "ignoredInterfaces": [],
    "serviceLoadBalancerAggregation": "Enabled",
}


def parse_peer(name: str, spec: Fields) -> BGPPeer:
    """Read a BGPPeer; `peerIP` may carry a port ("10.0.0.1:1179", "[fd00::1]:1179")."""
    address, port = _host(spec)
    peer_selector = check_selector(spec, "peerSelector")
    if address is None and peer_selector is None:
        raise InvalidInput(
            f"{spec.at('peerIP')}: is missing; name a peer, or nodes by peerSelector"
            f"{spec.hint('peerIP')}"
        )
    as_number = spec.as_number("asNumber")
    if address is not None and as_number is None:
        raise InvalidInput(f"{spec.at('asNumber')}: is missing{spec.hint('asNumber')}")
    _check_next_hop(spec)
    spec.expect("sourceAddress", "UseNodeIP")
    return BGPPeer(
        name=name,
        peer_ip=address,
        as_number=as_number,
        node=spec.name("node"),
        port=port,
        password=_password(spec, "password"),
        node_selector=check_selector(spec, "nodeSelector"),
        peer_selector=peer_selector,
        local_as=spec.as_number("localASNumber"),
        restart_time_s=_seconds(spec, "maxRestartTime"),
        allowed_own_as=spec.integer("numAllowedLocalASNumbers", within=range(_MAX_OWN_AS + 1)) or 0,
        # 0 is off, as with Calico.
        hops=spec.integer("ttlSecurity", within=range(MAX_TTL + 1)) or None,
        filters=_filters(spec),
        is_called_back=_choice(spec, "reversePeering", _REVERSE_PEERING) != "Manual",
    )


def _filters(spec: Fields) -> tuple[str, ...]:
    path = spec.at("filters")
    names = []
    for index, name in enumerate(spec.items("filters")):
        if not isinstance(name, str):
            raise InvalidInput(
                f"{path}[{index}]: must be the name of a BGPFilter, not {name!r:.60}"
            )
        names.append(check_name(name, path=f"{path}[{index}]"))
    return tuple(names)


def _host(spec: Fields) -> tuple[IPAddress | None, int | None]:
    text = spec.text("peerIP")
    if not text:
        return None, None
    match = _HOST.fullmatch(text)
    host = (match["v6"] or match["v4"]) if match else text
    written = (match["v6port"] or match["v4port"]) if match else None
    port = None if written is None else int(written)
    if port is not None and not 0 < port <= _MAX_PORT:
        raise InvalidInput(f"{spec.at('peerIP')}: port {port} is outside 1 to {_MAX_PORT}")
    return parse_address(host, path=spec.at("peerIP")), port


def _check_next_hop(spec: Fields) -> None:
    """Accept each way to treat the next hop of what is passed on: nodes pass nothing on."""
    spec.boolean("keepOriginalNextHop", default=False)
    _choice(spec, "nextHopMode", _NEXT_HOP_MODES)


def _choice(spec: Fields, name: str, known: tuple[str, ...]) -> str | None:
    value = spec.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or value not in known:
        raise InvalidInput(f"{spec.at(name)}: {value!r:.60} is none of {', '.join(known)}")
    return value


def _password(spec: Fields, name: str) -> Password | None:
    """Read a password: where a cluster keeps it, as Calico has it, or the text itself."""
    if isinstance(spec.get(name), dict):
        reader = spec.child(name)
        place = reader.child("secretKeyRef")
        found = SecretKey(check_name(place.need("name"), path=place.at("name")), place.need("key"))
        if not _SECRETS_KEY.fullmatch(found.key):
            raise InvalidInput(
                f"{place.at('key')}: {found.key!r} is no key of a Secret: write up to 253 letters,"
                " digits, '-', '_' and '.'"
            )
        # Whether there has to be one is not a Secret's reader's to say: there is no other password.
        place.skip("optional")
        place.finish()
        reader.finish()
        return found
    text = spec.text(name)
    return None if text is None else check_password(text, path=spec.at(name))


def _password_spec(password: Password | None) -> object:
    if isinstance(password, SecretKey):
        return {"secretKeyRef": {"name": password.secret, "key": password.key}}
    return password


def _seconds(spec: Fields, name: str) -> int | None:
    text = spec.text(name)
    if text is None:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidInput(f"{spec.at(name)}: {text!r} is no duration; write whole seconds: 120s")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = (hours * 60 + minutes) * 60 + seconds
    if total > _MAX_RESTART_S:
        raise InvalidInput(f"{spec.at(name)}: {total} s is over {_MAX_RESTART_S} s (RFC 4724)")
    return total


def peer_spec(peer: BGPPeer) -> dict[str, Any]:
    """Return a BGPPeer's `spec`."""
    restart = peer.restart_time_s
    said = {
        "peerIP": _written(peer),
        "peerSelector": peer.peer_selector,
        "asNumber": peer.as_number,
        "node": peer.node,
        "nodeSelector": peer.node_selector,
        "password": _password_spec(peer.password),
        "localASNumber": peer.local_as,
        "maxRestartTime": None if restart is None else f"{restart}s",
        "numAllowedLocalASNumbers": peer.allowed_own_as or None,
        "ttlSecurity": peer.hops,
        "filters": list(peer.filters) or None,
        "reversePeering": None if peer.is_called_back else "Manual",
    }
    return {key: value for key, value in said.items() if value is not None}


def _written(peer: BGPPeer) -> str | None:
    if peer.peer_ip is None:
        return None
    address = f"[{peer.peer_ip}]" if peer.peer_ip.version == 6 else str(peer.peer_ip)
    return str(peer.peer_ip) if peer.port is None else f"{address}:{peer.port}"


def parse_bgp_configuration(name: str, spec: Fields) -> BGPConfiguration:
    """Read a BGPConfiguration: all nodes', or what one node has of its own."""
    _check_whose(name, spec)
    return BGPConfiguration(
        name=name,
        as_number=spec.as_number("asNumber") or DEFAULT_AS_NUMBER,
        is_node_mesh_enabled=spec.boolean("nodeToNodeMeshEnabled", default=True),
        listen_port=spec.integer("listenPort", within=range(1, _MAX_PORT + 1)),
        communities=tuple(_community(reader) for reader in _readers(spec, "communities")),
        prefix_advertisements=tuple(
            _prefix_advertisement(reader) for reader in _readers(spec, "prefixAdvertisements")
        ),
        mesh_password=_password(spec, "nodeMeshPassword"),
        mesh_restart_time_s=_seconds(spec, "nodeMeshMaxRestartTime"),
        services=ServiceRanges(
            cluster=_ranges(spec, "serviceClusterIPs"),
            external=_ranges(spec, "serviceExternalIPs"),
            load_balancer=_ranges(spec, "serviceLoadBalancerIPs"),
            is_aggregating=_choice(spec, "serviceLoadBalancerAggregation", _AGGREGATION)
            != "Disabled",
        ),
        ignored_interfaces=_interfaces(spec, "ignoredInterfaces"),
        log_severity=_severity(spec, "logSeverityScreen"),
        is_bound_to_node_ip=_choice(spec, "bindMode", _BIND_MODES) != "None",
    )


def _check_whose(name: str, spec: Fields) -> None:
    """Refuse an object of no name that means something, and in a node's what is not one node's."""
    if name == "default":
        return
    if not node_of(name):
        raise InvalidInput(
            f"metadata.name: {name!r} is not supported; the name must be default, or node.NAME for"
            " what is one node's own"
        )
    for field, usual in _OF_ALL_NODES.items():
        if spec.get(field) not in (None, usual):
            raise InvalidInput(
                f"{spec.at(field)}: belongs into the BGPConfiguration named default, which holds"
                f" for all nodes; one node's own has {', '.join(_OF_ONE_NODE)} alone"
            )


def _severity(spec: Fields, name: str) -> LogSeverity | None:
    text = spec.text(name)
    # Calico takes it in letters of any case, and "" for none.
    return parse_choice(text.capitalize(), LogSeverity, path=spec.at(name)) if text else None


def _interfaces(spec: Fields, name: str) -> tuple[str, ...]:
    items = spec.items(name)
    for index, text in enumerate(items):
        # As Calico has it: all of them would leave a node no way to anybody.
        if not isinstance(text, str) or not _INTERFACES.fullmatch(text) or not text.strip("*"):
            raise InvalidInput(
                f"{spec.at(name)}[{index}]: {text!r:.60} names no interfaces: write up to 15"
                " letters, digits, '_', '.', '-', and '*' for anything, but not '*' alone"
            )
    return tuple(dict.fromkeys(map(str, items)))


def _ranges(spec: Fields, name: str) -> tuple[IPNetwork, ...]:
    found = []
    for reader in _readers(spec, name):
        is_empty = reader.get("cidr") is None  # Calico's definition lets an entry say nothing
        reader.finish()
        if is_empty:
            continue
        cidr = reader.network("cidr")
        # All of it would be announced by every node, which drops what it would pass on.
        if taken := next((one for one in _NO_SERVICES if _overlap(one, cidr)), None):
            raise InvalidInput(
                f"{reader.at('cidr')}: {cidr} holds {taken}, where no Service has an address:"
                " write the range that they have"
            )
        found.append(cidr)
    return tuple(dict.fromkeys(found))


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def _readers(spec: Fields, name: str) -> list[Fields]:
    items = enumerate(spec.items(name))
    return [Fields(item, path=f"{spec.at(name)}[{index}]") for index, item in items]


def _community(spec: Fields) -> tuple[str, str]:
    name = spec.need("name")
    if not _COMMUNITY_NAME.fullmatch(name):
        raise InvalidInput(
            f"{spec.at('name')}: {name!r} is no name of a community: write up to 128 letters,"
            " digits, '_', '.' and '-'"
        )
    try:
        value = parse_community(spec.need("value"))
    except InvalidInput as exc:
        raise InvalidInput(f"{spec.at('value')}: {exc}") from None
    spec.finish()
    return name, value


def _prefix_advertisement(spec: Fields) -> PrefixAdvertisement:
    cidr, texts = spec.network("cidr"), spec.items("communities")
    spec.finish()
    if not texts or not all(isinstance(text, str) for text in texts):
        raise InvalidInput(
            f"{spec.at('communities')}: must be a list of communities, or of their names, in quotes"
        )
    return PrefixAdvertisement(cidr, tuple(map(str, texts)))


def bgp_configuration_spec(value: BGPConfiguration) -> dict[str, Any]:
    """Return a BGPConfiguration's `spec`."""
    said: dict[str, Any] = {}
    if value.node is None:
        said["asNumber"] = value.as_number
        said["nodeToNodeMeshEnabled"] = value.is_node_mesh_enabled
    communities = [{"name": name, "value": text} for name, text in value.communities]
    prefixes = [
        {"cidr": str(one.cidr), "communities": list(one.communities)}
        for one in value.prefix_advertisements
    ]
    restart = value.mesh_restart_time_s
    more = {
        "listenPort": value.listen_port,
        "communities": communities or None,
        "prefixAdvertisements": prefixes or None,
        "nodeMeshPassword": _password_spec(value.mesh_password),
        "nodeMeshMaxRestartTime": None if restart is None else f"{restart}s",
        "logSeverityScreen": None if value.log_severity is None else value.log_severity.value,
        "bindMode": None if value.is_bound_to_node_ip else "None",
        "ignoredInterfaces": list(value.ignored_interfaces) or None,
        **_ranges_spec(value.services),
    }
    return said | {key: own for key, own in more.items() if own is not None}


def _ranges_spec(ranges: ServiceRanges) -> dict[str, Any]:
    said = {
        "serviceClusterIPs": ranges.cluster,
        "serviceExternalIPs": ranges.external,
        "serviceLoadBalancerIPs": ranges.load_balancer,
    }
    return {
        **{name: [{"cidr": str(cidr)} for cidr in cidrs] or None for name, cidrs in said.items()},
        "serviceLoadBalancerAggregation": None if ranges.is_aggregating else "Disabled",
    }
