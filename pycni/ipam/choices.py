"""What to do with one block, as it is at the moment of looking: pure, for the loops to repeat."""

from collections.abc import Callable

from pycni.errors import InvalidInput
from pycni.ipam import block as arithmetic
from pycni.ipam.block import Rested
from pycni.ipam.requests import AssignRequest
from pycni.ipam.reserved import Reserved
from pycni.model.network import IPAddress
from pycni.model.resources import Block

# The block afterwards and the address given, or None to pass the block over.
Choose = Callable[[Block], tuple[Block, IPAddress] | None]


def any_address(
    request: AssignRequest, *, only_of: str | None, reserved: Reserved, rested: Rested
) -> Choose:
    """Choose the next unreserved address, of a block of the node `only_of` (None: any node's).

    Those that have `rested` are free again.
    """
    passed_over = reserved or None

    def has_room_beside(block: Block) -> bool:
        # Of one address it is said in so many words that it has none (`pycni.cni.gateways`).
        if len(block.allocations) == 1 or arithmetic.given_to(block, request.beside):
            return True
        _, more = arithmetic.auto_assign(
            block, count=1, handle_id=request.beside, reserved=passed_over
        )
        return bool(more)

    def choose(block: Block) -> tuple[Block, IPAddress] | None:
        if only_of is not None and block.affinity != only_of:
            return None
        after, addresses = arithmetic.auto_assign(
            arithmetic.awake(block, rested=rested),
            count=1,
            handle_id=request.handle_id,
            attributes=request.attributes,
            reserved=passed_over,
        )
        if not addresses or (request.beside and not has_room_beside(after)):
            return None
        return after, addresses[0]

    return choose


def one_address(request: AssignRequest, address: IPAddress, *, only_of: str | None) -> Choose:
    """Choose a particular address; raise `AlreadyExists` when it is in use."""

    def choose(block: Block) -> tuple[Block, IPAddress]:
        if only_of is not None and block.affinity != only_of:
            raise InvalidInput(
                f"cannot assign {address} to {request.handle_id}: its block {block.cidr} belongs"
                f" to {block.affinity or 'no node'}, not to {only_of}, and strictAffinity forbids"
                " to borrow"
            )
        after = arithmetic.assign(
            block, address, handle_id=request.handle_id, attributes=request.attributes
        )
        return after, address

    return choose
