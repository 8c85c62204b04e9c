"""A crash at each system call in turn: whatever dies when, a retry or the next GC makes it good.

A process is killed on entering its Nth system call, for N from 1 to the first run that lives to its
end.  After each crash the runtime does what runtimes do: the same verb again, a DEL, or a GC that
lists nothing.  Then the host has to be as if the request had been made once, or never.
"""

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest

from conftest import namespaces
from faults import EVERYTHING_INVALID, FaultyHost
from killing import Ran
from plugin_host import plugin_host

pytestmark = [pytest.mark.netns, pytest.mark.timeout(600)]

MOST_CALLS = 20_000
"""A sweep that has not come to its end by then never will."""
STEP = int(os.environ.get("PYCNI_FAULT_STEP", "80"))
"""While the executables load they only read; `make soak` takes each of these thousands of calls."""
AFTER_ADD = ("ADD", "DEL", "GC")
AFTER_DEL = ("DEL", "GC")


@contextlib.contextmanager
def faulty_host(factory: pytest.TempPathFactory, *, relay: str) -> Iterator[FaultyHost]:
    """Make a host without agent."""
    with (
        namespaces() as make,
        plugin_host(factory.mktemp("h"), make, relay=relay, has_agent=False) as installed,
    ):
        yield FaultyHost.of(installed)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyHost]:
    """Return a host with the relay in C."""
    with faulty_host(tmp_path_factory, relay="c") as made:
        yield made


@pytest.fixture(scope="module")
def python_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyHost]:
    """Return a host with the relay in Python."""
    with faulty_host(tmp_path_factory, relay="python") as made:
        yield made


def sweep(
    kill: Callable[[int], Ran], mend: Callable[[], None], *, least: int, step: int = 1
) -> None:
    """Kill at each call in turn, mend after each; there must be `least` of them at least."""
    for at in range(1, MOST_CALLS, step):
        ran = kill(at)
        try:
            mend()
        except AssertionError as exc:
            exc.add_note(str(ran))
            raise
        if not ran.was_killed:
            assert at > least, f"only {at} calls were seen"
            return
    pytest.fail(f"there is no end after {MOST_CALLS} calls")


def require_one_pod(host: FaultyHost) -> None:
    """Add the pod, whatever there is of it; it must be as if it was added once."""
    added = host.engine("ADD")
    host.engine("CHECK", prevResult=added.document)
    assert host.findings() == []
    assert sorted(f"{address}" for address in host.given()) == sorted(
        address.partition("/")[0] for address in added.addresses
    )


def mender(host: FaultyHost, first: str) -> Callable[[], None]:
    """Return what the runtime does after a crash, and what must be there then: nothing."""
    before = host.things()

    def mend() -> None:
        if first == "ADD":
            require_one_pod(host)
        if first == "GC":
            host.engine("GC", **EVERYTHING_INVALID)
        else:
            host.engine("DEL")
        assert host.things() == before
        assert host.findings() == []

    return mend


@pytest.mark.parametrize("first", AFTER_ADD)
def test_the_engine_dies_during_add(host: FaultyHost, first: str) -> None:
    sweep(lambda at: host.engine_killed("ADD", at=at), mender(host, first), least=200)


@pytest.mark.parametrize("first", ["ADD", "GC"])
def test_the_engine_dies_during_the_first_add_of_a_node(host: FaultyHost, first: str) -> None:
    def kill(at: int) -> Ran:
        host.restore_books()
        return host.engine_killed("ADD", at=at)

    sweep(kill, mender(host, first), least=300)


@pytest.mark.parametrize("first", AFTER_DEL)
def test_the_engine_dies_during_del(host: FaultyHost, first: str) -> None:
    def kill(at: int) -> Ran:
        host.engine("ADD")
        return host.engine_killed("DEL", at=at)

    sweep(kill, mender(host, first), least=200)


def test_the_engine_dies_during_gc(host: FaultyHost) -> None:
    def kill(at: int) -> Ran:
        host.engine("ADD")
        return host.engine_killed("GC", at=at, **EVERYTHING_INVALID)

    sweep(kill, mender(host, "GC"), least=200)


@pytest.mark.parametrize("first", AFTER_ADD)
def test_the_server_dies_during_add(host: FaultyHost, first: str) -> None:
    sweep(lambda at: host.server_killed("ADD", at=at), mender(host, first), least=30)


@pytest.mark.parametrize("first", AFTER_DEL)
def test_the_server_dies_during_del(host: FaultyHost, first: str) -> None:
    def kill(at: int) -> Ran:
        host.engine("ADD")
        return host.server_killed("DEL", at=at)

    sweep(kill, mender(host, first), least=30)


@pytest.mark.parametrize("first", AFTER_ADD)
def test_the_c_relay_dies_during_add(host: FaultyHost, first: str) -> None:
    relay_dies_during_add(host, first, least=10)


@pytest.mark.parametrize("first", AFTER_DEL)
def test_the_c_relay_dies_during_del(host: FaultyHost, first: str) -> None:
    relay_dies_during_del(host, first, least=10)


def test_the_python_relay_dies_during_add(python_host: FaultyHost) -> None:
    relay_dies_during_add(python_host, "ADD", least=100)


def test_the_python_relay_dies_during_del(python_host: FaultyHost) -> None:
    relay_dies_during_del(python_host, "GC", least=100)


def relay_dies_during_add(host: FaultyHost, first: str, *, least: int) -> None:
    with host.server():
        sweep(lambda at: host.relay_killed("ADD", at=at), mender(host, first), least=least)


def relay_dies_during_del(host: FaultyHost, first: str, *, least: int) -> None:
    def kill(at: int) -> Ran:
        host.engine("ADD")
        return host.relay_killed("DEL", at=at)

    with host.server():
        sweep(kill, mender(host, first), least=least)


def test_the_executables_die_while_they_load(host: FaultyHost) -> None:
    # Nobody serves: the relay becomes the engine, from the shell's first call on.
    sweep(lambda at: host.relay_killed("ADD", at=at), mender(host, "ADD"), least=1000, step=STEP)


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_the_agent_dies_while_its_server_serves(host: FaultyHost, verb: str) -> None:
    def kill(at: int) -> Ran:
        if verb == "DEL":
            host.engine("ADD")
        return host.agent_killed(verb, at=at)

    kill(MOST_CALLS)  # what an agent leaves in any case: blocks' routes, files
    host.engine("DEL")
    sweep(kill, mender(host, verb), least=60)
