"""Plan one node's migration from Calico, and the way back, from what was found there.  Pure.

Nothing is planned twice: what is done already shows in the kernel, the records and the files, so a
plan that was interrupted is made anew and holds the rest.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface, ip_network

from pycni.ipam import block as arithmetic
from pycni.ipam.block import Given
from pycni.ipam.books import is_tunnels, key_of, node_of, sound
from pycni.ipam.pools import holds
from pycni.migrate.cluster import Verdict
from pycni.migrate.network import ASIDE, Networks
from pycni.migrate.record import Migration
from pycni.migrate.steps import (
    ClearCondition,
    HandOver,
    LetGo,
    Plan,
    RemoveRules,
    RemoveTable,
    Rename,
    Step,
    TakeOver,
)
from pycni.model.endpoints import (
    HOST_VETH_PREFIX,
    AssignedAddress,
    EndpointKey,
    EndpointState,
    WorkloadEndpoint,
    host_veth_name,
)
from pycni.model.network import (
    MAIN_TABLE,
    PROTOCOL_BIRD,
    IPAddress,
    IPNetwork,
    KernelState,
    Link,
    Route,
    RouteType,
)
from pycni.model.resources import Block
from pycni.plan.ownership import alias_of

PROTOCOL_FELIX = 80
"""What Felix writes its routes with; BIRD's have its own."""
OWN_TABLE = "inet pycni"
_OTHERS = {
    "vxlan.calico": "VXLAN",
    "vxlan-v6.calico": "VXLAN",
    "wireguard.cali": "WireGuard",
    "wg-v6.cali": "WireGuard",
    "bpfin.cali": "the eBPF dataplane",
}


@dataclass(frozen=True, slots=True)
class PodEnd:
    """A pod's end of its pair, as seen in its network namespace, which that path leads to."""

    netns: str
    ifname: str
    mac: str
    addresses: frozenset[IPAddress] = frozenset()


@dataclass(frozen=True, slots=True)
class Agent:
    """Our agent on this node, and what keeps it from serving ("" nothing)."""

    is_running: bool = True
    complaint: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """What a node shows of its two networks.

    `ends` are the far ends of its pairs by the near ones' names, `processes` those of Calico's that
    run here, `firewall` what takes Calico's rules out, by the program that does, `tables` Calico's
    own nftables tables, `debts` how many releases our journal owes.
    """

    node: str
    kernel: KernelState
    networks: Networks
    pools: tuple[IPNetwork, ...] = ()
    blocks: tuple[Block, ...] = ()
    ends: Mapping[str, PodEnd] = field(default_factory=dict)
    records: tuple[WorkloadEndpoint, ...] = ()
    processes: tuple[str, ...] = ()
    firewall: Mapping[str, str] = field(default_factory=dict)
    tables: tuple[str, ...] = ()
    agent: Agent = Agent()
    debts: int = 0
    route_protocol: int = PROTOCOL_BIRD


# --- there --------------------------------------------------------------------------------------


def plan_migration(found: Found, verdict: Verdict) -> Plan:
    """Plan the way from Calico to pycni."""
    plan = Plan(
        f"{found.node}: migration from Calico to pycni",
        refused=[*verdict.refused, *found.networks.refused, *_other_dataplanes(found)],
        attention=[*verdict.attention, *found.networks.attention],
        kept=list(verdict.kept),
    )
    if found.processes:
        plan.first.append(
            f"{', '.join(found.processes)} of Calico's runs here, and two networks would write the"
            " same routes: keep calico-node off this node (docs/migration.md)"
        )
    if found.agent.complaint:
        plan.first.append(f"{found.agent.complaint} (it has to serve before pods are pycni's)")
    plan.steps += [Rename(name, name + ASIDE) for name in found.networks.calico]
    plan.steps += [TakeOver(endpoint) for endpoint in _endpoints(found, plan.left)]
    plan.left += _unheld(found)
    plan.steps += _hand_overs(found, to={}, usual=found.route_protocol)
    plan.steps += [RemoveRules(program, text) for program, text in found.firewall.items()]
    plan.steps += [RemoveTable(table) for table in found.tables]
    if found.node in verdict.unavailable:
        plan.steps.append(ClearCondition(found.node))
    return plan


