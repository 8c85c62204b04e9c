"""Build, remove and examine pods' veth pairs: the `PodNet` door on a real kernel.

The host side is the namespace in which the object was made.  Loaded by the engine that serves one
CNI request in a fresh process too, so it imports little; `unplug` alone needs an event loop.
"""

import errno
import os
from collections.abc import Sequence
from ipaddress import ip_network
from typing import TYPE_CHECKING

from pycni.errors import AlreadyExists, PycniError, TryAgain, WrongNamespace
from pycni.kernel import netns, podcheck, podplan, podwire, wire_link, wire_route
from pycni.kernel.birthmark import bears, birth_group
from pycni.kernel.hostend import HostEnd
from pycni.kernel.names import LinkIndexes, link_index, pairs_by_alias
from pycni.kernel.netlink import KernelError, NetlinkSocket
from pycni.kernel.sysctl import ensure_sysctl
from pycni.kernel.wire import Ack, Message
from pycni.model.endpoints import HOST_VETH_PREFIX
from pycni.model.network import IPAddress, Link, Route
from pycni.plan.iproute import route_text
from pycni.ports import PlugRequest, PlugResult

if TYPE_CHECKING:
    from pycni.kernel.unplug import GroupDelete

# The machine is short of something at this moment; nothing is wrong with the request.
_PASSING = frozenset({errno.ENOMEM, errno.ENOBUFS, errno.EMFILE, errno.ENFILE, errno.EBUSY})


def _packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


_HOST_MAC = _packed(podplan.HOST_MAC)


