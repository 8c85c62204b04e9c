"""The sysctls of a pod's host end, as both the plug of a pod and the reconciler want them."""

from collections.abc import Mapping

IPV4_CONF: Mapping[str, str] = {
    # The gateway 169.254.1.1 exists nowhere: the host end answers ARP for it.
    "proxy_arp": "1",
    "forwarding": "1",
    # Strict reverse path: only the pod's /32 leads back here, so even without nftables
    # a source that isn't the pod's own is dropped.
    "rp_filter": "1",
    # With 1, a pod reaches sockets that are bound to 127.0.0.1 only.
    "route_localnet": "0",
}
"""What stands below net.ipv4.conf of a host end."""

PROXY_DELAY = 0
"""Answer for the gateway at once: by default a proxy waits up to 0.8 s."""

_IPV6_CONF: Mapping[str, str] = {
    "disable_ipv6": "0",
    "accept_dad": "0",
    "accept_ra": "0",
    "proxy_ndp": "1",
    "forwarding": "1",
}


def interface_sysctl(family: str, *, ifname: str, key: str) -> str:
    """Return the dotted name of an interface's setting ("ipv4", or e.g. "ipv4.neigh").

    As in sysctl(8), a dot in the interface's own name is written as `/`.
    """
    proto, _, tree = family.partition(".")
    return f"net.{proto}.{tree or 'conf'}.{ifname.replace('.', '/')}.{key}"


def interface_of(sysctl: str) -> str:
    """Return the interface that a setting is of, or an empty text for one of the whole host."""
    parts = sysctl.split(".")
    is_of_one = len(parts) == len(("net", "ipv4", "conf", "eth0", "forwarding"))
    return parts[3].replace("/", ".") if is_of_one and parts[0] == "net" else ""


def host_veth_sysctls(ifname: str, *, versions: frozenset[int]) -> dict[str, str]:
    """Return the settings of a host end for a pod with addresses of these IP versions."""
    delay = interface_sysctl("ipv4.neigh", ifname=ifname, key="proxy_delay")
    wanted = {delay: str(PROXY_DELAY)}
    for key, value in IPV4_CONF.items():
        wanted[interface_sysctl("ipv4", ifname=ifname, key=key)] = value
    if 6 in versions:
        wanted |= host_veth_ipv6_sysctls(ifname)
    return wanted


def host_veth_ipv6_sysctls(ifname: str) -> dict[str, str]:
    """Return those of `host_veth_sysctls` that are about IPv6."""
    return {
        interface_sysctl("ipv6", ifname=ifname, key=key): value for key, value in _IPV6_CONF.items()
    }