def _other_dataplanes(found: Found) -> list[str]:
    return [
        f"interface {name} is there: Calico sends by {what} here, which pycni has not; where it is"
        f" only left over, remove it:  ip link delete {name}"
        for name, what in _OTHERS.items()
        if name in found.kernel.links
    ]


def _endpoints(found: Found, left: list[str]) -> Iterator[WorkloadEndpoint]:
    """Yield the records of Calico's pods that are to be written, or whose interface lacks a name.

    What can't be taken over goes to `left`.
    """
    records = {record.key: record for record in found.records}
    for handle_id, given in _held(found).items():
        endpoint = _endpoint(found, handle_id, given)
        if isinstance(endpoint, str):
            addresses = ", ".join(str(one.address) for one in given)
            left.append(f"{addresses} (handle {handle_id}): {endpoint}")
            continue
        link = found.kernel.links[endpoint.host_veth]
        if endpoint.key not in records or link.alias != alias_of(endpoint.key):
            yield records.get(endpoint.key, endpoint)


def _unheld(found: Found) -> list[str]:
    """Name the pods' interfaces for whose pods no block holds an address."""
    known = {record.host_veth for record in found.records}
    known |= {host_veth_name(_pod(given[0])) for given in _held(found).values()}
    return [
        f"interface {name}: no block holds an address for its pod (had it cni.projectcalico.org/"
        "ipAddrsNoIpam?)"
        for name, link in sorted(found.kernel.links.items())
        if link.kind == "veth" and name.startswith(HOST_VETH_PREFIX) and name not in known
    ]


def _held(found: Found) -> dict[str, list[Given]]:
    """Return what Calico's plugin has given to this node's pods, by handle."""
    held: dict[str, list[Given]] = {}
    for block in sound(found.blocks):
        for one in arithmetic.given(block):
            attribute = one.attribute
            is_calicos = not is_tunnels(attribute) and key_of(attribute) is None
            if is_calicos and node_of(attribute) == found.node:
                held.setdefault(attribute.handle_id or "", []).append(one)
    return held


def _endpoint(found: Found, handle_id: str, given: list[Given]) -> WorkloadEndpoint | str:
    """Return the record of what a handle holds, or why there is none."""
    said = dict(given[0].attribute.secondary)
    network, dot, container_id = handle_id.partition(f"{found.networks.network}.")
    if network or not dot or not container_id:
        return f"it is none of the network {found.networks.network}"
    if "pod" not in said:
        return "it names no pod"
    pod = _pod(given[0])
    host_veth = host_veth_name(pod)
    link = found.kernel.links.get(host_veth)
    if link is None or link.kind != "veth":
        return f"pod {pod.replace('.', '/', 1)} has no interface {host_veth} here"
    if not any(_leads(found.kernel, one.address, host_veth) for one in given):
        return f"no route leads there by {host_veth}: another sandbox of its pod has that"
    end = found.ends.get(host_veth)
    if end is None or not end.addresses.issuperset(one.address for one in given):
        return f"what {host_veth} leads to has not this address, or is nowhere to be seen"
    key = EndpointKey(found.networks.network, container_id, end.ifname)
    if link.alias not in ("", alias_of(key)):
        return f"{host_veth} says that it is another's: {link.alias!r}"
    return _record(found.node, key, given, link=link, end=end)


def _pod(given: Given) -> str:
    """Return the pod for which an address is held as names of interfaces are made of it."""
    said = dict(given.attribute.secondary)
    return f"{said.get('namespace', '')}.{said.get('pod', '')}"


