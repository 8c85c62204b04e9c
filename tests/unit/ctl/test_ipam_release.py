"""`ipam release`: what it takes back, and what it refuses to."""

import asyncio
from dataclasses import replace

import pytest

from pycni.ctl.ipam_reading import Reading
from pycni.ctl.ipam_release import Releasing
from pycni.ipam import block as arithmetic
from pycni.model.resources import (
    AffinityState,
    Block,
    BlockAffinity,
    Handle,
    IPAMConfig,
    Node,
)
from tests.unit.ctl.conftest import Machine, held
from tests.unit.written_books import (
    AFFINITY,
    CIDR,
    DETAILS,
    FREE,
    GONE,
    KEY,
    OTHER,
    POD,
    POD_HANDLE,
    POOL,
    THERE,
    TUNNEL,
    TUNNEL_HANDLE,
    books,
    endpoint,
    full_block,
    give,
)


def handles(machine: Machine) -> list[str]:
    return [one.id for one in machine.kinds(Handle)]


# --- one address --------------------------------------------------------------------------------


def test_address_of_a_node_that_is_gone_is_released(machine: Machine) -> None:
    machine.write(*GONE)

    said = machine.said("release", "--ip", str(POD))

    assert said == f"{POD}: released, which pod default/web held"
    assert held(machine) == [str(TUNNEL)]
    assert handles(machine) == [TUNNEL_HANDLE]


def test_address_of_a_node_that_is_there_is_refused(machine: Machine) -> None:
    machine.write(*THERE)

    said = machine.said("release", "--ip", str(POD), status=1)

    assert f"cannot release {POD}: pod default/web is on node-0, and that node is there" in said
    assert "say --force; then whoever uses the address goes on using it" in said
    assert len(held(machine)) == 2


def test_address_with_a_record_here_is_refused(agent: Machine) -> None:
    agent.write(*GONE)
    agent.serve(endpoint())

    said = agent.said("release", "--ip", str(POD), status=1)

    assert "pod default/web has a record or an interface on node-0, this node" in said
    assert len(held(agent)) == 2


def test_address_of_a_pod_that_lost_its_record_is_refused(agent: Machine) -> None:
    agent.write(*GONE)
    agent.serve(aliases=["pycni:net/C1/eth0"])

    assert "or an interface on node-0" in agent.said("release", "--ip", str(POD), status=1)


def test_force_releases_what_is_in_use(agent: Machine) -> None:
    agent.write(*THERE)
    agent.serve(endpoint())

    assert agent.ctl("release", "--ip", str(POD), "--force") == 0
    assert held(agent) == [str(TUNNEL)]


