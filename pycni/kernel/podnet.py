"""Build, remove and examine pods' veth pairs: the `PodNet` door on a real kernel.

The host side is the namespace in which the object was made.  Loaded by the engine that serves one
CNI request in a fresh process too, so it imports little; `unplug` alone needs an event loop.
"""

import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pycni.errors import AlreadyExists, InvalidInput, PycniError, TryAgain
from pycni.kernel import netns, podcheck, podplan, wire_link, wire_route
from pycni.kernel.names import LinkIndexes
from pycni.kernel.netlink import KernelError, NetlinkSocket
from pycni.kernel.sysctl import read_sysctl, write_sysctl
from pycni.kernel.wire import Message
from pycni.model.network import Link, Route
from pycni.plan.iproute import route_text
from pycni.ports import PlugRequest, PlugResult

if TYPE_CHECKING:
    from pycni.kernel.unplug import GroupDelete

_LOOPBACK_INDEX = 1
# The machine is short of something at this moment; nothing is wrong with the request.
_PASSING = frozenset({errno.ENOMEM, errno.ENOBUFS, errno.EMFILE, errno.ENFILE, errno.EBUSY})


class LinuxPodNet:
    """Implements `pycni.ports.PodNet`; one thread may plug and check at a time."""

    def __init__(self) -> None:
        self._home = netns.open_own()
        self._host = NetlinkSocket()
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
            link, peer_index = self._create(request)
            try:
                return self._build(request, link=link, peer_index=peer_index)
            except BaseException:
                # With the host end the pair goes, and with it all addresses and routes on it.
                self._host.send([wire_link.delete_link(index=link.index)])
                raise
        except OSError as exc:
            kind = TryAgain if exc.errno in _PASSING else PycniError
            raise kind(
                f"cannot plug {request.ifname} (host end {request.host_veth}): {exc.strerror}"
            ) from exc

    def _require_foreign_netns(self, fd: int) -> None:
        if not netns.is_netns(fd):
            raise InvalidInput("the descriptor given is not a network namespace")
        if netns.is_same(fd, self._home):
            raise InvalidInput("the pod's network namespace is the host's own")

    def _create(self, request: PlugRequest) -> tuple[Link, int]:
        """Make the pair and give it its alias; a leftover of the same pod is deleted before."""
        create = wire_link.create_veth(
            host=request.host_veth,
            host_mac=bytes.fromhex(podplan.HOST_MAC.replace(":", "")),
            peer=request.ifname,
            peer_netns_fd=request.netns_fd,
            mtu=request.mtu,
        )
        ask = wire_link.get_link(name=request.host_veth)
        acks, replies = self._host.exchange([create, ask])
        if acks[0].errno == errno.EEXIST:
            self._make_room(request, holder=_first_link(replies))
            acks, replies = self._host.exchange([create, ask])
        link = _first_link(replies)
        if acks[0].errno or link is None:
            raise KernelError(acks[0].errno or acks[1].errno, acks[0].text or acks[1].text)
        # Not in the same send, where it would go by name: had the creation failed, to a stranger.
        self._host.call(wire_link.set_link(index=link.index, alias=request.alias))
        return link, wire_link.read_peer_index(replies[0].body)

    def _make_room(self, request: PlugRequest, *, holder: Link | None) -> None:
        if holder is None:
            raise InvalidInput(
                f"interface {request.ifname} exists already in the pod's network namespace"
            )
        # A crash between creation and alias leaves a pair of ours without one, never up.
        is_half_made = (holder.alias, holder.mac, holder.is_up) == ("", podplan.HOST_MAC, False)
        if holder.kind != "veth" or not (holder.alias == request.alias or is_half_made):
            owner = f"with alias {holder.alias!r}" if holder.alias else "without alias"
            raise AlreadyExists(
                f"cannot make {request.host_veth}: an interface of that name {owner} is not ours"
            )
        self._host.call(wire_link.delete_link(index=holder.index))

    def _build(self, request: PlugRequest, *, link: Link, peer_index: int) -> PlugResult:
        for name, value in podplan.host_sysctls(request).items():
            _ensure_sysctl(name, value=value)
        with netns.inside(request.netns_fd, home=self._home):
            for name, value in podplan.pod_sysctls(request).items():
                _ensure_sysctl(name, value=value)
            pod = NetlinkSocket()
        with pod:
            replies = pod.call(
                wire_link.set_link(index=_LOOPBACK_INDEX, is_up=True),
                wire_link.set_link(index=peer_index, is_up=True),
                *(
                    wire_link.add_address(address, index=peer_index)
                    for address in podplan.pod_addresses(request)
                ),
                *(
                    wire_route.add_request(route, index_of=lambda _: peer_index)
                    for route in podplan.pod_routes(request)
                ),
                wire_link.get_link(index=peer_index),
            )
        self._finish_host_end(request, index=link.index)
        pod_end = _first_link(replies)
        return PlugResult(host_mac=link.mac, pod_mac=pod_end.mac if pod_end else "")

    def _finish_host_end(self, request: PlugRequest, *, index: int) -> None:
        routes = podplan.host_routes(request)
        requests = [wire_link.set_link(index=index, is_up=True)]
        if any(address.version == podplan.HOST_LINK_LOCAL.version for address in request.addresses):
            requests.insert(0, wire_link.add_address(podplan.HOST_LINK_LOCAL, index=index))
        requests += [wire_route.add_request(route, index_of=lambda _: index) for route in routes]
        acks = self._host.send(requests)
        for ack, route in zip(acks[-len(routes) :], routes, strict=True):
            if ack.errno == errno.EEXIST:
                self._require_same_device(route)
            elif ack.errno:
                raise KernelError(ack.errno, ack.text)
        for ack in acks[: -len(routes)]:
            if ack.errno not in {0, errno.EEXIST}:
                raise KernelError(ack.errno, ack.text)

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
                f"a route to {route.key.dst} leads to {ways} already"
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

    # --- check ----------------------------------------------------------------------------------

    def check(self, request: PlugRequest) -> Sequence[str]:
        """Compare what is there with what `plug` builds."""
        podplan.require_plausible(request)
        self._require_foreign_netns(request.netns_fd)
        host = podcheck.read_side(
            self._host, ifname=request.host_veth, sysctls=podplan.checked_host_sysctls(request)
        )
        with netns.inside(request.netns_fd, home=self._home), NetlinkSocket() as pod:
            inside = podcheck.read_side(
                pod, ifname=request.ifname, sysctls=podplan.pod_sysctls(request)
            )
        return podcheck.differences(request, host=host, pod=inside)


def _first_link(replies: Sequence[Message]) -> Link | None:
    return next(filter(None, (wire_link.read_link(reply.body) for reply in replies)), None)


def _ensure_sysctl(name: str, *, value: str) -> None:
    """Write a setting; where /proc/sys is read-only, it may be right already."""
    try:
        write_sysctl(name, value=value)
    except OSError as exc:
        if read_sysctl(name) != value:
            text = f"cannot set sysctl {name} to {value}: {exc.strerror}"
            raise KernelError(exc.errno or errno.EIO, text) from exc