class LinuxPodNet:
    """Implements `pycni.ports.PodNet`; one thread may plug and check at a time."""

    def __init__(self) -> None:
        self._home = netns.open_own()
        self._home_identity = netns.identity(self._home)
        self._host = NetlinkSocket()
        self._host_end = HostEnd(self._host)
        self._deletions: GroupDelete | None = None

    def close(self) -> None:
        """Release descriptors and the worker of `unplug`."""
        if self._deletions is not None:
            self._deletions.close()
        self._host.close()
        os.close(self._home)

    # --- plug -----------------------------------------------------------------------------------

    def plug(self, request: PlugRequest) -> PlugResult:
        """Build the pair and everything on it."""
        podplan.require_plausible(request)
        self._require_foreign_netns(request.netns_fd)
        try:
            pod_mac = _packed(request.pod_mac) if request.pod_mac else _random_mac()
            index = self._create(request, pod_mac=pod_mac)
            try:
                self._build(request, index=index)
            except BaseException:
                # With the host end the pair goes, and with it all addresses and routes on it.
                self._host.send([wire_link.delete_link(index=index)])
                raise
            return PlugResult(host_mac=podplan.HOST_MAC, pod_mac=pod_mac.hex(":"))
        except OSError as exc:
            kind = TryAgain if exc.errno in _PASSING else PycniError
            raise kind(
                f"cannot plug {request.ifname} (host end {request.host_veth}): {exc.strerror}"
            ) from exc

    def _require_foreign_netns(self, fd: int) -> None:
        if not netns.is_netns(fd):
            raise WrongNamespace("the descriptor given is not a network namespace")
        if netns.identity(fd) == self._home_identity:
            raise WrongNamespace("the pod's network namespace is the host's own")

    def _create(self, request: PlugRequest, *, pod_mac: bytes) -> int:
        """Make the pair, return the host end's index; a leftover of the same pod goes before."""
        create = wire_link.create_veth(
            host=request.host_veth,
            host_mac=_HOST_MAC,
            host_group=birth_group(request.alias),
            peer=request.ifname,
            peer_mac=pod_mac,
            peer_netns_fd=request.netns_fd,
            mtu=request.mtu,
        )
        # Alone, because what follows goes by index: had the creation failed, then by name it would
        # go to a stranger.
        ack = self._host.send([create])[0]
        if ack.errno == errno.EEXIST:
            self._make_room(request)
            ack = self._host.send([create])[0]
        if ack.errno:
            raise KernelError(ack.errno, ack.text)
        return link_index(self._host, request.host_veth)

    def _make_room(self, request: PlugRequest) -> None:
        _, replies = self._host.exchange([wire_link.get_link(name=request.host_veth)])
        holder = _first_link(replies)
        if holder is None:
            # Then it is the pod's end; perhaps of a pair of ours whose host end was renamed.
            if (renamed := pairs_by_alias(self._host).get(request.alias)) is not None:
                self._host.call(wire_link.delete_link(index=renamed))
                return
            raise podplan.interface_exists(request)
        group = wire_link.read_group(replies[0].body)
        if holder.kind != "veth" or not bears(request.alias, found=holder.alias, group=group):
            owner = f"with alias {holder.alias!r}" if holder.alias else "without alias"
            raise podplan.name_is_taken(request, owner=owner)
        self._host.call(wire_link.delete_link(index=holder.index))

    def _build(self, request: PlugRequest, *, index: int) -> None:
        self._host_end.settle(request, index=index)
        with netns.inside(request.netns_fd, home=self._home):
            for name, value in podplan.pod_sysctls(request).items():
                ensure_sysctl(name, value=value)
            pod = NetlinkSocket(is_brief=True)
        with pod:
            peer_index = link_index(pod, request.ifname)
            requests = podwire.pod_end(request, index=peer_index)
            may_fail = 0
            if not podplan.has_version(request, 6):
                requests.insert(0, podwire.without_link_local(peer_index))
                may_fail = 1
            _require_done(pod.send(requests)[may_fail:], request)
        self._finish_host_end(request, index=index)

    def _finish_host_end(self, request: PlugRequest, *, index: int) -> None:
        acks = self._host.send(podwire.host_end(request, index=index))
        first_route = len(acks) - len(request.addresses)
        for number, ack in enumerate(acks):
            if not ack.errno:
                continue
            if ack.errno != errno.EEXIST:
                raise KernelError(ack.errno, ack.text)
            if number >= first_route:
                self._require_same_device(podplan.host_routes(request)[number - first_route])

    def _require_same_device(self, route: Route) -> None:
        """Accept a host route that is there already only where it leads to this very pod."""
        names = LinkIndexes(self._host)
        reader = wire_route.RouteReader(names.name_of)
        for message in self._host.call(wire_route.lookup_request(route.key.dst)):
            have = reader.read(message.body)
            if have is None or have.key.dst != route.key.dst or have.oifs == route.oifs:
                continue
            ways = ", ".join(sorted(have.oifs)) or have.type.name.lower()
            raise AlreadyExists(
                f"cannot add route {route_text(route)}: "
                f"a route to {route.key.dst} leads to {ways} already; delete that one"
            )

    # --- unplug ---------------------------------------------------------------------------------

    async def unplug(self, *, host_veth: str, alias: str) -> bool:
        """Delete the pair when it is the one made for `alias`."""
        podplan.require_ifname(host_veth)
        if self._deletions is None:
            # Late, because it brings asyncio and threads, which `plug` in a fresh process spares.
            from pycni.kernel.unplug import GroupDelete

            self._deletions = GroupDelete()
        return await self._deletions.delete(host_veth, alias=alias)

    # --- looking --------------------------------------------------------------------------------

    def aliases(self) -> frozenset[str]:
        """Return the ifaliases of all interfaces of the host."""
        messages = self._host.dump(wire_link.dump_links())
        links = (wire_link.read_link(message.body) for message in messages)
        return frozenset(link.alias for link in links if link is not None and link.alias)

    def leads_to_pod(self, address: IPAddress) -> bool:
        """Tell whether the host has a route to just this address by a pod's interface."""
        dst = ip_network(address)
        reader = wire_route.RouteReader(LinkIndexes(self._host).name_of)
        _, found = self._host.exchange([wire_route.lookup_request(dst)])
        routes = (reader.read(message.body) for message in found)
        return any(
            route.key.dst == dst and any(oif.startswith(HOST_VETH_PREFIX) for oif in route.oifs)
            for route in routes
            if route is not None
        )

    def has_address(self, address: IPAddress) -> bool:
        """Tell whether an interface of the host has an address.

        By the addresses themselves: while IPv6 looks for duplicates of one, no route tells of it.
        """
        messages = self._host.dump(wire_link.dump_addresses())
        found = (wire_link.read_address(message.body, name_of=str) for message in messages)
        return any(one is not None and one.interface.ip == address for one in found)

    # --- check ----------------------------------------------------------------------------------

    def check(self, request: PlugRequest) -> Sequence[str]:
        """Compare what is there with what `plug` builds."""
        podplan.require_plausible(request)
        self._require_foreign_netns(request.netns_fd)
        host = podcheck.read_host(self._host, request)
        with netns.inside(request.netns_fd, home=self._home), NetlinkSocket() as pod:
            inside = podcheck.read_pod(pod, request)
        return podcheck.differences(request, host=host, pod=inside)


def _require_done(acks: Sequence[Ack], request: PlugRequest) -> None:
    for ack in acks:
        if ack.errno == errno.EEXIST and request.has_default_route:
            raise podplan.second_default_route(request)
        if ack.errno:
            raise KernelError(ack.errno, ack.text)


def _first_link(replies: Sequence[Message]) -> Link | None:
    return next(filter(None, (wire_link.read_link(reply.body) for reply in replies)), None)


def _random_mac() -> bytes:
    """Draw as the kernel would; chosen here, it needn't be asked for afterwards."""
    first, *others = os.urandom(6)
    # Locally administered, and not a group's.
    return bytes((first & 0xFC | 0x02, *others))