def test_attachment_that_is_being_added_is_waited_for(
    agent: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.write(*THERE)
    agent.serve()
    monkeypatch.setattr("pycni.ctl.ipam_release.LOCK_TIMEOUT_S", 0.01)

    async def locked() -> int:
        async with agent.endpoints.lock(KEY, timeout_s=1):
            return await asyncio.to_thread(agent.ctl, "release", "--ip", str(POD), "--force")

    assert asyncio.run(locked()) == 1
    assert len(held(agent)) == 2


@pytest.mark.parametrize("address", [str(FREE), "10.1.2.3", "fd00::1"])
def test_free_address_is_done_already(machine: Machine, address: str) -> None:
    machine.write(*THERE)

    assert machine.said("release", "--ip", address) == f"{address} is free already"


def test_released_address_rests_and_is_not_released_again(machine: Machine) -> None:
    machine.write(*GONE, IPAMConfig(cooldown_s=60))

    assert machine.ctl("release", "--ip", str(POD)) == 0

    assert f"{POD} rests since 20" in machine.said("release", "--ip", str(POD))
    assert [str(one) for one, _ in arithmetic.resting(machine.kinds(Block)[0])] == [str(POD)]


def test_address_without_a_handle_is_nobodys_to_release(machine: Machine) -> None:
    block = full_block()
    nameless = tuple(replace(one, handle_id=None) for one in block.attributes)
    machine.write(POOL, AFFINITY, replace(block, attributes=nameless))

    assert "no handle holds it" in machine.said("release", "--ip", str(POD), status=1)


def test_address_of_a_corrupt_block_is_refused(machine: Machine) -> None:
    machine.write(POOL, replace(full_block(), unallocated=()))

    assert "is corrupt" in machine.said("release", "--ip", str(POD), status=1)


@pytest.mark.parametrize(
    "words", [["--ip", "nonsense"], ["--node", "node-0", "--force"], ["--ip", "10.0.0.0/8"]]
)
def test_wrong_words_exit_with_2(machine: Machine, words: list[str]) -> None:
    assert machine.ctl("release", *words) == 2


@pytest.mark.parametrize("words", [[], ["--ip", "10.0.0.1", "--handle", "h"]])
def test_just_one_thing_is_released(machine: Machine, words: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        machine.ctl("release", *words)

    assert end.value.code == 2


def test_address_that_was_given_again_since_it_was_read_stays(machine: Machine) -> None:
    machine.write(POOL, give(full_block(), "net.c2", **DETAILS), AFFINITY, *books().handles)
    stale = give(full_block(), POD_HANDLE, **DETAILS)
    reading = Reading(books(blocks=(stale,), nodes=frozenset(), records=()))

    status = machine.work(
        lambda store: Releasing(store, reading, is_forced=True).release_address(FREE)
    )

    assert status == 1
    assert machine.capsys.readouterr().out == (
        f"{FREE}: kept, because it was given again meanwhile\n"
    )
    assert str(FREE) in held(machine)


# --- a handle -----------------------------------------------------------------------------------


def test_handle_goes_with_all_spellings_of_its_name(machine: Machine) -> None:
    machine.write(
        POOL,
        AFFINITY,
        give(full_block(), "NET.c1", **DETAILS),
        Handle("net.c1", ((CIDR, 2),)),
        books().handles[1],
    )

    assert machine.ctl("release", "--handle", "Net.C1") == 0
    assert held(machine) == [str(TUNNEL)]
    assert handles(machine) == [TUNNEL_HANDLE]


def test_handle_that_holds_nothing_is_dropped(machine: Machine) -> None:
    machine.write(*THERE, Handle("left", ((CIDR, 1),)))

    assert machine.said("release", "--handle", "left") == "dropped handle left, which held nothing"
    assert "left" not in handles(machine)


def test_handle_in_use_is_refused(agent: Machine) -> None:
    agent.write(*THERE)
    agent.serve(endpoint())

    assert "has a record" in agent.said("release", "--handle", POD_HANDLE, status=1)
    assert len(held(agent)) == 2


def test_unknown_handle_is_said(machine: Machine) -> None:
    machine.write(*THERE)

    assert "there is no handle x" in machine.said("release", "--handle", "x", status=1)


# --- a node -------------------------------------------------------------------------------------


def test_everything_of_a_node_that_is_gone_is_released(machine: Machine) -> None:
    pending = BlockAffinity("node-0", OTHER, AffinityState.PENDING)
    machine.write(*GONE, pending, IPAMConfig(cooldown_s=60))

    assert machine.said("release", "--node", "node-0").splitlines() == [
        f"{TUNNEL}: released, which handle {TUNNEL_HANDLE} held",
        f"{POD}: released, which pod default/web held",
        f"{CIDR}: deleted",
        f"{OTHER}: deleted",
    ]
    assert [machine.kinds(kind) for kind in (Block, BlockAffinity, Handle)] == [[], [], []]
    assert machine.said("release", "--node", "node-0") == "node node-0 has nothing"


def test_what_others_borrowed_of_a_gone_node_stays_theirs(machine: Machine) -> None:
    block = give(full_block(), "net.other", **DETAILS | {"node": "node-1"})
    machine.write(
        POOL, AFFINITY, Node("node-1"), block, *books().handles, Handle("net.other", ((CIDR, 1),))
    )

    said = machine.said("release", "--node", "node-0")

    assert "has no owner any more, and goes with the last of 1 addresses of others" in said
    assert held(machine) == [str(FREE)]
    assert machine.said("check").startswith("findings: 0")


def test_node_that_is_there_is_refused(machine: Machine) -> None:
    machine.write(*THERE)

    assert "node node-0 is there: stop its agent" in machine.said(
        "release", "--node", "node-0", status=1
    )
    assert len(held(machine)) == 2


def test_node_whose_agent_runs_here_is_refused(agent: Machine) -> None:
    agent.write(*GONE)
    agent.serve()

    assert "runs here: stop it" in agent.said("release", "--node", "node-0", status=1)
