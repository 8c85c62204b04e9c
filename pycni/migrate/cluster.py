"""Judge what a cluster's Calico is set to: what pycni carries on, what it can't, what it leaves.

Pure: documents of the API server in, sentences out.  What can't be carried on is refused by name,
because a node that migrated all the same would route or protect its pods otherwise than its
settings say.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pycni.errors import InvalidInput
from pycni.model.resources import (
    IPAMConfig,
    IPPool,
    IPReservation,
    Node,
    PoolUse,
    Resource,
    TunnelMode,
)
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer
from pycni.model.schema import from_stored

Document = Mapping[str, Any]

_CALICO = "/apis/crd.projectcalico.org/v1/"
POOLS = _CALICO + "ippools"
FELIX = _CALICO + "felixconfigurations"
INFORMATION = _CALICO + "clusterinformations"
HOST_ENDPOINTS = _CALICO + "hostendpoints"
NODES = "/api/v1/nodes"
_READ_BY_AGENTS: Mapping[str, tuple[str, type[Resource]]] = {
    POOLS: ("IPPool", IPPool),
    _CALICO + "ipreservations": ("IPReservation", IPReservation),
    _CALICO + "bgpconfigurations": ("BGPConfiguration", BGPConfiguration),
    _CALICO + "bgppeers": ("BGPPeer", BGPPeer),
    _CALICO + "bgpfilters": ("BGPFilter", BGPFilter),
    _CALICO + "ipamconfigs": ("IPAMConfig", IPAMConfig),
}
_POLICIES: Mapping[str, str] = {
    "/apis/networking.k8s.io/v1/networkpolicies": "NetworkPolicy",
    _CALICO + "networkpolicies": "Calico NetworkPolicy",
    _CALICO + "globalnetworkpolicies": "GlobalNetworkPolicy",
}
PATHS = (*_READ_BY_AGENTS, FELIX, INFORMATION, HOST_ENDPOINTS, NODES, *_POLICIES)
"""All that is looked at."""

_SHOWN = 5
UNAVAILABLE = "NetworkUnavailable"
"""The condition of a Node that calico-node sets when it ends; no pods come while it is true."""
# What FelixConfiguration says of another dataplane, or of another name of pods' interfaces.
_FELIX_REFUSED: Mapping[str, tuple[object, str]] = {
    "bpfEnabled": (False, "the eBPF dataplane"),
    "wireguardEnabled": (False, "WireGuard between nodes"),
    "wireguardEnabledV6": (False, "WireGuard between nodes"),
    "interfacePrefix": ("cali", "another name of pods' interfaces"),
}
# What has no bearing on pods' packets, or is pycni's own way as well.
_FELIX_SILENT = frozenset(
    {
        *_FELIX_REFUSED,
        "bpfConnectTimeLoadBalancing",
        "bpfLogLevel",
        "deviceRouteProtocol",
        "floatingIPs",
        "healthEnabled",
        "healthPort",
        "ipipEnabled",
        "logSeverityFile",
        "logSeverityScreen",
        "logSeveritySys",
        "nftablesMode",
        "programClusterRoutes",
        "prometheusMetricsEnabled",
        "prometheusMetricsPort",
        "reportingInterval",
        "usageReportingEnabled",
        "vxlanEnabled",
    }
)


@dataclass(slots=True)
class Verdict:
    """Sentences: what is `refused`, what an operator should mind, what goes on as it is.

    And the nodes that are said to have no network.
    """

    refused: list[str] = field(default_factory=list)
    attention: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    unavailable: set[str] = field(default_factory=set)


def judge(
    documents: Mapping[str, Sequence[Document]], *, unread: Mapping[str, str] | None = None
) -> Verdict:
    """Judge what was listed, by path; `unread` says why a path could not be."""
    verdict = Verdict()
    for path, (name, kind) in _READ_BY_AGENTS.items():
        for document in documents.get(path, ()):
            _judge_read(verdict, document, name=name, kind=kind)
    _judge_filters(verdict, documents)
    for document in documents.get(FELIX, ()):
        _judge_felix(verdict, document)
    for document in documents.get(INFORMATION, ()):
        if _spec(document).get("datastoreReady") is False:
            verdict.refused.append(
                "ClusterInformation says that the datastore is locked (datastoreReady: false):"
                " finish what locked it (calicoctl datastore migrate unlock)"
            )
    for document in documents.get(NODES, ()):
        _judge_node(verdict, document)
    _judge_policies(verdict, documents)
    for path, reason in (unread or {}).items():
        verdict.attention.append(f"not looked at: {path.rsplit('/', 1)[1]} ({reason})")
    return verdict


def _judge_read(verdict: Verdict, document: Document, *, name: str, kind: type[Resource]) -> None:
    """Judge an object that agents read: one that they can't would keep them from all others."""
    title = f"{name} {_name(document)}"
    try:
        value = from_stored(kind, dict(document))
    except (InvalidInput, ValueError, LookupError, TypeError, AttributeError) as exc:
        verdict.refused.append(f"{title}: {exc} (pycni's agents can't read it as it is)")
        return
    if isinstance(value, IPPool):
        _judge_pool(verdict, value)
    elif isinstance(value, BGPPeer):
        verdict.kept.append(f"{title}: {_peering(value)}")
    elif isinstance(value, BGPFilter):
        verdict.kept.append(f"{title}: {_rules(value)}")
    elif isinstance(value, BGPConfiguration) and value.node is not None:
        verdict.kept.append(f"{title}: settings of node {value.node} alone")
    elif isinstance(value, BGPConfiguration):
        mesh = "with" if value.is_node_mesh_enabled else "without"
        verdict.kept.append(f"{title}: AS {value.as_number}, {mesh} node-to-node mesh")


