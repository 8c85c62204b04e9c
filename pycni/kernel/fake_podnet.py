"""An in-memory `PodNet` on top of a `FakeKernel`: pods are identified by their descriptor."""

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from pycni.errors import AlreadyExists, PycniError, WrongNamespace
from pycni.kernel import podcheck, podplan
from pycni.kernel.fake import FakeKernel
from pycni.kernel.fake_tables import Refused
from pycni.model.endpoints import GATEWAY_V6, HOST_VETH_PREFIX
from pycni.model.network import Address, IPAddress, Link
from pycni.plan.iproute import route_text
from pycni.ports import PlugRequest, PlugResult


@dataclass(frozen=True, slots=True)
class _Plugged:
    request: PlugRequest
    pod_mac: str


class FakePodNet:
    """Implements `pycni.ports.PodNet`; the host side is the kernel that it was made with.

    `host_netns_fd` is the descriptor number that stands for the host's own namespace.
    """

    def __init__(self, kernel: FakeKernel, *, host_netns_fd: int = -1) -> None:
        self._kernel = kernel
        self._host_netns_fd = host_netns_fd
        self._plugged: dict[str, _Plugged] = {}  # by alias, which a renamed link keeps
        self._failures: list[PycniError] = []
        self._count = 0

    def fail_next(self, error: PycniError) -> None:
        """Let the next `plug` fail half-way with this error."""
        self._failures.append(error)

    def close(self) -> None:
        """Do nothing: nothing is held."""

    def plug(self, request: PlugRequest) -> PlugResult:
        """Build the pair and everything on it."""
        podplan.require_plausible(request)
        if request.netns_fd == self._host_netns_fd:
            raise WrongNamespace("the pod's network namespace is the host's own")
        self._forget_gone()
        self._make_room(request)
        self._kernel.add_link(
            request.host_veth, mtu=request.mtu, mac=podplan.HOST_MAC, alias=request.alias
        )
        try:
            if self._failures:
                raise self._failures.pop(0)
            if podplan.has_version(request, 6):
                self._kernel.add_address(Address(request.host_veth, GATEWAY_V6))
            self._add_routes(request)
        except BaseException:
            self._kernel.delete_link(request.host_veth)
            raise
        for name, value in podplan.host_sysctls(request).items():
            self._kernel.write_sysctl(name, value)
        self._count += 1
        pod_mac = request.pod_mac or f"02:00:00:00:{self._count >> 8:02x}:{self._count & 0xFF:02x}"
        self._plugged[request.alias] = _Plugged(request, pod_mac)
        return PlugResult(host_mac=podplan.HOST_MAC, pod_mac=pod_mac)

    async def unplug(self, *, host_veth: str, alias: str) -> bool:
        """Delete the pair when it is the one made for `alias`."""
        podplan.require_ifname(host_veth)
        await asyncio.sleep(0)
        return self._delete(alias)

    def aliases(self) -> frozenset[str]:
        """Return the ifaliases of all interfaces of the host."""
        return frozenset(link.alias for link in self._kernel.links() if link.alias)

    def leads_to_pod(self, address: IPAddress) -> bool:
        """Tell whether the host has a route to just this address by a pod's interface."""
        dst = ip_network(address)
        return any(
            route.key.dst == dst and any(oif.startswith(HOST_VETH_PREFIX) for oif in route.oifs)
            for route in self._kernel.routes()
        )

    def has_address(self, address: IPAddress) -> bool:
        """Tell whether an interface of the host has an address."""
        return any(one.interface.ip == address for one in self._kernel.addresses())

    def check(self, request: PlugRequest) -> Sequence[str]:
        """Compare what is there with what `plug` builds."""
        podplan.require_plausible(request)
        self._forget_gone()
        link = self._kernel.link(request.host_veth)
        plugged = self._plugged.get(link.alias) if link is not None else None
        host = podcheck.Side(link)
        host.addresses = {
            one.interface for one in self._kernel.addresses() if one.ifname == request.host_veth
        }
        host.routes = set(self._kernel.routes())
        host.sysctls = {n: self._kernel.sysctl(n) for n in podplan.host_sysctls(request)}
        pod = podcheck.Side()
        if plugged is not None:
            mtu, mac = plugged.request.mtu, plugged.pod_mac
            pod.link = Link(request.ifname, 2, "veth", mtu, mac=mac, is_up=True)
            pod.addresses = set(podplan.pod_addresses(plugged.request))
            pod.routes = set(podplan.pod_routes(plugged.request))
            pod.sysctls = dict(podplan.pod_sysctls(plugged.request))
        return podcheck.differences(request, host=host, pod=pod)

    def _in_pod(self, request: PlugRequest) -> _Plugged | None:
        """Return what has the pod's end of that name."""
        for other in self._plugged.values():
            theirs = (other.request.netns_fd, other.request.ifname)
            if theirs == (request.netns_fd, request.ifname):
                return other
        return None

    def _delete(self, alias: str) -> bool:
        """Delete the pair with this alias, whatever its name is by now."""
        self._forget_gone()
        if self._plugged.pop(alias, None) is None:
            return False
        self._kernel.delete_link(self._names()[alias])
        return True

    def _names(self) -> dict[str, str]:
        return {link.alias: link.name for link in self._kernel.links() if link.alias}

    def _forget_gone(self) -> None:
        names = self._names()
        self._plugged = {alias: one for alias, one in self._plugged.items() if alias in names}

    def _make_room(self, request: PlugRequest) -> None:
        holder = self._kernel.link(request.host_veth)
        if holder is not None:
            if holder.alias != request.alias:
                owner = f"with alias {holder.alias!r}"
                raise podplan.name_is_taken(request, owner=owner)
            self._plugged.pop(request.alias, None)
            self._kernel.delete_link(request.host_veth)
        other = self._in_pod(request)
        if other is not None:
            if other.request.alias != request.alias:
                raise podplan.interface_exists(request)
            self._delete(request.alias)
        for other in self._plugged.values():
            have_default = (other.request.has_default_route, request.has_default_route)
            if all(have_default) and other.request.netns_fd == request.netns_fd:
                raise podplan.second_default_route(request)

    def _add_routes(self, request: PlugRequest) -> None:
        for route in podplan.host_routes(request):
            try:
                self._kernel.create_route(route)
            except Refused as exc:
                kind = AlreadyExists if exc.errno == errno.EEXIST else PycniError
                raise kind(f"cannot add route {route_text(route)}: {exc.text}") from exc
