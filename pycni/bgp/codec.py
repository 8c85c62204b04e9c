"""ExaBGP 5.0's spelling: JSON lines to values, values to configuration text and commands.

Pure.  The text is rendered from typed values only: addresses and numbers cannot carry syntax, and
the one free string, a password, is refused when it holds a character that ExaBGP's parser could
take for its own.  Decoding is defensive: a line that isn't understood is an error of its own kind,
never a crash, because peers have influence on what stands in it.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pycni.errors import InvalidInput
from pycni.model.bgp import (
    MAX_TTL,
    Advertisement,
    BgpEvent,
    EndOfRib,
    Family,
    Neighbour,
    Origin,
    Path,
    PathsChanged,
    PeerDown,
    PeerOpened,
    PeerUp,
    is_large,
    parse_community,
)
from pycni.model.network import IPAddress, IPNetwork
from pycni.model.prefix import read_address, read_prefix
from pycni.model.schema_fields import check_password

MULTIPROTOCOL_CAPABILITY = "1"
GRACEFUL_RESTART_CAPABILITY = "64"
_TOLD = "receive { parsed; open; update; notification; refresh; } send { parsed; update; }"

_FAMILIES = frozenset(family.value for family in Family)

# What it says of each session when SIGTERM ends it.  The end of the process is what counts: until
# then the peers' paths are as good as when it dies without a word.
_OWN_END = "stop, message [shutting down]"

_DEFECTS = (
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,  # int() of Infinity, which Python's JSON knows
    RecursionError,  # brackets without end
)


class NotUnderstood(Exception):
    """A line of ExaBGP that is no event we know how to read."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An UPDATE on its way to a peer: what it withdraws, and the family whose End-of-RIB it is."""

    peer: IPAddress
    withdrawn: tuple[IPNetwork, ...] = ()
    end_of_rib: Family | None = None


# --- decoding -----------------------------------------------------------------------------------


def decode(line: bytes) -> tuple[BgpEvent | Sent, ...]:
    """Turn one JSON line of ExaBGP into events; lines that mean nothing to us give none."""
    try:
        # The library would first guess at the encoding: a fifth of the time.
        return tuple(_events(json.loads(line.decode())))
    except _DEFECTS as exc:
        text = line[:200].decode("utf-8", "replace")
        raise NotUnderstood(f"cannot read {text!r}: {exc}") from exc


def _events(document: Mapping[str, object]) -> Iterator[BgpEvent | Sent]:
    neighbor = document.get("neighbor")
    if not isinstance(neighbor, dict):
        return
    peer = _address(neighbor["address"]["peer"])
    match document.get("type"):
        case "state":
            yield from _state(peer, neighbor)
        case "open" if neighbor.get("direction") == "receive":
            yield _open(peer, neighbor["open"]["capabilities"])
        case "update" if neighbor.get("direction") == "receive":
            yield from _update(peer, neighbor["message"])
        case "update" if neighbor.get("direction") == "send":
            yield _sent(peer, neighbor["message"])
        case _:
            return


def _state(peer: IPAddress, neighbor: Mapping[str, object]) -> Iterator[BgpEvent]:
    # "connected" says only that TCP is up, and it comes without a matching end: no event.
    if neighbor["state"] == "up":
        yield PeerUp(peer)
    elif neighbor["state"] == "down":
        reason = str(neighbor.get("reason", "no reason given"))
        if reason == _OWN_END:
            return
        # A NOTIFICATION in either direction ends a session for good (RFC 4724, section 4); so
        # does our own removal of the neighbour ("stop, message [removed]").
        is_graceful = not reason.startswith(("notification", "stop"))
        yield PeerDown(peer, reason=reason, is_graceful=is_graceful)


def _open(peer: IPAddress, capabilities: Mapping[str, dict[str, object]]) -> PeerOpened:
    # Without the multiprotocol capability a session carries IPv4 (RFC 4760, section 8).
    named = capabilities.get(MULTIPROTOCOL_CAPABILITY, {}).get("families", ["ipv4/unicast"])
    families = frozenset(f for f in Family if f.value.replace(" ", "/") in _strings(named))
    restart = capabilities.get(GRACEFUL_RESTART_CAPABILITY)
    if restart is None:
        return PeerOpened(peer, restart_time_s=None, preserved=frozenset(), families=families)
    # ExaBGP's labels are swapped: the forwarding bit (F) of a family shows as "restart".
    flags = restart["address-family-flags"]
    if not isinstance(flags, dict):
        raise TypeError("address-family-flags is no object")
    preserved = {f for f in Family if "restart" in flags.get(f.value.replace(" ", "/"), ())}
    return PeerOpened(
        peer,
        restart_time_s=int(str(restart["time"])),
        preserved=frozenset(preserved),
        families=families,
    )