def _peering(peer: BGPPeer) -> str:
    """Say with whom a peering is, and of which nodes."""
    whom = (
        f"nodes {peer.peer_selector}"
        if peer.peer_ip is None
        else f"{peer.peer_ip}, AS {peer.as_number}"
    )
    one = f"node {peer.node}" if peer.node else "every node"
    return f"{whom}, of {f'nodes {peer.node_selector}' if peer.node_selector else one}"


def _rules(value: BGPFilter) -> str:
    """Say how many rules a filter has."""
    exported = len(value.export_v4) + len(value.export_v6)
    imported = len(value.import_v4) + len(value.import_v6)
    return f"rules for export {exported}, for import {imported}"


def _judge_filters(verdict: Verdict, documents: Mapping[str, Sequence[Document]]) -> None:
    """Name the filters that peers name and that are not there: Calico passes over these."""
    there = {_name(document) for document in documents.get(_CALICO + "bgpfilters", ())}
    for document in documents.get(_CALICO + "bgppeers", ()):
        verdict.attention += [
            f"BGPPeer {_name(document)} names BGPFilter {name}, which is not there: Calico passes"
            " over it, and nodes that have migrated exchange nothing with the peer: make the"
            " filter, or take its name out of the peer"
            for name in _spec(document).get("filters") or ()
            if name not in there
        ]


def _judge_pool(verdict: Verdict, pool: IPPool) -> None:
    if pool.vxlan_mode is not TunnelMode.NEVER:
        verdict.refused.append(
            f"IPPool {pool.name} uses VXLAN (vxlanMode: {pool.vxlan_mode.value}), which is not"
            " taken over in place: let Calico change the pool to ipipMode first, and all nodes"
            " follow"
        )
        return
    if PoolUse.LOAD_BALANCER in pool.allowed_uses:
        verdict.refused.append(
            f"IPPool {pool.name} serves Services of type LoadBalancer (allowedUses): while nodes"
            " migrate, Calico's controllers and pycni's agents would both give its addresses and"
            " take them back; let another give these addresses first"
        )
        return
    words = [str(pool.cidr), f"ipipMode {pool.ipip_mode.value}"]
    words += ["NAT out"] if pool.nat_outgoing else []
    words += ["disabled"] if pool.is_disabled else []
    verdict.kept.append(f"IPPool {pool.name}: {', '.join(words)}")


def _judge_felix(verdict: Verdict, document: Document) -> None:
    spec, title = _spec(document), f"FelixConfiguration {_name(document)}"
    for key, (usual, what) in _FELIX_REFUSED.items():
        if key in spec and spec[key] != usual:
            verdict.refused.append(
                f"{title} asks for {what} ({key}: {_say(spec[key])}), which pycni has not: change"
                " that under Calico first"
            )
    others = sorted(spec.keys() - _FELIX_SILENT)
    if others:
        verdict.attention.append(f"{title}: pycni does nothing of {', '.join(others)}")


def _judge_node(verdict: Verdict, document: Document) -> None:
    # As agents read it: each kubelet may write its Node, and what it wrote is not to be shown.
    node = from_stored(Node, dict(document))
    if node.unread:
        verdict.attention.append(
            f"Node {node.name}: {', '.join(node.unread)} can't be read, and counts as absent:"
            " correct that annotation"
        )
    internal = next((one for one in node.internal_ips if one.version == 4), None)
    if node.ipv4 is not None and internal is not None and node.ipv4.ip != internal:
        verdict.attention.append(
            f"Node {node.name} is {node.ipv4.ip} to its peers, and its InternalIP is {internal},"
            f" which pycni takes: before its agent starts, state node_address: {node.ipv4} in"
            " agent.yaml, or calico-node's IP_AUTODETECTION_METHOD as ip_autodetection_method"
        )
    for condition in (document.get("status") or {}).get("conditions") or ():
        if condition.get("type") == UNAVAILABLE and condition.get("status") == "True":
            verdict.unavailable.add(node.name)


def _judge_policies(verdict: Verdict, documents: Mapping[str, Sequence[Document]]) -> None:
    for path, name in _POLICIES.items():
        found = documents.get(path, ())
        if found:
            verdict.attention.append(
                f"{_count(found, name)} WILL NOT BE ENFORCED on a node that has migrated: every pod"
                f" there can be reached ({_names(found, _full_name)})"
            )
    endpoints = documents.get(HOST_ENDPOINTS, ())
    if endpoints:
        verdict.attention.append(
            f"{_count(endpoints, 'HostEndpoint')} WILL NOT BE ENFORCED: nothing protects the node"
            f" itself ({_names(endpoints, _name)})"
        )


def _count(found: Sequence[object], name: str) -> str:
    return f"{len(found)} {name} object{'s' if len(found) > 1 else ''}"


def _names(found: Iterable[Document], name_of: Callable[[Document], str]) -> str:
    names = sorted(map(name_of, found))
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join([*names[:_SHOWN], *more])


def _spec(document: Document) -> Mapping[str, Any]:
    return document.get("spec") or {}


def _name(document: Document) -> str:
    return str(document["metadata"]["name"])


def _full_name(document: Document) -> str:
    namespace = document["metadata"].get("namespace")
    return f"{namespace}/{_name(document)}" if namespace else _name(document)


def _say(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