def _record(
    node: str, key: EndpointKey, given: list[Given], *, link: Link, end: PodEnd
) -> WorkloadEndpoint:
    said = dict(given[0].attribute.secondary)
    return WorkloadEndpoint(
        key=key,
        node=node,
        netns=end.netns,
        host_veth=link.name,
        handle_id=given[0].attribute.handle_id or "",
        state=EndpointState.READY,
        addresses=tuple(
            AssignedAddress(ip_interface(one.address), one.sequence_number) for one in given
        ),
        mtu=link.mtu,
        host_mac=link.mac,
        pod_mac=end.mac,
        pod_namespace=said.get("namespace", ""),
        pod_name=said["pod"],
    )


def _leads(kernel: KernelState, address: IPAddress, host_veth: str) -> bool:
    prefix = ip_network(address)
    return any(
        key.dst == prefix and key.table == MAIN_TABLE and host_veth in route.oifs
        for key, routes in kernel.routes.items()
        for route in routes
    )


# --- routes -------------------------------------------------------------------------------------


def _hand_overs(found: Found, *, to: Mapping[str, int], usual: int) -> list[Step]:
    """Give routes in pools, other than pods', the protocol of whoever shall keep them.

    The agent takes routes of its protocol for its own, and touches no other's.
    """
    steps: list[Step] = []
    for key, routes in found.kernel.routes.items():
        wanted = to.get(str(key.dst), usual)
        if key.table != MAIN_TABLE or not any(holds(pool, key.dst) for pool in found.pools):
            continue
        has_one = any(route.protocol == wanted for route in routes)
        for route in routes:
            if _is_networks(route, found.route_protocol) and route.protocol != wanted:
                new = None if has_one else replace(route, protocol=wanted)
                steps.append(HandOver(route, new))
                has_one = True
    return steps


def _is_networks(route: Route, own: int) -> bool:
    """Tell whether a route is one of those between nodes that Calico or pycni writes."""
    is_theirs = route.protocol in (PROTOCOL_BIRD, PROTOCOL_FELIX, own)
    is_pods = any(oif.startswith(HOST_VETH_PREFIX) for oif in route.oifs)
    has_gateway = any(hop.gateway is not None for hop in route.next_hops)
    return is_theirs and not is_pods and (has_gateway or route.type is RouteType.BLACKHOLE)


# --- back ---------------------------------------------------------------------------------------


def plan_return(found: Found, migration: Migration, *, files: frozenset[str]) -> Plan:
    """Plan the way back to Calico; `files` are those in the directory of configurations."""
    plan = Plan(f"{found.node}: the way back from pycni to Calico")
    if migration.node != found.node:
        plan.refused.append(f"it was node {migration.node} that was migrated: name it by --node")
    if found.agent.is_running:
        plan.first.append(
            "pycni's agent runs, and would take for pods' ends what it lets go: stop it"
            " (systemctl disable --now pycni-agent, or keep the DaemonSet off this node)"
        )
    if found.debts:
        plan.first.append(
            f"{found.debts} releases of addresses are owed, which only the agent pays: start it,"
            " wait until its status has none, and stop it"
        )
    for one in migration.moved:
        if one.name in files:
            continue
        if one.aside in files:
            plan.steps.append(Rename(one.aside, one.name))
        else:
            plan.first.append(
                f"neither {one.name} nor {one.aside} is there: let Calico's installer write its"
                " configuration, or copy it from another node"
            )
    for record in found.records:
        if record.has_interface:
            plan.steps.append(LetGo(record))
        else:
            plan.left.append(f"{record.key}: its interface is another plugin's, by pycni-ipam")
    plan.steps += _hand_overs(found, to=dict(migration.protocols), usual=PROTOCOL_BIRD)
    if found.kernel.ruleset is not None:
        plan.steps.append(RemoveTable(OWN_TABLE))
        plan.attention.append(
            "from the last step until calico-node runs nothing masquerades what pods send out: let"
            " it come at once"
        )
    return plan
