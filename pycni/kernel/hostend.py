"""Give a new host end its alias and its settings, before it goes up."""

import errno

from pycni.kernel import podplan, wire_conf, wire_link
from pycni.kernel.netlink import KernelError, NetlinkSocket
from pycni.kernel.sysctl import ensure_sysctl
from pycni.plan.podsysctls import IPV4_CONF, PROXY_DELAY, host_veth_ipv6_sysctls
from pycni.ports import PlugRequest

# How a kernel says that it doesn't know a message, and not that something is wrong with it now.
_UNKNOWN = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.ENOENT})
# Named, the pair needs no `birthmark` any more.
_NO_GROUP = 0
_IPV4 = wire_conf.ipv4_conf(IPV4_CONF)


class HostEnd:
    """Makes settings by netlink; by files from then on where the kernel refuses that."""

    def __init__(self, socket: NetlinkSocket) -> None:
        self._socket = socket
        self._needs_files = False

    def settle(self, request: PlugRequest, *, index: int) -> None:
        """Write alias and settings; raise OSError that names what could not be set."""
        needs_files = self._needs_files or not self._settle_by_netlink(request, index=index)
        if needs_files:
            self._socket.call(wire_link.set_link(index=index, alias=request.alias, group=_NO_GROUP))
            sysctls = podplan.host_sysctls(request)
        elif podplan.has_version(request, 6):
            sysctls = host_veth_ipv6_sysctls(request.host_veth)
        else:
            return
        for name, value in sysctls.items():
            ensure_sysctl(name, value=value)
        # Only now: had the link gone meanwhile, that would have been refused as well.
        self._needs_files = needs_files

    def _settle_by_netlink(self, request: PlugRequest, *, index: int) -> bool:
        requests = [
            wire_link.set_link(index=index, alias=request.alias, group=_NO_GROUP, settings=_IPV4),
            wire_conf.set_proxy_delay(PROXY_DELAY, index=index),
        ]
        if not podplan.has_version(request, 6):
            # Nothing speaks IPv6 here: spare the kernel an address, its probing and its routes.
            # A kernel that does not know how still makes them, which harms nobody.
            requests.append(wire_link.set_link(index=index, settings=wire_conf.NO_LINK_LOCAL))
        acks = self._socket.send(requests)[:2]
        for ack, what in zip(acks, ("its alias and IPv4 settings", "its proxy_delay"), strict=True):
            if ack.errno in _UNKNOWN:
                return False
            if ack.errno:
                text = KernelError(ack.errno, ack.text).strerror
                raise KernelError(ack.errno, f"cannot set {what}: {text}")
        return True
