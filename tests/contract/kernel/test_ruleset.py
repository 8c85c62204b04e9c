"""What every implementation of the `Kernel` door does with our nftables table."""

from ipaddress import ip_address

import pytest

from pycni.model.network import DeleteRuleset, RulesetChanged, SetRuleset
from pycni.plan.nat import NatInputs, render
from tests.contract.kernel.worlds import World, apply, outside, watch


def test_ruleset_is_set_watched_and_deleted(node: World) -> None:
    unavailable = node.snapshot().nat_unavailable
    if unavailable is not None:
        pytest.skip(unavailable.reason)
    first = render(NatInputs())
    second = render(NatInputs(nodes=frozenset({ip_address("10.0.0.1")})))

    assert apply(node, SetRuleset(first)) == []
    assert node.snapshot().ruleset == first.digest
    assert apply(node, SetRuleset(second), SetRuleset(second)) == []
    assert node.snapshot().ruleset == second.digest

    watch(node, outside(node.tamper_with_ruleset), until=lambda e: isinstance(e, RulesetChanged))
    assert node.snapshot().ruleset not in {second.digest, None}
    told = watch(node, outside(node.delete_ruleset), until=lambda e: isinstance(e, RulesetChanged))
    assert told[-1] == RulesetChanged(None)
    assert apply(node, SetRuleset(first), DeleteRuleset(), DeleteRuleset()) == []
    assert node.snapshot().ruleset is None
