"""An engine whose process ends between two steps of its work."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.agent.cluster import NodeAgent
from tests.agent.death import Died
from tests.agent.verbs.stories import Proxy, ask


def die_after(node: NodeAgent, step: str) -> Callable[[], None]:
    """Let the engine's process end right after a step; return how to start another."""
    engine = node.engine
    kept = (engine.endpoints, engine.podnet, engine.allocator)
    is_dead = False

    def check() -> None:
        if is_dead:
            raise Died

    def then_die(real: Callable[..., Any], *, on: str, nth: int = 1) -> Callable[..., Any]:
        count = 0

        def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever the real one does.
            nonlocal count, is_dead
            check()
            result = real(*args, **options)
            count += 1
            if on == step and count == nth:
                is_dead = True
                raise Died
            return result

        return call

    def then_die_async(real: Callable[..., Any], *, on: str) -> Callable[..., Any]:
        async def call(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever the real one does.
            nonlocal is_dead
            check()
            result = await real(*args, **options)
            if on == step:
                is_dead = True
                raise Died
            return result

        return call

    # The records are written: intent, complete; for a DEL: unfinished.
    number = {"intent": 1, "recorded": 2, "unfinished": 1}.get(step, 99)
    on = step if number != 99 else "never"
    engine.endpoints = Proxy(
        node.endpoints,
        put=then_die(node.endpoints.put, on=on, nth=number),
        remove=then_die(node.endpoints.remove, on="never"),
        journal=then_die(node.endpoints.journal, on="never"),
    )
    engine.podnet = Proxy(
        node.podnet,
        plug=then_die(node.podnet.plug, on="plugged"),
        unplug=then_die_async(node.podnet.unplug, on="unplugged"),
    )
    engine.allocator = Proxy(  # type: ignore[assignment]  # by delegation
        node.allocator,
        assign=then_die_async(node.allocator.assign, on="assigned"),
        release=then_die_async(node.allocator.release, on="released"),
        release_by_handle=then_die_async(node.allocator.release_by_handle, on="released"),
    )

    def start_anew() -> None:
        engine.endpoints, engine.podnet, engine.allocator = kept

    return start_anew


async def crash(node: NodeAgent, verb: str, step: str) -> None:
    start_anew = die_after(node, step)
    with pytest.raises(Died):
        await ask(node, verb, fd=7)
    start_anew()
