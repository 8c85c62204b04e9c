"""What must not be deleted yet, because its source was not heard."""

import pytest

from pycni.model.network import (
    Route,
)
from pycni.plan.delta import Gate
from tests.unit.plan.test_delta import CLOSED, blackhole, have, learned, pod_route, texts, want


@pytest.mark.parametrize(
    ("gate", "route"),
    [
        (Gate(blocks_ready=False), blackhole()),
        (Gate(blocks_ready=False), learned()),
        (Gate(learned_ready=False), learned()),
        (Gate(endpoints_ready=False), pod_route()),
    ],
)
def test_nothing_is_deleted_before_its_source_was_heard(gate: Gate, route: Route) -> None:
    assert texts(want(), have(route), gate=gate) == []


@pytest.mark.parametrize(
    ("gate", "route"),
    [
        (Gate(endpoints_ready=False, learned_ready=False), blackhole()),
        (Gate(endpoints_ready=False), learned()),
        (Gate(blocks_ready=False, learned_ready=False), pod_route()),
    ],
)
def test_each_source_has_a_gate_of_its_own(gate: Gate, route: Route) -> None:
    assert len(texts(want(), have(route), gate=gate)) == 1


def test_adding_and_replacing_never_wait() -> None:
    assert texts(want(blackhole(), learned(dev="eth0")), have(learned()), gate=CLOSED) == [
        "AddRoute blackhole 192.168.39.192/26 proto bird",
        "ReplaceRoute B via 10.0.0.2 dev tunl0 proto bird onlink by 10.0.0.2 dev eth0 proto bird",
    ]


def test_a_second_route_of_ours_waits_for_its_gate_too() -> None:
    assert texts(want(learned()), have(learned(), learned(via="10.0.0.3")), gate=CLOSED) == []
