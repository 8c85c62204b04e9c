"""Write routes in bulk, without ever overwriting a stranger's.

How the kernel behaves, each point proved in `netns-tests/test_kernel_routes.py`:

- IPv4 keeps several routes under one key (destination, TOS, priority) in a list; the first is in
  effect.  NLM_F_REPLACE overwrites the first, whoever wrote it.  So a replacement is: append the
  new one (NLM_F_APPEND, behind all others), then delete exactly the old one.  Where only ours was
  there, traffic passes from one to the other without a gap; a stranger's stays what it was.
- The two steps are two sends: within one, the kernel would perform the deletion even after it had
  refused the new route.
- A deletion compares only what it names: without source or MTU it matches any.  Where the old
  route's description would match the new one too, we first look whether the old one exists.
- A deletion of a multipath route compares next hops in order; a stranger's order is read first.
- IPv6 merges routes with a gateway under one key into one multipath route, strangers' included,
  and refuses to append a next hop that is there.  Only NLM_F_REPLACE is left, which overwrites all
  of them: so we look first, and refuse (EEXIST) when anything but the old or the new is there.
"""

import errno
from collections.abc import Callable, Sequence
from socket import AF_INET, AF_INET6

from pycni.kernel import wire_route
from pycni.kernel.names import LinkIndexes
from pycni.kernel.netlink import KernelError, NetlinkSocket
from pycni.kernel.wire import Ack, Message, Request
from pycni.model.network import AddRoute, DeleteRoute, Failure, ReplaceRoute, Route
from pycni.plan.iproute import route_text

_ABSENT = frozenset({errno.ESRCH, errno.ENODEV, errno.ENOENT})
_DONE = Ack(0, 0, "")
_IPV6 = 6

RouteOp = AddRoute | DeleteRoute | ReplaceRoute
_Builder = Callable[..., Request]


class RouteWriter:
    """Performs batches of route operations on one request socket, synchronously."""

    def __init__(self, socket: NetlinkSocket) -> None:
        self._socket = socket

    def add_or_delete(self, ops: Sequence[AddRoute | DeleteRoute]) -> list[Failure]:
        """Perform additions and deletions in order, in one send."""
        builders: list[tuple[Route, _Builder]] = [
            (op.route, wire_route.add_request)
            if isinstance(op, AddRoute)
            else (op.route, wire_route.delete_request)
            for op in ops
        ]
        failures = []
        for op, answer in zip(ops, self._send(builders), strict=True):
            ack = answer
            if isinstance(op, DeleteRoute) and ack.errno in _ABSENT:
                ack = self._delete_reordered(op.route)
            if ack.errno:
                failures.append(_failure(op, ack))
        return failures

    def replace(self, ops: Sequence[ReplaceRoute]) -> list[Failure]:
        """Perform replacements: see the module's text for how and why."""
        careful = [op for op in ops if op.new.key.dst.version == _IPV6 or _is_vague(op)]
        have = self._read_have(careful)
        plain: list[ReplaceRoute] = []
        six: list[ReplaceRoute] = []
        failures: list[Failure] = []
        for op in ops:
            present = have.get(op.new.key, ())
            if op.new.key.dst.version != _IPV6:
                plain.append(op)
            elif set(present) <= {op.old, op.new}:
                six.append(op)
            else:
                rival = next(route for route in present if route not in {op.old, op.new})
                text = f"another route stands under that key: {route_text(rival)}"
                failures.append(_failure(op, Ack(0, errno.EEXIST, text)))
        acks = self._send([(op.new, wire_route.replace_request) for op in six])
        failures += [_failure(op, ack) for op, ack in zip(six, acks, strict=True) if ack.errno]
        return failures + self._append_then_delete(plain, have=have)

    def _append_then_delete(
        self, ops: Sequence[ReplaceRoute], *, have: dict[object, tuple[Route, ...]]
    ) -> list[Failure]:
        failures, outdated = [], []
        acks = self._send([(op.new, wire_route.append_request) for op in ops])
        for op, ack in zip(ops, acks, strict=True):
            if ack.errno not in {0, errno.EEXIST}:
                failures.append(_failure(op, ack))
            elif op.old != op.new and not (
                _is_vague(op) and op.old not in have.get(op.new.key, ())
            ):
                outdated.append(op)
        acks = self._send([(op.old, wire_route.delete_request) for op in outdated])
        for op, answer in zip(outdated, acks, strict=True):
            ack = self._delete_reordered(op.old) if answer.errno in _ABSENT else answer
            if ack.errno:
                failures.append(_failure(op, ack))
        return failures

    def _send(self, builders: Sequence[tuple[Route, _Builder]]) -> list[Ack]:
        """Build and send; a route by an interface that doesn't exist is answered with ENODEV."""
        indexes = LinkIndexes(self._socket)
        requests: list[Request] = []
        answers: list[Ack | None] = []
        for route, build in builders:
            try:
                requests.append(build(route, index_of=indexes.index_of))
                answers.append(None)
            except KernelError as exc:
                answers.append(Ack(0, exc.errno or errno.ENODEV, exc.strerror or ""))
        sent = iter(self._socket.send(requests))
        return [next(sent) if answer is None else answer for answer in answers]

    def _delete_reordered(self, route: Route) -> Ack:
        """Delete a multipath route that somebody wrote with its next hops in another order.

        The kernel's own words for the route, read back, name the order that it has.
        """
        if len(route.next_hops) < 2 or route.key.dst.version == _IPV6:
            return _DONE
        for message, have in self._read_routes(AF_INET):
            if have == route:
                request = Request(wire_route.RTM_DELROUTE, 0, message.body)
                ack = self._socket.send([request])[0]
                return _DONE if ack.errno in _ABSENT else ack
        return _DONE

    def _read_have(self, ops: Sequence[ReplaceRoute]) -> dict[object, tuple[Route, ...]]:
        wanted = {op.new.key for op in ops}
        have: dict[object, tuple[Route, ...]] = {}
        for family in {AF_INET6 if key.dst.version == _IPV6 else AF_INET for key in wanted}:
            for _, route in self._read_routes(family):
                if route.key in wanted:
                    have[route.key] = (*have.get(route.key, ()), route)
        return have

    def _read_routes(self, family: int) -> list[tuple[Message, Route]]:
        reader = wire_route.RouteReader(LinkIndexes(self._socket).name_of)
        listed = self._socket.dump(wire_route.dump_request(family))
        read = ((message, reader.read(message.body)) for message in listed)
        return [(message, route) for message, route in read if route is not None]


def _is_vague(op: ReplaceRoute) -> bool:
    """Say whether deleting `old` could hit `new` where `old` is absent already."""
    old, new = op.old, op.new
    if old == new or (old.type, old.protocol, old.scope) != (new.type, new.protocol, new.scope):
        return False
    if old.src not in {None, new.src} or old.mtu not in {None, new.mtu}:
        return False
    if old.next_hops == new.next_hops:
        return True
    return old.oifs == new.oifs and all(hop.gateway is None for hop in old.next_hops)


_VERBS = {AddRoute: "add", DeleteRoute: "delete", ReplaceRoute: "replace"}


def _failure(op: RouteOp, ack: Ack) -> Failure:
    refused = KernelError(ack.errno, ack.text)
    if isinstance(op, ReplaceRoute):
        what = f"replace route {route_text(op.old)} by {route_text(op.new)}"
    else:
        what = f"{_VERBS[type(op)]} route {route_text(op.route)}"
    return Failure(op, ack.errno, f"cannot {what}: {refused.strerror}")
