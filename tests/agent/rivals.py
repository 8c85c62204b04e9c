"""Other programs that write, replace and delete our very routes, also between our operations.

What the kernel tells of it may be read late: a listener that has much to do is behind.
"""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import hypothesis.strategies as st

from pycni.errors import TryAgain
from pycni.kernel.fake import FakeKernel
from pycni.kernel.fake_tables import Refused
from pycni.model.network import Failure, KernelState, Op, Route
from pycni.plan.iproute import route_text
from tests.agent.histories import (
    BLOCKS,
    Event,
    World,
    nodes,
    post,
    session,
    told,
)
from tests.unit.plan.samples import affinity, by_tunnel, pool


@dataclass(frozen=True)
class Deed:
    """What another program does to a route, if the kernel lets it."""

    verbs: Sequence[str]
    route: Route

    def __str__(self) -> str:
        return f"{' and '.join(self.verbs)} {route_text(self.route)}"

    def do(self, kernel: FakeKernel) -> None:
        act: dict[str, Callable[[Route], None]] = {
            "create": kernel.create_route,
            "append": kernel.append_route,
            "replace": kernel.overwrite_route,
            "delete": kernel.delete_route,
        }
        for verb in self.verbs:
            with suppress(Refused, KeyError):
                act[verb](self.route)


@dataclass(frozen=True)
class Happening:
    """An event with a name, to be read in an example that fails."""

    name: str
    event: "Callable[[SharedWorld], None]" = field(repr=False)

    def __call__(self, world: "SharedWorld") -> None:
        self.event(world)


class SharedKernel(FakeKernel):
    """A kernel in which others act between our operations."""

    def __init__(self) -> None:
        super().__init__()
        self.between: deque[Deed] = deque()
        """One for each of our next operations, before which it is done."""
        self.reads = 0
        self._breaks_after: int | None = None

    def break_after(self, number: int | None) -> None:
        """Lose the answers of the next operations, behind the first ones."""
        self._breaks_after = number

    async def snapshot(self, sysctls: Sequence[str]) -> KernelState:
        self.reads += 1
        return await super().snapshot(sysctls)

    async def apply(self, ops: Sequence[Op]) -> Sequence[Failure]:
        failures: list[Failure] = []
        for number, op in enumerate(ops):
            if self.between:
                self.between.popleft().do(self)
            failures += await super().apply([op])
            if self._breaks_after == number:
                self._breaks_after = None
                raise TryAgain("cannot write routes: no buffer space")
        return failures


@dataclass
class SharedWorld(World):
    """A node that learns routes from two others, among rivals."""

    kernel: SharedKernel = field(default_factory=SharedKernel)

    def calm(self) -> None:
        """Let others do nothing more, and tell of all that they have done."""
        self.kernel.between.clear()
        self.kernel.break_after(None)
        self.kernel.hold_events(is_held=False)


FACTS: list[Event] = [
    lambda w: w.write(replace(pool(), name="p")),
    *(lambda w, n=n: w.write(nodes(n)) for n in range(3)),
    *(lambda w, n=n: w.write(affinity(BLOCKS[n], "node-1")) for n in range(2)),
    post(*session(1, is_up=True), *session(2, is_up=True)),
    post(told(1, *BLOCKS[:2]), told(2, *BLOCKS[:2])),
]
"""Both announce all blocks, and only the one to which a block belongs is believed."""

# Mostly one route and one peer's word about it, lest they hardly ever meet.
blocks = st.sampled_from([0, 0, 0, 1])
others = st.sampled_from([1, 1, 1, 2])


def _route(block: int, via: str, protocol: int) -> Route:
    return by_tunnel(BLOCKS[block], via, protocol=protocol)


OURS = _route(0, "10.0.0.2", 12)
"""What is wanted by these facts for the first block."""

routes = st.just(OURS) | st.builds(
    _route, blocks, st.sampled_from(["10.0.0.2", "10.0.1.3"]), st.sampled_from([4, 12])
)
# A router that starts again removes what it finds and writes it anew.
ANEW = ["delete", "create"]
VERBS = [["create"], ["append"], ["replace"], ["delete"], ANEW, ANEW]
deeds = st.builds(Deed, st.sampled_from(VERBS), routes)


def _at_once(deed: Deed) -> Happening:
    return Happening(str(deed), lambda w: deed.do(w.kernel))


def _between(deed: Deed) -> Happening:
    return Happening(f"before our next operation: {deed}", lambda w: w.kernel.between.append(deed))


def _hold(is_held: bool) -> Happening:
    return Happening(f"hold {is_held}", lambda w: w.kernel.hold_events(is_held=is_held))


def _break(after: int) -> Happening:
    return Happening(f"no answer after {after}", lambda w: w.kernel.break_after(after))


def _own(block: int, owner: int) -> Happening:
    claim = affinity(BLOCKS[block], f"node-{owner}")
    return Happening(f"{block} is of {owner}", lambda w: w.write(claim))


def _nat(has_nat: bool) -> Happening:
    return Happening(
        f"nat {has_nat}", lambda w: w.write(replace(pool(), name="p", nat_outgoing=has_nat))
    )


def announce(number: int, block: int) -> Happening:
    return Happening(f"{number} announces {block}", post(told(number, BLOCKS[block])))


def withdraw(number: int, block: int) -> Happening:
    return Happening(f"{number} withdraws {block}", post(told(number, withdrawn=[BLOCKS[block]])))


deeds_of_rivals = deeds.map(_at_once) | deeds.map(_between)
wishes: st.SearchStrategy[Happening] = st.one_of(
    st.builds(announce, others, blocks),
    st.builds(withdraw, others, blocks),
    st.builds(_own, blocks, others),
)
hindrances = st.booleans().map(_hold) | st.integers(0, 1).map(_break) | st.booleans().map(_nat)
Round = tuple[Happening, Happening, Happening | None, float]
rounds: st.SearchStrategy[Round] = st.tuples(
    deeds_of_rivals, wishes, st.none() | hindrances, st.sampled_from([0.0, 0.02, 0.2])
)
"""What a rival does, what others want of us then, what hinders us, and a pause after it."""