def _strings(value: object) -> list[str]:
    if not isinstance(value, list):
        raise TypeError("families is no list")
    return [str(item) for item in value]


def _update(peer: IPAddress, message: Mapping[str, dict[str, object]]) -> Iterator[BgpEvent]:
    if "eor" in message:
        yield EndOfRib(peer, _ended_family(message["eor"]))
        return
    update = message.get("update", {})
    announced = tuple(_announced(peer, update))
    withdrawn = tuple(_withdrawn(update.get("withdraw", {})))
    if announced or withdrawn:
        yield PathsChanged(peer, announced=announced, withdrawn=withdrawn)


def _sent(peer: IPAddress, message: Mapping[str, dict[str, object]]) -> Sent:
    if "eor" in message:
        return Sent(peer, end_of_rib=_ended_family(message["eor"]))
    update = message.get("update", {})
    return Sent(peer, withdrawn=tuple(_withdrawn(update.get("withdraw", {}))))


def _ended_family(eor: Mapping[str, object]) -> Family:
    return Family(f"{eor['afi']} {eor['safi']}")


def _announced(peer: IPAddress, update: Mapping[str, object]) -> Iterator[Path]:
    announce = update.get("announce", {})
    if not isinstance(announce, dict) or not announce:
        return
    attributes = update.get("attribute", {})
    if not isinstance(attributes, dict):
        raise TypeError("attribute is no object")
    as_path = _as_path(attributes.get("as-path", {}))
    origin = Origin[str(attributes.get("origin", "incomplete")).upper()]
    said = (*attributes.get("community", ()), *attributes.get("large-community", ()))
    communities = frozenset(":".join(map(str, one)) for one in said)
    local_pref = int(attributes.get("local-preference", 100))
    med = int(attributes.get("med", 0))
    for family in _known_families(announce):
        for hop, entries in announce[family].items():
            next_hop = _address(hop)
            if next_hop.is_link_local:  # the second next hop of an IPv6 update (RFC 2545)
                continue
            for entry in entries:
                yield Path(
                    nlri=_prefix(entry["nlri"]),
                    next_hop=next_hop,
                    peer=peer,
                    as_path=as_path,
                    local_pref=local_pref,
                    med=med,
                    origin=origin,
                    communities=communities,
                )


def _withdrawn(withdraw: object) -> Iterator[IPNetwork]:
    if not isinstance(withdraw, dict):
        raise TypeError("withdraw is no object")
    for family in _known_families(withdraw):
        for entry in withdraw[family]:
            yield _prefix(entry["nlri"])


def _address(value: object) -> IPAddress:
    # The library would take the number 1 for 0.0.0.1.
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no address")
    return read_address(value)


def _prefix(value: object) -> IPNetwork:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no prefix")
    return read_prefix(value)


def _known_families(families: Iterable[str]) -> Iterator[str]:
    return (family for family in families if family in _FAMILIES)


def _as_path(segments: object) -> tuple[int, ...]:
    """Flatten AS_PATH; an AS_SET counts as one hop (RFC 4271, 9.1.2.2 a)."""
    if not isinstance(segments, dict):
        raise TypeError("as-path is no object")
    numbers: list[int] = []
    for segment in segments.values():
        values = [int(v) for v in segment["value"]]
        numbers += values[:1] if segment["element"] == "as-set" else values
    return tuple(numbers)


def configured_peers(line: bytes) -> frozenset[IPAddress] | None:
    """Read the answer of `show neighbor json`: the peers configured; None when it is no answer."""
    if not line.startswith(b"["):
        return None
    try:
        return frozenset(_address(n["peer"]["address"]) for n in json.loads(line))
    except _DEFECTS as exc:
        raise NotUnderstood(f"cannot read the list of neighbours: {exc}") from exc


# --- encoding -----------------------------------------------------------------------------------


