"""What is removed from a host that has lost its agent, beside what any pass removes."""

from pycni.model.network import SetSysctl
from pycni.plan.leftovers import plan_removal, sysctls_of_tunnel
from tests.unit.plan.test_delta import OWNERSHIP, TUNNEL_ADDRESS, have

OWN, USUAL = sysctls_of_tunnel("tunl0")


def set_back(*, own: str | None, usual: str | None = None, has_address: bool = True) -> list[str]:
    """Return to what the tunnel's reverse-path filter is set."""
    values = {name: value for name, value in ((OWN, own), (USUAL, usual)) if value is not None}
    there = have(sysctls=values, addresses={TUNNEL_ADDRESS} if has_address else set())
    ops = plan_removal(there, ownership=OWNERSHIP)
    return [op.value for op in ops if isinstance(op, SetSysctl)]


def test_the_tunnels_filter_is_as_that_of_a_new_interface() -> None:
    assert set_back(own="0", usual="2") == ["2"]
    assert set_back(own="1") == ["0"]


def test_a_filter_that_is_so_already_or_of_a_tunnel_that_stays_is_left_alone() -> None:
    assert set_back(own="2", usual="2") == []
    assert set_back(own=None, usual="2") == []
    assert set_back(own="0", usual="2", has_address=False) == []
