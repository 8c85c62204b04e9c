"""`pycnictl ipam release`: take back addresses that nobody uses any more, and only these.

Each release names handle and sequence number, so that an address that was given again meanwhile
stays.  What an attachment of this machine holds is taken back under that attachment's lock, after a
look whether it has a record by now: no ADD or DEL of it runs at the same time.
"""

import argparse
import contextlib
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from ipaddress import ip_interface

from pycni.ctl.files import read_input, source_name
from pycni.ctl.ipam_reading import Reading, add_run_dir_argument, address_argument, read
from pycni.ctl.ipam_report import Leak, parse_leaks
from pycni.ctl.output import command
from pycni.ctl.store import open_datastore
from pycni.ctl.usage import EXIT_FAILED, WrongUsage
from pycni.datastore.opening import OpenDatastore
from pycni.errors import InvalidInput, NotFound, PycniError
from pycni.ipam import block as arithmetic
from pycni.ipam.allocator import Allocator
from pycni.ipam.audit import may_live
from pycni.ipam.block import Given
from pycni.ipam.books import handle_name, held_by_name, key_of, node_of, pod_of
from pycni.ipam.lookup import read_books
from pycni.ipam.requests import DatastoreView
from pycni.ipam.soundness import verify
from pycni.ipam.tunnel import tunnel_handle
from pycni.ipam.whereabouts import Standing, locate, rests_until
from pycni.model.endpoints import AssignedAddress
from pycni.model.network import IPAddress
from pycni.model.resources import Block, Handle, Node, cidr_name
from pycni.model.tunnels import TunnelKind

