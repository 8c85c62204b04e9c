"""The words in which a node hears that there is no address for it."""

from ipaddress import IPv4Network

import pytest

from pycni.ipam import block as arithmetic
from pycni.ipam.refusals import cut_otherwise, limit_reached, nothing_free
from pycni.ipam.reserved import NOTHING, Reserved
from pycni.model.resources import Block, IPAMConfig, IPPool, IPReservation
from tests.unit.spoilt_blocks import SPOILS, Spoil

SMALL = IPPool("small", IPv4Network("10.9.0.0/29"), block_size=30)
BIG = IPPool("big", IPv4Network("10.8.0.0/24"))
FIRST, SECOND = IPv4Network("10.9.0.0/30"), IPv4Network("10.9.0.4/30")
WHAT = "an IPv4 address to pod"


def block(cidr: IPv4Network = FIRST, *, owner: str = "a", resting: int = 0) -> Block:
    """Return a full block, in which some addresses rest."""
    made = arithmetic.new_block(cidr, affinity=owner, sequence_number=1)
    for number in range(cidr.num_addresses):
        made, _ = arithmetic.auto_assign(made, count=1, handle_id=f"h{number}", attributes=())
    for number in range(resting):
        made = arithmetic.release_by_handle(made, f"h{number}", resting_since="2026").block
    return made


def limit(*blocks: Block, reserved: Reserved = NOTHING, pool: IPPool = SMALL) -> str:
    refusal = limit_reached(
        WHAT, node="a", pools=[pool], owned=2, limit=1, blocks=blocks, reserved=reserved
    )
    return str(refusal)


def nothing(*blocks: Block, config: IPAMConfig, reserved: Reserved = NOTHING) -> str:
    refusal = nothing_free(
        WHAT, node="a", pools=[SMALL, BIG], config=config, blocks=blocks, reserved=reserved
    )
    return str(refusal)


def test_blocks_at_the_limit_are_called_full_only_where_they_are() -> None:
    start = (
        "cannot assign an IPv4 address to pod: a owns 2 blocks, the limit is 1"
        " (maxBlocksPerHost of IPAMConfiguration), and "
    )
    end = "; see `pycnictl ipam show`"
    said = "nothing is free in those of small (10.9.0.0/29)"

    assert limit(block()) == f"{start}{said}{end}"
    assert limit(block(resting=2)) == f"{start}{said} (2 rest after their last use){end}"
    assert limit(block(owner="b")) == f"{start}none of them lies in small (10.9.0.0/29){end}"
    assert limit(block(), pool=BIG) == f"{start}none of them lies in big (10.8.0.0/24){end}"


def test_what_others_hold_back_is_not_the_limits() -> None:
    assert "rest" not in limit(block(), block(SECOND, owner="b", resting=1)).partition("; ")[0]


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_nothing_is_counted_of_a_block_that_contradicts_itself(spoil: Spoil) -> None:
    spoilt = spoil(block(resting=2))

    assert nothing(spoilt, config=IPAMConfig()) == nothing(config=IPAMConfig())
    assert "1 rest after" in limit(spoilt, block(SECOND, resting=1))


def test_reserved_addresses_are_counted_where_they_are_free() -> None:
    freed = arithmetic.release_by_handle(block(resting=1), "h3").block
    kept = Reserved([IPReservation("kept", (FIRST,))])

    said = "(1 rest after their last use, 1 more in its blocks are reserved)"
    assert said in limit(freed, reserved=kept)
    assert said in nothing(freed, config=IPAMConfig(), reserved=kept)


def test_a_block_of_another_size_that_is_in_the_way_is_named() -> None:
    there = IPv4Network("10.9.0.12/30")

    said = str(cut_otherwise("10.9.0.9 to pod", cidr=IPv4Network("10.9.0.8/29"), other=there))

    assert said.startswith("cannot assign 10.9.0.9 to pod: its block 10.9.0.8/29 can't be made")
    assert "block 10.9.0.12/30, of another size, is there; delete that one" in said


def test_several_reasons_are_told_together() -> None:
    freed = arithmetic.release_by_handle(block(resting=1), "h3").block
    kept = Reserved([IPReservation("kept", (FIRST,))])

    said = nothing(freed, config=IPAMConfig(is_strict_affinity=True), reserved=kept)

    assert "in small (10.9.0.0/29), big (10.8.0.0/24) within this node's blocks" in said
    assert "(strictAffinity is on) (1 rest after their last use, 1 more in its blocks" in said


def test_settings_that_keep_a_node_to_its_own_blocks_are_named() -> None:
    start = "cannot assign an IPv4 address to pod on a: nothing is free in small (10.9.0.0/29), big"

    for config, why in (
        (IPAMConfig(), ""),
        (IPAMConfig(is_strict_affinity=True), "strictAffinity is on"),
        (IPAMConfig(is_auto_allocating_blocks=False), "autoAllocateBlocks is off"),
    ):
        within = f" within this node's blocks ({why})" if why else ""
        assert nothing(config=config) == (
            f"{start} (10.8.0.0/24){within}; add a pool, or see `pycnictl ipam show`"
        )
