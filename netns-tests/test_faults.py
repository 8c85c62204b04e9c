"""A crash at each system call in turn: whatever dies when, a retry or the next GC makes it good.

A process is killed on entering its Nth system call that changes anything outside it, for N from 1
to the first run that lives to its end (`make soak`: at those that only look, too; see `killing`).
After each crash the runtime does what runtimes do: the same verb again, a DEL, or a GC that lists
nothing.  Then the host has to be as if the request had been made once, or never.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import pytest

from conftest import namespaces
from faults import EVERYTHING_INVALID, FaultyHost, sweep
from killing import Ran
from plugin_host import plugin_host

pytestmark = [pytest.mark.netns, pytest.mark.long, pytest.mark.timeout(600)]

WORKERS = 4
"""Hosts that go through the calls side by side: most of the time is spent waiting for RCU."""
AFTER_ADD = ("ADD", "DEL", "GC")
AFTER_DEL = ("DEL", "GC")

Kill = Callable[[FaultyHost, int], Ran]


@contextlib.contextmanager
def faulty_hosts(factory: pytest.TempPathFactory, *, relay: str) -> Iterator[list[FaultyHost]]:
    """Make hosts without agent."""
    with contextlib.ExitStack() as stack:
        make = stack.enter_context(namespaces())
        directories = (factory.mktemp("h") for _ in range(WORKERS))
        made = (plugin_host(d, make, relay=relay, has_agent=False) for d in directories)
        yield [FaultyHost.of(stack.enter_context(one)) for one in made]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FaultyHost]]:
    """Return hosts with the relay in C."""
    with faulty_hosts(tmp_path_factory, relay="c") as made:
        yield made


@pytest.fixture(scope="module")
def python_hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FaultyHost]]:
    """Return hosts with the relay in Python."""
    with faulty_hosts(tmp_path_factory, relay="python") as made:
        yield made


def require_one_pod(host: FaultyHost) -> None:
    """Add the pod, whatever there is of it; it must be as if it was added once."""
    added = host.engine("ADD")
    host.engine("CHECK", prevResult=added.document)
    assert host.findings() == []
    assert sorted(host.given()) == sorted(ip.partition("/")[0] for ip in added.addresses)


def mend_by(first: str) -> Callable[[FaultyHost], Callable[[], None]]:
    """Return what the runtime does after a crash, and what must be there then: nothing."""

    def at(host: FaultyHost) -> Callable[[], None]:
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

    return at


def added_before(kill: Kill) -> Kill:
    """Let the pod be there before the request that is killed."""

    def kill_later(host: FaultyHost, at: int) -> Ran:
        host.engine("ADD")
        return kill(host, at)

    return kill_later


@pytest.mark.parametrize("first", AFTER_ADD)
def test_the_engine_dies_during_add(hosts: Sequence[FaultyHost], first: str) -> None:
    sweep(hosts, lambda host, at: host.engine_killed("ADD", at=at), mend_by(first), least=50)


@pytest.mark.parametrize("first", ["ADD", "GC"])
def test_the_engine_dies_during_the_first_add_of_a_node(
    hosts: Sequence[FaultyHost], first: str
) -> None:
    def kill(host: FaultyHost, at: int) -> Ran:
        host.restore_books()
        return host.engine_killed("ADD", at=at)

    sweep(hosts, kill, mend_by(first), least=80)


@pytest.mark.parametrize("first", AFTER_DEL)
def test_the_engine_dies_during_del(hosts: Sequence[FaultyHost], first: str) -> None:
    def kill(host: FaultyHost, at: int) -> Ran:
        return host.engine_killed("DEL", at=at)

    sweep(hosts, added_before(kill), mend_by(first), least=50)


def test_the_engine_dies_during_gc(hosts: Sequence[FaultyHost]) -> None:
    def kill(host: FaultyHost, at: int) -> Ran:
        return host.engine_killed("GC", at=at, **EVERYTHING_INVALID)

    sweep(hosts, added_before(kill), mend_by("GC"), least=50)


@pytest.mark.parametrize("first", AFTER_ADD)
def test_the_server_dies_during_add(hosts: Sequence[FaultyHost], first: str) -> None:
    sweep(hosts, lambda host, at: host.server_killed("ADD", at=at), mend_by(first), least=30)


@pytest.mark.parametrize("first", AFTER_DEL)
def test_the_server_dies_during_del(hosts: Sequence[FaultyHost], first: str) -> None:
    def kill(host: FaultyHost, at: int) -> Ran:
        return host.server_killed("DEL", at=at)

    sweep(hosts, added_before(kill), mend_by(first), least=30)


def relay_killed(verb: str) -> Kill:
    """Let a CNI server serve a relay that dies."""

    def kill(host: FaultyHost, at: int) -> Ran:
        with host.server():
            return host.relay_killed(verb, at=at)

    return kill


@pytest.mark.parametrize("first", AFTER_ADD)
def test_the_c_relay_dies_during_add(hosts: Sequence[FaultyHost], first: str) -> None:
    sweep(hosts, relay_killed("ADD"), mend_by(first), least=5)


@pytest.mark.parametrize("first", AFTER_DEL)
def test_the_c_relay_dies_during_del(hosts: Sequence[FaultyHost], first: str) -> None:
    sweep(hosts, added_before(relay_killed("DEL")), mend_by(first), least=5)


def test_the_python_relay_dies_during_add(python_hosts: Sequence[FaultyHost]) -> None:
    sweep(python_hosts, relay_killed("ADD"), mend_by("ADD"), least=15)


def test_the_python_relay_dies_during_del(python_hosts: Sequence[FaultyHost]) -> None:
    sweep(python_hosts, added_before(relay_killed("DEL")), mend_by("GC"), least=15)


def test_the_executables_die_while_they_load(hosts: Sequence[FaultyHost]) -> None:
    # Nobody serves: the relay becomes the engine, from the shell's first call on.
    def kill(host: FaultyHost, at: int) -> Ran:
        return host.relay_killed("ADD", at=at)

    sweep(hosts, kill, mend_by("ADD"), least=200)


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_the_agent_dies_while_its_server_serves(hosts: Sequence[FaultyHost], verb: str) -> None:
    def kill(host: FaultyHost, at: int) -> Ran:
        if verb == "DEL":
            host.engine("ADD")
        return host.agent_killed(verb, at=at)

    def mend(host: FaultyHost) -> Callable[[], None]:
        host.agent_rests()  # what an agent leaves in any case: blocks' routes, files
        return mend_by(verb)(host)

    sweep(hosts, kill, mend, least=2)
