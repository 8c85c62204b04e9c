"""Find the node's address among the host's, as `pycni.plan.candidates` decides, and say why.

Asks the kernel for the way to a destination, resolves that one's name, and waits where an address
is gone that may come back.
"""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from pycni.agent.messages import Doubt, Message
from pycni.autodetection import Kind, Method
from pycni.model.network import IPAddress, IPInterface
from pycni.model.resources import Node
from pycni.plan.candidates import (
    PATIENCE_S,
    Host,
    PassedOver,
    choose,
    nothing_fits,
    passed_over,
    settle,
)
from pycni.plan.inputs import Inputs
from pycni.plan.underlay import Detected, OwnAddresses, own_addresses

_log = logging.getLogger(__name__)

RETRY_S = 10.0


async def resolve_by_host(name: str, version: int) -> IPAddress:
    """Return an address of a name as this host's own resolver has it; raise OSError for none."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(name, None, family=family, type=socket.SOCK_DGRAM)
    return ip_address(found[0][4][0])


class Autodetection:
    """Applies `methods`, by IP version, where no address is stated.

    `run` resolves the names that they hold; `look` is for after each pass.
    """

    def __init__(
        self,
        methods: Mapping[int, Method],
        *,
        stated: Sequence[IPInterface],
        source_to: Callable[[IPAddress], IPAddress | None],
        post: Callable[[Message], None],
        report: Callable[[str, str], None],
        resolve: Callable[[str, int], Awaitable[IPAddress]] = resolve_by_host,
    ) -> None:
        self._methods = dict(methods)
        self._stated = tuple(stated)
        self._source_to = source_to
        self._post = post
        self._report = report
        self._resolve = resolve
        self._taken: dict[int, IPInterface] = {}
        self._doubted_since: dict[int, float | None] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def run(self) -> None:
        """Resolve the names of destinations, each once; return when that is done."""
        await asyncio.gather(*(self._find(m) for m in self._methods.values() if _is_unresolved(m)))

    async def _find(self, method: Method) -> None:
        part = f"autodetection of IPv{method.version}"
        name = str(method.destination)
        while True:
            try:
                address = await self._resolve(name, method.version)
            except OSError as exc:
                self._report(
                    part,
                    f"cannot resolve {name} of {method}: {exc.strerror or exc}; look at this host's"
                    " resolv.conf, or name an address",
                )
                await asyncio.sleep(RETRY_S)
                continue
            self._report(part, "")
            # Never again: names with several addresses would have the node's address follow them.
            self._methods[method.version] = replace(method, destination=address)
            self._post(Doubt(f"{name} is {address}"))
            return

    def look(self, inputs: Inputs, node: Node, *, knows_ignored: bool) -> OwnAddresses:
        """Return under which addresses the node is to be known, as things are after a pass.

        Nothing is chosen before `knows_ignored`: which interfaces are none for BGP.
        """
        # The kubelet's word for it is no choice among the host's: it counts as without a method.
        methods = [m for m in self._methods.values() if m.kind is not Kind.INTERNAL_IP]
        detected = [
            self._look_for(method, inputs) if knows_ignored else Detected(method.version, None)
            for method in methods
        ]
        self._look_again_in_time()
        return own_addresses(node, stated=self._stated, host=inputs.addresses, detected=detected)

    def _look_for(self, method: Method, inputs: Inputs) -> Detected:
        version = method.version
        if _is_unresolved(method):
            return Detected(version, None)
        current = self._taken.get(version) or inputs.own_interface(version)
        best = choose(method, self._host(method, inputs), current=current and current.ip)
        standing = settle(
            best,
            current=current,
            doubted_since=self._doubted_since.get(version),
            now=asyncio.get_running_loop().time(),
        )
        self._doubted_since[version] = standing.doubted_since
        if standing.address is not None and standing.address != self._taken.get(version):
            self._taken[version] = standing.address
            _log.info("found the node's address", extra={"address": str(standing.address)})
        complaint = "" if best is not None else nothing_fits(method)
        return Detected(version, self._taken.get(version), complaint)

    def _look_again_in_time(self) -> None:
        """Have a pass made when patience with an address ends: nothing else may happen then."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ends = [at + PATIENCE_S for at in self._doubted_since.values() if at is not None]
        if coming := [end for end in ends if end > loop.time()]:
            doubt = Doubt("the node's address is gone")
            self._timer = loop.call_at(min(coming), self._post, doubt)

    def _host(self, method: Method, inputs: Inputs) -> Host:
        destination = method.destination
        return Host(
            inputs.links,
            inputs.addresses,
            inputs.settings.tunnel_name,
            source=None if isinstance(destination, str) else self._source_to(destination),
            internal_ips=inputs.node.internal_ips if inputs.node is not None else (),
            ignores=inputs.bgp.ignores,
        )

    def explain(self, inputs: Inputs) -> list[dict[str, Any]]:
        """Say of each method what it found, and why nothing else."""
        return [self._explanation(method, inputs) for method in self._methods.values()]

    def _explanation(self, method: Method, inputs: Inputs) -> dict[str, Any]:
        own = inputs.own_interface(method.version)
        host = self._host(method, inputs)
        chosen = choose(method, host, current=own and own.ip)
        if own is None or chosen is None or chosen.interface.ip != own.ip:
            chosen = None  # not the node's, or not yet
        return {
            "version": method.version,
            "setting": method.setting,
            "method": method.text,
            "address": None if own is None else str(own),
            "interface": None if chosen is None else chosen.ifname,
            "passed_over": [_document(one) for one in passed_over(method, host, chosen=chosen)],
        }


def _is_unresolved(method: Method) -> bool:
    return method.kind is Kind.CAN_REACH and isinstance(method.destination, str)


def _document(one: PassedOver) -> dict[str, Any]:
    return {
        "interface": one.ifname,
        "addresses": [str(address) for address in one.addresses],
        "more": one.more,
        "reason": one.reason,
    }
