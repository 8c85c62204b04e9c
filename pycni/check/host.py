"""What of a machine's settings and leftovers gets in a pod network's way.  Pure."""

import json
import re
from collections.abc import Mapping

from pycni.check.findings import Finding, Severity
from pycni.cni.netconf import OWN_TYPE
from pycni.model.network import MAIN_TABLE, IPAddress, IPNetwork, KernelState, Route
from pycni.model.tunnels import VXLAN_DEVICES

STRICT = "1"

# Interfaces as the networks themselves name them, and whose they are.
_OTHERS = (
    ("cni0", "the bridge plugin or Flannel"),
    (r"flannel[.-].+", "Flannel"),
    (r"vxlan(-v6)?\.calico", "Calico (VXLAN)"),
    (r"wireguard\.cali", "Calico (WireGuard)"),
    (r"cilium_.+", "Cilium"),
    (r"weave", "Weave Net"),
    (r"kube-bridge", "kube-router"),
    (r"antrea-gw0", "Antrea"),
    (r"ovn-k8s-mp\d+", "OVN-Kubernetes"),
)


def judge_rp_filter(sysctls: Mapping[str, str], *, tunnel: str) -> list[Finding]:
    """Return the reverse path filter that drops packets of the tunnel: the stricter of two holds.

    The agent keeps the tunnel's own at 0, and `all` is not its to set.
    """
    own = f"net.ipv4.conf.{tunnel.replace('.', '/')}.rp_filter"
    if tunnel and STRICT in (sysctls.get("net.ipv4.conf.all.rp_filter"), sysctls.get(own)):
        name = own if sysctls.get(own) == STRICT else "net.ipv4.conf.all.rp_filter"
        return [
            Finding(
                "rp-filter",
                Severity.WARNING,
                f"{name} is 1: the reverse path filter is strict on {tunnel}",
                "packets of other nodes come by the tunnel whose way back is another, as from a"
                " node to a service: the kernel drops them without a word",
                f"sysctl -w {name}=0, and the same line in a file of /etc/sysctl.d",
            )
        ]
    return []


def judge_interfaces(kernel: KernelState) -> list[Finding]:
    """Return the interfaces that other networks have left.

    Of a name that is ours, too, only what leads elsewhere by entries that aren't.
    """
    return [
        Finding(
            "other-networks",
            Severity.WARNING,
            f"interface {name} is {whose}'s, with {_routes_by(kernel, name)} routes",
            "two networks on one node answer for the same pods, or route them elsewhere",
            f"remove that network from the cluster, then: ip link delete {name}",
        )
        for name in sorted(kernel.links)
        for pattern, whose in _OTHERS
        if re.fullmatch(pattern, name) and not _is_our_vxlan(kernel, name)
    ]


def _is_our_vxlan(kernel: KernelState, name: str) -> bool:
    entries = [entry for entry in kernel.neighbours.values() if entry.ifname == name]
    is_named_so = name in VXLAN_DEVICES.values() and kernel.links[name].vxlan is not None
    return is_named_so and all(entry.is_ours for entry in entries)


def _routes_by(kernel: KernelState, name: str) -> int:
    return sum(name in route.oifs for routes in kernel.routes.values() for route in routes)


def judge_configurations(files: Mapping[str, str], *, directory: str) -> list[Finding]:
    """Return what keeps a runtime from taking our network: it takes the first by name.

    `files` are those of the directory whose names end as a runtime looks for, with their texts.
    """
    ours = sorted(name for name, text in files.items() if _is_ours(text))
    if not ours:
        return [
            Finding(
                "cni-configuration",
                Severity.ERROR,
                f"no file of {directory} names the plugin {OWN_TYPE}",
                "the runtime gives pods no network, or another's",
                "run install.sh, or look in the agent's log why it wrote none (cni_conflist)",
            )
        ]
    return [
        Finding(
            "cni-configuration",
            Severity.ERROR,
            f"{directory}/{name} comes before {ours[0]}",
            "the runtime takes the first by name: new pods get that network",
            f"mv {directory}/{name} {directory}/{name}.disabled",
        )
        for name in sorted(files)
        if name < ours[0]
    ]


def _is_ours(text: str) -> bool:
    try:
        document = json.loads(text)
    except ValueError:
        return False
    if not isinstance(document, dict):
        return False
    plugins = document.get("plugins", [document])
    return isinstance(plugins, list) and any(
        isinstance(plugin, dict) and plugin.get("type") == OWN_TYPE for plugin in plugins
    )


def route_to(kernel: KernelState, address: IPAddress) -> Route | None:
    """Return the route of the main table that leads to an address, None without one."""
    fitting = [
        routes[0]
        for key, routes in kernel.routes.items()
        if routes and _fits(key.table, key.dst, address)
    ]
    return max(fitting, key=_precedence, default=None)


def _fits(table: int, dst: IPNetwork, address: IPAddress) -> bool:
    return table == MAIN_TABLE and address in dst


def _precedence(route: Route) -> tuple[int, int]:
    return route.key.dst.prefixlen, -route.key.priority
