"""The sysctls of a pod's host end, as both the plug of a pod and the reconciler want them."""


def interface_sysctl(family: str, *, ifname: str, key: str) -> str:
    """Return the dotted name of an interface's setting ("ipv4", or e.g. "ipv4.neigh").

    As in sysctl(8), a dot in the interface's own name is written as `/`.
    """
    proto, _, tree = family.partition(".")
    return f"net.{proto}.{tree or 'conf'}.{ifname.replace('.', '/')}.{key}"


def host_veth_sysctls(ifname: str, *, versions: frozenset[int]) -> dict[str, str]:
    """Return the settings of a host end for a pod with addresses of these IP versions."""
    wanted = {
        # The gateway 169.254.1.1 exists nowhere: the host end answers ARP for it, at once
        # (by default a proxy waits up to 0.8 s).
        interface_sysctl("ipv4", ifname=ifname, key="proxy_arp"): "1",
        interface_sysctl("ipv4.neigh", ifname=ifname, key="proxy_delay"): "0",
        interface_sysctl("ipv4", ifname=ifname, key="forwarding"): "1",
        # Strict reverse path: only the pod's /32 leads back here, so even without nftables
        # a source that isn't the pod's own is dropped.
        interface_sysctl("ipv4", ifname=ifname, key="rp_filter"): "1",
        # With 1, a pod reaches sockets that are bound to 127.0.0.1 only.
        interface_sysctl("ipv4", ifname=ifname, key="route_localnet"): "0",
    }
    if 6 in versions:
        wanted |= {
            interface_sysctl("ipv6", ifname=ifname, key="disable_ipv6"): "0",
            interface_sysctl("ipv6", ifname=ifname, key="accept_dad"): "0",
            interface_sysctl("ipv6", ifname=ifname, key="accept_ra"): "0",
            interface_sysctl("ipv6", ifname=ifname, key="proxy_ndp"): "1",
            interface_sysctl("ipv6", ifname=ifname, key="forwarding"): "1",
        }
    return wanted