def render_configuration(
    neighbours: Sequence[Neighbour], *, run: Sequence[str], nudges: Mapping[IPAddress, int]
) -> str:
    """Render ExaBGP's configuration: the helper process, then one block per neighbour.

    The process stands first because ExaBGP refuses a reference to one that it has not read yet.
    A changed count in `nudges` makes a reload start that neighbour anew: it shows as `host-name`,
    which ExaBGP compares but never sends.  It is the only way to reset its reconnect back-off.
    """
    command = " ".join(_plain_word(word) for word in run)
    blocks = [f"process agent {{\n  run {command};\n  encoder json;\n}}\n"]
    blocks += [_neighbor_block(n, nudge=nudges.get(n.peer, 0)) for n in neighbours]
    return "\n".join(blocks)


def _neighbor_block(neighbour: Neighbour, *, nudge: int) -> str:
    restart = f"{neighbour.restart_time_s:d}" if neighbour.restart_time_s else "disable"
    families = " ".join(f"{f.value};" for f in Family if f in neighbour.families)
    lines = [
        f"router-id {neighbour.router_id};",
        f"local-address {neighbour.local};",
        f"local-as {neighbour.local_as:d};",
        f"peer-as {neighbour.peer_as:d};",
        f"hold-time {neighbour.hold_time_s:d};",
        f"host-name pycni-{nudge:d};",
        # Without manual-eor End-of-RIB goes out before our routes and peers drop everything.
        "manual-eor true;",
        "adj-rib-in false;",
        "adj-rib-out true;",
        "group-updates true;",
        f"family {{ {families} }}",
        f"capability {{ asn4 enable; route-refresh enable; graceful-restart {restart}; }}",
        f"api {{ processes [ agent ]; neighbor-changes; {_TOLD} }}",
    ]
    if neighbour.has_extended_next_hop:
        lines.append(f"nexthop {{ {Family.IPV4.value} ipv6; }}")
    # Without it ExaBGP calls the port that it listens on itself, which need not be the peer's.
    lines.append(f"connect {neighbour.port:d};")
    if neighbour.least_ttl is not None:
        lines += [f"outgoing-ttl {MAX_TTL:d};", f"incoming-ttl {neighbour.least_ttl:d};"]
    if neighbour.password is not None:
        password = check_password(neighbour.password, path="the BGP password")
        lines.append(f'md5-password "{password}";')
    body = "".join(f"  {line}\n" for line in lines)
    return f"neighbor {neighbour.peer} {{\n{body}}}\n"


def mistake_in(neighbour: Neighbour) -> str | None:
    """Return why a neighbour can't be configured, None when it can.

    One bad neighbour must not cost the others their sessions.
    """
    try:
        _neighbor_block(neighbour, nudge=0)
    except InvalidInput as exc:
        return str(exc)
    return None


def _plain_word(word: str) -> str:
    if not word or not all(c.isalnum() or c in "/._-+@%:=," for c in word):
        raise InvalidInput(f"cannot use {word!r} in ExaBGP's configuration: move it elsewhere")
    return word


def announce(advertisement: Advertisement, *, peers: Sequence[IPAddress] = ()) -> str:
    """Return the command that announces a prefix to these peers, or to all that are configured."""
    route = f"announce route {advertisement.nlri} next-hop {advertisement.next_hop}"
    return f"{_selected(peers)}{route}{_communities(advertisement.communities)}"


def _communities(communities: Iterable[str]) -> str:
    """Spell communities, numbers and colons alone, as attributes of a route."""
    checked = sorted(parse_community(one) for one in communities)
    words = {
        "community": [one for one in checked if not is_large(one)],
        "large-community": [one for one in checked if is_large(one)],
    }
    return "".join(f" {name} [ {' '.join(own)} ]" for name, own in words.items() if own)


def withdraw(advertisement: Advertisement, *, peers: Sequence[IPAddress] = ()) -> str:
    """Return the command that withdraws a prefix from these peers, or from all."""
    route = f"withdraw route {advertisement.nlri} next-hop {advertisement.next_hop}"
    return f"{_selected(peers)}{route}"


def _selected(peers: Sequence[IPAddress]) -> str:
    return " , ".join(f"neighbor {peer}" for peer in peers) + " " if peers else ""


def end_of_rib(family: Family, *, peer: IPAddress) -> str:
    """Return the command that sends End-of-RIB to one peer."""
    return f"neighbor {peer} announce eor {family.value}"
