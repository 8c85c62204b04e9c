"""Which address of a block is chosen, and when the block is passed over."""

from ipaddress import ip_address, ip_network

import pytest

from pycni.errors import InvalidInput
from pycni.ipam.block import Rested, auto_assign, new_block
from pycni.ipam.choices import any_address, one_address
from pycni.ipam.requests import AssignRequest
from pycni.ipam.reserved import NOTHING

BLOCK = new_block(ip_network("192.168.0.0/30"), affinity="node-0", sequence_number=1)
RESTED = Rested(by="", now="")
REQUEST = AssignRequest(handle_id="h")


def test_next_address_of_ones_own_block_is_chosen() -> None:
    chosen = any_address(REQUEST, only_of="node-0", reserved=NOTHING, rested=RESTED)(BLOCK)

    assert chosen is not None
    assert chosen[1] == ip_address("192.168.0.0")


def test_anothers_block_is_passed_over() -> None:
    assert any_address(REQUEST, only_of="node-1", reserved=NOTHING, rested=RESTED)(BLOCK) is None
    assert any_address(REQUEST, only_of=None, reserved=NOTHING, rested=RESTED)(BLOCK) is not None


def test_full_block_is_passed_over() -> None:
    block = BLOCK
    for _ in range(4):
        chosen = any_address(REQUEST, only_of="node-0", reserved=NOTHING, rested=RESTED)(block)
        assert chosen is not None
        block = chosen[0]

    assert any_address(REQUEST, only_of="node-0", reserved=NOTHING, rested=RESTED)(block) is None


def test_a_block_without_room_beside_is_passed_over() -> None:
    request = AssignRequest(handle_id="h", beside="gateway")
    choose = any_address(request, only_of="node-0", reserved=NOTHING, rested=RESTED)
    of_three, _ = auto_assign(BLOCK, count=3, handle_id="others")
    of_two, _ = auto_assign(BLOCK, count=2, handle_id="others")
    gateways, _ = auto_assign(of_two, count=1, handle_id="gateway")
    single = new_block(ip_network("192.168.0.0/32"), affinity="node-0", sequence_number=1)

    assert choose(of_three) is None
    assert choose(of_two) is not None
    assert choose(gateways) is not None
    assert choose(single) is not None  # who asks is told that it has no room at all


def test_particular_address_of_anothers_block_needs_borrowing() -> None:
    address = ip_address("192.168.0.2")

    assert one_address(REQUEST, address, only_of=None)(BLOCK) is not None
    with pytest.raises(InvalidInput, match="strictAffinity"):
        one_address(REQUEST, address, only_of="node-1")(BLOCK)