LOCK_TIMEOUT_S = 5.0


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `ipam release` to a command line."""
    release = verbs.add_parser(
        "release",
        help="take back addresses that nobody uses any more",
        description="An address in use is refused, unless --force says otherwise: its pod would go"
        " on using it, and another pod could get the same.",
        epilog="example: pycnictl ipam release --from-report report.json",
    )
    what = release.add_mutually_exclusive_group(required=True)
    what.add_argument("--ip", metavar="A", help="one address")
    what.add_argument("--handle", metavar="H", help="all addresses of a handle, and the handle")
    what.add_argument(
        "--node", metavar="NAME", help="addresses and blocks of a node whose object is deleted"
    )
    what.add_argument(
        "--from-report",
        metavar="FILE",
        help="the leaked addresses of a report (ipam check -o json) that still are as reported;"
        " - reads stdin",
    )
    release.add_argument(
        "--force",
        action="store_true",
        help="--ip, --handle: also what is in use; --from-report: also addresses of nodes whose"
        " records can't be asked from here",
    )
    add_run_dir_argument(release)
    release.set_defaults(func=command(_release))


async def _release(args: argparse.Namespace) -> int:
    address = None if args.ip is None else address_argument(args.ip)
    leaks = []
    if args.from_report is not None:
        source = source_name(args.from_report)
        leaks = parse_leaks(read_input(args.from_report), source=source)
    if args.node is not None and args.force:
        raise WrongUsage("--force has no meaning for --node: delete the Node object first")
    datastore = await open_datastore(args)
    try:
        reading = await read(datastore, args.run_dir)
        releasing = Releasing(datastore, reading, is_forced=args.force)
        if address is not None:
            return await releasing.release_address(address)
        if args.handle is not None:
            return await releasing.release_handle(args.handle)
        if args.node is not None:
            return await releasing.release_node(args.node)
        return await releasing.release_leaks(leaks)
    finally:
        await datastore.close()


class Releasing:
    """One command's releases; each says what it did, and returns an exit status."""

    def __init__(self, datastore: OpenDatastore, reading: Reading, *, is_forced: bool) -> None:
        self._datastore = datastore
        self._reading = reading
        self._is_forced = is_forced
        self._allocator = Allocator(datastore, node="")
        agent = reading.agent
        self._node = None if agent is None else agent.node
        self._endpoints = None if agent is None else agent.open_endpoints()

    # --- one address ----------------------------------------------------------------------------

    async def release_address(self, address: IPAddress) -> int:
        """Release one address that is in use; what is free already is done."""
        view = DatastoreView(self._datastore)
        where = locate(address, books=self._reading.books, reserved=await view.reserved())
        if where.standing is Standing.UNKNOWN and where.block is not None:
            verify(where.block)
        if where.released_at is not None:
            until = rests_until(where.released_at, cooldown_s=(await view.config()).cooldown_s)
            print(f"{address} rests since {where.released_at} until {until}: nothing to release")
            return 0
        if where.given is None:
            print(f"{address} is free already")
            return 0
        self._refuse([where.given])
        return await self._release_given([where.given])

    # --- a handle -------------------------------------------------------------------------------

    async def release_handle(self, handle_id: str) -> int:
        """Release all that a handle holds, and the handle."""
        name = handle_name(handle_id)
        blocks = held_by_name(self._reading.books.sound_blocks).get(name, {})
        given = [one for some in blocks.values() for one in some]
        if not given and all(handle_name(one.id) != name for one in self._reading.books.handles):
            raise NotFound(f"there is no handle {handle_id}: see  pycnictl ipam show --addresses")
        self._refuse(given)
        status = await self._release_given(given)
        await self._drop_empty(handle_id)
        return status

    async def _drop_empty(self, handle_id: str) -> None:
        """Drop a handle that counts what it does not hold."""
        name = handle_name(handle_id)
        stored = await self._datastore.get(Handle, name)
        held = held_by_name((await read_books(self._datastore)).sound_blocks)
        if stored is not None and name not in held:
            await self._allocator.release_by_handle(stored.value.id, was_used=True)
            print(f"dropped handle {stored.value.id}, which held nothing")

    # --- in use ---------------------------------------------------------------------------------

    def _refuse(self, given: Sequence[Given]) -> None:
        reasons = [reason for one in given if (reason := self._use_of(one))]
        if reasons and not self._is_forced:
            advice = (
                "nothing was released: delete the pod, or say --force; then whoever uses the"
                " address goes on using it, and another pod may get the same"
            )
            raise InvalidInput("\n".join([*reasons, advice]))

    def _use_of(self, one: Given) -> str:
        """Return why an address may be in use; "" when nobody is there to use it."""
        node, what = node_of(one.attribute), f"cannot release {one.address}"
        if self._has_record(one) or self._may_live(one):
            return f"{what}: {_who(one)} has a record or an interface on {self._node}, this node"
        if node is not None and node in self._reading.books.nodes:
            return (
                f"{what}: {_who(one)} is on {node}, and that node is there; what has leaked is"
                f" found by  pycnictl ipam check  on {node}"
            )
        return ""

    def _has_record(self, one: Given) -> bool:
        agent = self._reading.agent
        name = handle_name(one.attribute.handle_id or "")
        endpoints = () if agent is None else agent.records.endpoints
        return any(handle_name(endpoint.handle_id) == name for endpoint in endpoints)

    def _may_live(self, one: Given) -> bool:
        agent = self._reading.agent
        return agent is not None and may_live(one, agent.records)

    async def _release_given(self, given: Sequence[Given]) -> int:
        outcomes = [await self._release_one(one) for one in given]
        return 0 if all(outcomes) else EXIT_FAILED

    async def _release_one(self, one: Given) -> bool:
        async with self._lock(one):
            return await self._take_back(one)

    async def _take_back(self, one: Given) -> bool:
        """Release an address as it was seen; say what became of it, and return whether it went."""
        handle_id = one.attribute.handle_id
        if handle_id is None:
            print(f"{one.address}: kept, because no handle holds it; whoever gave it must take it")
            return False
        assigned = AssignedAddress(ip_interface(one.address), one.sequence_number)
        outcome = await self._allocator.release([assigned], handle_id=handle_id, was_used=True)
        if outcome.refused:
            print(f"{one.address}: kept, because it was given again meanwhile")
            return False
        print(f"{one.address}: released, which {_who(one)} held")
        return True

    def _lock(self, one: Given) -> AbstractAsyncContextManager[None]:
        key = key_of(one.attribute)
        if self._endpoints is None or key is None or node_of(one.attribute) != self._node:
            return contextlib.nullcontext()
        return self._endpoints.lock(key, timeout_s=LOCK_TIMEOUT_S)

    # --- a node ---------------------------------------------------------------------------------

    async def release_node(self, node: str) -> int:
        """Release whatever a node that is gone has: addresses, handles and blocks."""
        if await self._datastore.get(Node, node) is not None:
            raise InvalidInput(
                f"node {node} is there: stop its agent, then  pycnictl delete node {node}"
            )
        if node == self._node:
            raise InvalidInput(f"the agent of node {node} runs here: stop it first")
        books = self._reading.books
        given = [
            one
            for block in books.sound_blocks
            for one in arithmetic.given(block)
            if node_of(one.attribute) == node
        ]
        cidrs = [one.cidr for one in books.affinities if one.node == node]
        status = await self._release_given(given)
        for kind in TunnelKind:
            await self._drop_empty(tunnel_handle(node, kind))
        owner = Allocator(self._datastore, node=node)
        for cidr in cidrs:
            await owner.release_affinity(cidr)
            left = await self._datastore.get(Block, cidr_name(cidr))
            print(f"{cidr}: {_left(left.value) if left else 'deleted'}")
        if not given and not cidrs:
            print(f"node {node} has nothing")
        return status

    # --- a report -------------------------------------------------------------------------------

    async def release_leaks(self, leaks: Sequence[Leak]) -> int:
        """Release what is still just as it was reported."""
        is_complete = True
        for leak in leaks:
            try:
                is_complete &= await self._release_leak(leak)
            except PycniError as exc:
                print(f"{leak.address}: kept, because of an error: {exc}")
                is_complete = False
        if not leaks:
            print("the report has no leaked addresses")
        return 0 if is_complete else EXIT_FAILED

    async def _release_leak(self, leak: Leak) -> bool:
        """Release one address; return False when nobody could tell whether it has leaked."""
        one = await self._as_reported(leak)
        if one is None:
            print(f"{leak.address}: kept, because it is not held as reported any more")
            return True
        if self._endpoints is None or leak.node != self._node:
            if self._is_forced:
                return await self._release_one(one)
            print(
                f"{leak.address}: kept, because its record can't be looked for here:"
                f" run this on {leak.node}, beside its agent"
            )
            return False
        key = key_of(one.attribute)
        if key is None:
            print(f"{leak.address}: kept, because it was not given by pycni")
            return True
        if self._may_live(one):
            print(f"{leak.address}: kept, because the pod has an interface or a damaged record")
            return True
        async with self._endpoints.lock(key, timeout_s=LOCK_TIMEOUT_S):
            has_record = self._endpoints.get(key) is not None
            if has_record or self._endpoints.get_pending(key) is not None:
                what = "a record" if has_record else "a journalled release"
                print(f"{leak.address}: kept, because {_who(one)} has {what} by now")
                return True
            return await self._take_back(one)

    async def _as_reported(self, leak: Leak) -> Given | None:
        stored = await self._datastore.get(Block, cidr_name(leak.block))
        if stored is None:
            return None
        verify(stored.value)
        for one in arithmetic.given(stored.value):
            is_same_turn = one.sequence_number == leak.sequence_number
            is_same_holder = one.attribute.handle_id == leak.handle_id
            if one.address == leak.address and is_same_turn and is_same_holder:
                return one if node_of(one.attribute) == leak.node else None
        return None


def _who(one: Given) -> str:
    pod = pod_of(one.attribute)
    return f"pod {pod}" if pod else f"handle {one.attribute.handle_id}"


def _left(block: Block) -> str:
    """Say what became of a block that is still there."""
    count = len(arithmetic.given(block))
    return f"has no owner any more, and goes with the last of {count} addresses of others"
