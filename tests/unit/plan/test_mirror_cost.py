"""What happens often must cost no more where there is more of everything."""

from typing import Any

from pycni.model.linklayer import EntryKey, LinkLayerEntry
from pycni.model.network import KernelState, Link, LinkGone
from pycni.plan.mirror import apply_event


class Counting(dict[EntryKey, LinkLayerEntry]):
    """Entries that count how often somebody walks over all of them."""

    walks = 0

    def items(self) -> Any:  # noqa: ANN401 - dict_items has no name.
        self.walks += 1
        return super().items()


def test_a_pods_link_that_goes_costs_no_walk_over_the_entries() -> None:
    entries = Counting()
    state = KernelState(links={"cali1": Link("cali1", 4, "veth")}, neighbours=entries)

    apply_event(state, LinkGone("cali1"))

    assert (entries.walks, state.links) == (0, {})
