"""Cases of BGP as YAML: what is given to a cluster, and what each node then makes of it.

A case has a `name` (docs/bgp-cases.md says whose it is), what is `given`, and per node what it
sees `then`:

- `sessions`: each as "ADDRESS port P as AS", and whatever else is not the usual;
- `tells`: what each peer hears, by its address, or "v4" and "v6" for all others of that version;
- `hears`: by the peer's address each prefix that it might announce, with the interface by which it
  would then be reached, or why it isn't.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path as File
from typing import Any

import yaml

from pycni.model.bgp import Neighbour, Path
from pycni.model.network import Address, IPAddress, IPNetwork, Link
from pycni.model.resources import BlockAffinity, IPPool, Node
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer, SecretKey
from pycni.model.schema import from_stored, to_stored
from pycni.model.schema_service import parse_service, parse_slice
from pycni.model.schema_yaml import parse_document
from pycni.plan.exports import wanted_adj_ribs_out
from pycni.plan.imports import Accepted, judge
from pycni.plan.inputs import Inputs, Settings
from pycni.plan.peering import own_as, wanted_neighbours
from tests.unit.plan.samples import pod

_DIRECTORY = File(__file__).with_name("bgp_cases")
_KINDS = {
    "nodes": "Node",
    "pools": "IPPool",
    "peers": "BGPPeer",
    "filters": "BGPFilter",
    "bgp": "BGPConfiguration",
}


@dataclass(frozen=True)
class Case:
    """One case as the file has it."""

    name: str
    given: Mapping[str, Any]
    then: Mapping[str, Mapping[str, Any]]


@cache
def stories(name: str) -> tuple[Case, ...]:
    """Return the cases of a directory; all of its files share what its `given.yaml` names."""
    files = sorted((_DIRECTORY / name).glob("*.yaml"))
    shared = "".join(file.read_text() for file in files if file.stem == "given")
    documents = [yaml.safe_load(shared + f.read_text()) for f in files if f.stem != "given"]
    cases = (case for document in documents for case in document["cases"])
    return tuple(Case(one["name"], one["given"], one["then"]) for one in cases)


@cache
def refusals() -> tuple[dict[str, Any], ...]:
    """Return what is refused: `name`, the document's `kind` and `spec`, and what `says` why."""
    documents: list[dict[str, Any]] = yaml.safe_load((_DIRECTORY / "refused.yaml").read_text())
    return tuple(documents)


def document(kind: str, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object as people write it; labels stand beside the fields of its `spec`."""
    spec = {key: value for key, value in body.items() if key != "labels"}
    metadata = {"name": name} | ({"labels": body["labels"]} if "labels" in body else {})
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": metadata,
        "spec": spec,
    }


def facts(given: Mapping[str, Any], *, node: str) -> Inputs:
    """Return what a node knows once everything that is given has been stored and read again."""
    made = Inputs(Settings(node))
    for section, kind in _KINDS.items():
        for name, body in given.get(section, {}).items():
            _learn(made, parse_document(document(kind, name, body or {})))
    for cidr, claim in given.get("blocks", {}).items():
        spec = {"state": "confirmed"} | (claim if isinstance(claim, dict) else {"node": claim})
        stored = from_stored(BlockAffinity, {"spec": {"cidr": cidr, "deleted": "false"} | spec})
        made.affinities[stored.cidr] = stored
    for address, body in given.get("borrowed", {}).items():
        made.borrowed[ip_network(address)] = body["node"]
        if body["node"] == node:
            one = pod(address, veth=body["interface"], container=body["interface"])
            made.set_endpoint(one.key, one)
    _learn_services(made, given.get("services", ()))
    for place, password in given.get("secrets", {}).items():
        made.secrets[SecretKey(*place.split("/"))] = password
    own = made.node
    interfaces = (own.ipv4, own.ipv6) if own is not None else ()
    made.addresses = {Address("eth0", one) for one in interfaces if one is not None}
    made.links = {"eth0": Link("eth0", 2, mtu=1500, is_up=True)}
    return made


def _learn_services(made: Inputs, documents: Iterable[object]) -> None:
    for one in documents:
        if (service := parse_service(one)) is not None:
            made.services[service.name] = service
        if (part := parse_slice(one)) is not None:
            made.slices.setdefault(part.service, {})[part.name] = part


def _learn(made: Inputs, written: object) -> None:
    match written:
        case Node():
            made.set_node(written.name, written)
        case IPPool():
            made.pools[written.name] = from_stored(IPPool, to_stored(written))
        case BGPPeer():
            made.peers[written.name] = from_stored(BGPPeer, to_stored(written))
        case BGPFilter():
            made.filters[written.name] = from_stored(BGPFilter, to_stored(written))
        case BGPConfiguration():
            made.set_bgp(written.node, from_stored(BGPConfiguration, to_stored(written)))


# --- what a node then sees ----------------------------------------------------------------------


def sessions(made: Inputs) -> list[str]:
    """Return the sessions that a node wants, with everything that is not the usual."""
    return [_session(one, own=own_as(made)) for one in wanted_neighbours(made)]


def _session(one: Neighbour, *, own: int) -> str:

    words = [f"{one.peer} port {one.port} as {one.peer_as}"]
    words += [f"from {one.local_as}"] if one.local_as != own else []
    words += [f"password {one.password}"] if one.password is not None else []
    words += [f"restart {one.restart_time_s}"] if one.restart_time_s != 120 else []
    words += [f"within {one.hops}"] if one.hops is not None else []
    return ", ".join(words)


def tells(made: Inputs) -> dict[str, list[str]]:
    """Return what each peer hears, with the communities."""
    neighbours = wanted_neighbours(made)
    wanted = wanted_adj_ribs_out(made, neighbours)
    told = {}
    for one in neighbours:
        own = (a for a in wanted.to(one.peer) if a.family in one.families)
        assert all(a.next_hop == one.local for a in wanted.to(one.peer) if a.family in one.families)
        texts = (" ".join([str(a.nlri), *sorted(a.communities)]) for a in own)
        told[str(one.peer)] = sorted(texts)
    return told


def expected_tells(made: Inputs, then: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return what each peer of a node is to hear, as a case says it."""
    named = {str(one.peer): f"v{one.peer.version}" for one in wanted_neighbours(made)}
    return {peer: sorted(then.get(peer, then.get(rest, []))) for peer, rest in named.items()}


def hears(made: Inputs, peer: str) -> dict[str, str]:
    """Judge what a peer might announce: a node its own, anybody else what all other nodes have."""
    sender = ip_address(peer)
    return {
        str(prefix): _judged(made, prefix, sender)
        for prefix in _announceable(made, made.nodes_by_address.get(sender))
        if prefix.version == sender.version
    }


def _announceable(made: Inputs, node: Node | None) -> Iterable[IPNetwork]:
    owners = {cidr: one.node for cidr, one in made.affinities.items()} | made.borrowed
    if node is None:
        return (prefix for prefix, owner in owners.items() if owner != made.settings.node)
    return (prefix for prefix, owner in owners.items() if owner == node.name)


def _judged(made: Inputs, prefix: IPNetwork, sender: IPAddress) -> str:
    verdict = judge(made, Path(prefix, next_hop=sender, peer=sender))
    if isinstance(verdict, Accepted):
        return verdict.next_hop.oif
    return verdict.reason
