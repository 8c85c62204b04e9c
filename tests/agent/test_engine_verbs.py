"""The verbs of the plugin over fakes: what is made, what is undone, what is owed."""

import errno
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from pycni.cni.engine import pay_debts
from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore, MemoryStore
from pycni.errors import PycniError, TryAgain
from pycni.ipam import lookup
from pycni.ipam.allocator import Allocator
from pycni.ipam.block import release_by_handle
from pycni.ipam.requests import AssignRequest
from pycni.model.endpoints import EndpointKey, EndpointState, PendingRelease, WorkloadEndpoint
from pycni.model.network import SetLink
from pycni.model.resources import Block, Handle, IPPool
from tests.agent.cluster import NETWORK, POOL, Cluster, NodeAgent
from tests.virtual_time import run

POD = "default/web"
CONTAINER = "default.web"
VETH = "cali68caf03a5f4"
KEY = EndpointKey(NETWORK, CONTAINER, "eth0")
Story = Callable[[NodeAgent], Awaitable[None]]


def play(directory: Path, story: Story, *, pools: tuple[IPPool, ...] = (POOL,)) -> None:
    """Play a story on one node without an agent."""

    async def main() -> None:
        made = Cluster(directory)
        await made.create(*pools)
        await story(made.node("node-0", "10.10.7.20/20"))

    run(main())


def reason(reply: Any) -> tuple[int, str]:  # noqa: ANN401 - a Reply.
    document = json.loads(reply.output)
    return document["code"], document["msg"]


async def held(node: NodeAgent) -> list[str]:
    """Return every address that is taken, with its handle."""
    found = []
    datastore = node.datastore
    assert isinstance(datastore, FaultyDatastore)
    for stored in (await datastore.inner.list(Block)).items:
        block = stored.value
        for ordinal, index in enumerate(block.allocations):
            if index is not None:
                found.append(f"{block.cidr[ordinal]} {block.attributes[index].handle_id}")
    return found


async def leftovers(node: NodeAgent) -> list[str]:
    """Return everything on the node and in the datastore that belongs to a pod."""
    datastore = node.datastore
    assert isinstance(datastore, FaultyDatastore)
    links = [name for name in (await node.state()).links if name.startswith("cali")]
    routes = [line for line in await node.ip_route() if "cali" in line]
    handles = [h.value.id for h in (await datastore.inner.list(Handle)).items]
    records = [str(e.key) for e in node.endpoints.list()]
    locks = locks_on(node.run_dir / "endpoints.lock")
    return [*links, *routes, *await held(node), *handles, *records, *locks]


def locks_on(path: Path) -> list[str]:
    """Return the locks that anybody holds on a file, as the kernel lists them."""
    inode = f":{path.stat().st_ino} "
    return [line for line in Path("/proc/locks").read_text().splitlines() if inode in line]


async def remembered(node: NodeAgent) -> list[str]:
    return [
        f"{d.key} {[str(a.interface.ip) for a in d.addresses]}" for d in node.endpoints.pending()
    ]


# --- ADD ----------------------------------------------------------------------------------------


def test_an_add_gives_address_interface_route_and_record(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await node.cni("ADD", CONTAINER, pod=POD)

        result = json.loads(reply.output)
        record = node.endpoints.get(KEY)
        assert reply.status == 0
        assert result["ips"] == [
            {"address": "192.168.39.192/32", "interface": 1, "gateway": "169.254.1.1"}
        ]
        assert result["interfaces"][1]["mtu"] == 1500
        assert await node.routes() == [f"192.168.39.192 dev {VETH} scope link"]
        assert await held(node) == [f"192.168.39.192 {NETWORK}.{CONTAINER}"]
        assert record is not None
        assert (record.state, record.host_veth, record.pod_name) == (
            EndpointState.READY,
            VETH,
            "web",
        )

    play(tmp_path, story)


def test_the_address_says_whose_it_is(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        node.engine.clock = lambda: 0.0
        await node.add(POD)

        (stored,) = (await node.datastore.list(Block)).items
        assert dict(stored.value.attributes[0].secondary) == {
            "network": NETWORK,
            "container": CONTAINER,
            "interface": "eth0",
            "namespace": "default",
            "node": "node-0",
            "pod": "web",
            "timestamp": "1970-01-01 00:00:00.000000 +0000 UTC",
        }

    play(tmp_path, story)


def test_a_repeated_add_gives_the_same_result(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        replies = [await node.cni("ADD", CONTAINER, pod=POD, fd=7) for _ in range(3)]

        assert replies[0].status == 0
        assert len({r.output for r in replies}) == 1
        assert len(await held(node)) == 1

    play(tmp_path, story)


def test_a_repeated_add_repairs_what_was_broken(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        first = await node.add(POD, fd=7)
        node.kernel.delete_link(VETH)

        again = await node.add(POD, fd=7)

        assert await node.routes() == [f"{again} dev {VETH} scope link"]
        assert len(await held(node)) == 1
        assert first.startswith("192.168.39.")

    play(tmp_path, story)


def test_a_requested_address_is_given(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        assert await node.add(POD, args="IP=192.168.200.7") == "192.168.200.7"

    play(tmp_path, story)


def test_both_families_are_given_on_request(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        config = {"ipam": {"assign_ipv6": True}}

        reply = await node.cni("ADD", CONTAINER, pod=POD, config=config)

        assert json.loads(reply.output)["ips"][0]["address"] == "192.168.39.192/32"
        assert len(await held(node)) == 2
        assert [line for line in await node.ip_route(6) if VETH in line]

    play(tmp_path, story, pools=(POOL, IPPool("six", ip_network("fd00::/48"), block_size=122)))


def test_a_stated_mtu_counts(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await node.cni("ADD", CONTAINER, pod=POD, config={"mtu": 1400})

        assert json.loads(reply.output)["interfaces"][0]["mtu"] == 1400

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"config": {"prevResult": {}}}, 7, "must be the first plugin"),
        ({"config": {"nodename": "node-9"}}, 7, "this node is 'node-0'"),
        ({"config": {"ipam": {"ipv4_pools": ["nothing"]}}}, 7, "nothing"),
        ({"args": "IP=10.9.9.9"}, 7, "10.9.9.9"),
        ({"config": {"mtu": 60}}, 7, "mtu"),
        ({"fd": -1}, 7, "host's own"),
    ],
)
def test_a_bad_request_leaves_the_node_unchanged(
    tmp_path: Path, options: dict[str, Any], code: int, words: str
) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await node.cni("ADD", CONTAINER, pod=POD, **options)

        assert reply.status == 1
        assert reason(reply)[0] == code
        assert words in reason(reply)[1]
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_an_exhausted_pool_says_try_again(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        for number in range(4):
            await node.add(f"default/web-{number}")

        reply = await node.cni("ADD", CONTAINER, pod=POD)

        assert reason(reply)[0] == 11
        assert len(await held(node)) == 4
        assert node.endpoints.get(KEY) is None

    tiny = replace(POOL, cidr=ip_network("192.168.0.0/30"), block_size=30)
    play(tmp_path, story, pools=(tiny,))


# --- failures at every step ---------------------------------------------------------------------


class Fate:
    """Lets the datastore fail at the nth call, before or after it took effect, and for how long."""

    def __init__(self, node: NodeAgent, *, at: int, is_after: bool, length: int) -> None:
        self.calls = 0
        self.at = at
        self.length = length
        datastore = node.datastore
        assert isinstance(datastore, FaultyDatastore)
        if is_after:
            datastore.after = self.strike
        else:
            datastore.before = self.strike

    async def strike(self, call: Call) -> None:
        self.calls += 1
        if self.at <= self.calls < self.at + self.length:
            raise TryAgain(f"cannot {call.verb} {call.name}: the datastore is away")


@pytest.mark.parametrize("length", [1, 2, 1000])
@pytest.mark.parametrize("is_after", [False, True])
def test_nothing_leaks_wherever_the_datastore_fails(
    tmp_path: Path, *, is_after: bool, length: int
) -> None:
    """Strike at each call of an ADD in turn; then heal, retry and remove."""

    async def once(at: int) -> bool:
        made = Cluster(tmp_path / f"{at}")
        await made.create(POOL)
        node = made.node("node-0", "10.10.7.20/20")
        fate = Fate(node, at=at, is_after=is_after, length=length)
        reply = await node.cni("ADD", CONTAINER, pod=POD)
        was_struck = fate.calls >= at
        fate.length = 0

        if reply.status == 0:
            assert len(await held(node)) == 1
        else:
            assert reason(reply)[0] == 11, reply.output
            assert [n for n in (await node.state()).links if n.startswith("cali")] == []
            assert await pay_debts(node.engine) == []
            assert await leftovers(node) == []
        await node.add(POD)
        assert len(await held(node)) == 1
        await node.delete(POD)
        assert await leftovers(node) == []
        return was_struck

    async def story() -> None:
        at = 1
        while await once(at):
            at += 1
        assert at > 8, "an ADD asks the datastore more often than that"

    run(story())


def test_nothing_leaks_when_the_interface_can_not_be_made(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        node.podnet.fail_next(PycniError("cannot make the pair: no memory"))

        reply = await node.cni("ADD", CONTAINER, pod=POD)

        assert reason(reply) == (5, "cannot make the pair: no memory")
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_strangers_interface_of_that_name_stays(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        node.kernel.add_link(VETH, alias="somebody's")

        reply = await node.cni("ADD", CONTAINER, pod=POD)

        assert reply.status == 1
        assert node.kernel.link(VETH) is not None
        assert await held(node) == []

    play(tmp_path, story)


class FullDisk(OSError):
    """What writing a record meets."""


def test_nothing_leaks_when_the_record_can_not_be_completed(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        put, count = node.endpoints.put, iter(range(10))

        def full(endpoint: Any) -> None:  # noqa: ANN401 - a record.
            if next(count) == 1:
                raise FullDisk(errno.ENOSPC, "No space left on device")
            put(endpoint)

        node.engine.endpoints = Proxy(node.endpoints, put=full)

        reply = await node.cni("ADD", CONTAINER, pod=POD)

        assert reason(reply)[0] == 5
        assert "No space left on device" in reason(reply)[1]
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_what_can_not_be_undone_stops_no_other_undoing(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        put, count = node.endpoints.put, iter(range(10))

        def full(endpoint: Any) -> None:  # noqa: ANN401 - a record.
            if next(count) == 1:
                raise FullDisk(errno.ENOSPC, "No space left on device")
            put(endpoint)

        async def stuck(**_: Any) -> bool:  # noqa: ANN401 - an interface.
            raise PycniError("cannot delete the pair: busy")

        node.engine.endpoints = Proxy(node.endpoints, put=full)
        node.engine.podnet = Proxy(node.podnet, unplug=stuck)

        reply = await node.cni("ADD", CONTAINER, pod=POD)

        assert reason(reply) == (5, "cannot delete the pair: busy")
        assert await held(node) == []
        assert node.endpoints.get(KEY) is None

    play(tmp_path, story)


class Proxy:
    """Passes everything on but what is given."""

    def __init__(self, inner: object, **instead: Any) -> None:  # noqa: ANN401 - any method.
        self._inner = inner
        self._instead = instead

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - any method.
        return self._instead.get(name) or getattr(self._inner, name)


class Died(BaseException):
    """The process is gone: nothing that it would still do happens."""


STEPS = ["intent", "assigned", "plugged", "recorded", "unfinished", "unplugged", "released"]


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
        await node.cni(verb, CONTAINER, pod=POD, fd=7)
    start_anew()


@pytest.mark.parametrize("step", ["intent", "assigned", "plugged", "recorded"])
@pytest.mark.parametrize("then", ["ADD", "DEL", "GC"])
def test_an_add_that_crashed_is_cleaned_up_by_whatever_comes_next(
    tmp_path: Path, step: str, then: str
) -> None:
    async def story(node: NodeAgent) -> None:
        await crash(node, "ADD", step)

        if then == "ADD":
            address = await node.add(POD, fd=7)
            assert await held(node) == [f"{address} {NETWORK}.{CONTAINER}"]
            assert await node.routes() == [f"{address} dev {VETH} scope link"]
        elif then == "DEL":
            await node.delete(POD)
        else:
            reply = await node.cni("GC", "", config={"cni.dev/valid-attachments": []})
            assert reply.status == 0, reply.output

        if then != "ADD":
            assert await leftovers(node) == []

    play(tmp_path, story)


@pytest.mark.parametrize("step", ["unfinished", "unplugged", "released"])
@pytest.mark.parametrize("then", ["ADD", "DEL", "GC"])
def test_a_del_that_crashed_is_finished_by_whatever_comes_next(
    tmp_path: Path, step: str, then: str
) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD, fd=7)
        await crash(node, "DEL", step)

        if then == "ADD":
            await node.add(POD, fd=7)
            assert len(await held(node)) == 1
        elif then == "DEL":
            await node.delete(POD)
        else:
            reply = await node.cni("GC", "", config={"cni.dev/valid-attachments": []})
            assert reply.status == 0

        if then != "ADD":
            assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_caller_that_is_gone_gets_no_interface(tmp_path: Path) -> None:
    from pycni.cni.main import Reply, execute, parse_or_reply

    async def story(node: NodeAgent) -> None:
        environment = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": CONTAINER,
            "CNI_NETNS": "/x",
            "CNI_IFNAME": "eth0",
        }
        for verb in ("ADD", "DEL"):
            request = parse_or_reply(
                environment | {"CNI_COMMAND": verb}, b'{"cniVersion": "1.1.0", "name": "net"}'
            )
            assert not isinstance(request, Reply)
            reply = await execute(node.engine, request, netns_fd=7, is_abandoned=lambda: True)

            assert reason(reply)[0] == 11
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_work_that_takes_too_long_is_undone_and_may_be_tried_again(tmp_path: Path) -> None:
    import asyncio

    async def story(node: NodeAgent) -> None:
        datastore = node.datastore
        assert isinstance(datastore, FaultyDatastore)
        writes = 0

        async def hang(call: Call) -> None:
            nonlocal writes
            writes += call.is_write
            if writes == 2:
                writes += 1
                await asyncio.sleep(1000)

        datastore.before = hang

        reply = await node.cni("ADD", CONTAINER, pod=POD)

        assert reason(reply)[0] == 11
        assert "took over 25 s" in reason(reply)[1]
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_defect_of_ours_is_reported_as_such(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        async def broken() -> int:
            raise ZeroDivisionError("by nothing")

        node.engine.default_mtu = broken

        reply = await node.cni("ADD", CONTAINER, pod=POD)

        assert reason(reply)[0] == 100
        assert "please report it" in reason(reply)[1]
        assert await leftovers(node) == []

    play(tmp_path, story)


# --- DEL ----------------------------------------------------------------------------------------


def test_a_del_takes_everything_back(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)

        await node.delete(POD)

        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_del_of_anything_is_success_again_and_again(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.delete(POD)
        await node.add(POD)
        for _ in range(3):
            await node.delete(POD)

        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_del_without_record_releases_by_what_the_request_says(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        node.endpoints.remove(KEY)

        await node.delete(POD)

        assert await leftovers(node) == []

    play(tmp_path, story)


@pytest.mark.parametrize("verb", ["ADD", "DEL"])
def test_a_damaged_record_blocks_neither_add_nor_del(tmp_path: Path, verb: str) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD, fd=7)
        (path,) = node.endpoints.directory.iterdir()
        path.write_text("{")

        reply = await node.cni(verb, CONTAINER, pod=POD, fd=7)

        assert reply.status == 0, reply.output
        assert len(await held(node)) == (1 if verb == "ADD" else 0)
        await node.delete(POD)
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_late_del_leaves_the_recreated_pod_alone(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.cni("ADD", "old", pod=POD)
        node.kernel.delete_link(VETH)  # its namespace is gone, and the pair with it
        reply = await node.cni("ADD", "new", pod=POD)
        address = json.loads(reply.output)["ips"][0]["address"].partition("/")[0]

        await node.cni("DEL", "old", pod=POD)

        assert await node.routes() == [f"{address} dev {VETH} scope link"]
        assert await held(node) == [f"{address} {NETWORK}.new"]

    play(tmp_path, story)


def test_a_new_sandbox_of_a_pod_takes_the_interface_of_the_old(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        old = json.loads((await node.cni("ADD", "old", pod=POD)).output)

        reply = await node.cni("ADD", "new", pod=POD)

        assert reply.status == 0, reply.output
        address = json.loads(reply.output)["ips"][0]["address"].partition("/")[0]
        former = old["ips"][0]["address"].partition("/")[0]
        assert await node.routes() == [f"{address} dev {VETH} scope link"]
        assert sorted(await held(node)) == sorted(
            [f"{former} {NETWORK}.old", f"{address} {NETWORK}.new"]
        )
        await node.cni("DEL", "old", pod=POD)
        assert await node.routes() == [f"{address} dev {VETH} scope link"]
        assert await held(node) == [f"{address} {NETWORK}.new"]

    play(tmp_path, story)


def test_a_sandbox_whose_del_ends_meanwhile_stays_gone(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.cni("ADD", "old", pod=POD)
        (old,) = node.endpoints.list()

        def list_just_before_the_end() -> list[WorkloadEndpoint]:
            node.endpoints.remove(old.key)
            return [old]

        node.engine.endpoints = Proxy(node.endpoints, list=list_just_before_the_end)
        reply = await node.cni("ADD", "new", pod=POD)

        assert reply.status == 0, reply.output
        assert node.endpoints.get(old.key) is None

    play(tmp_path, story)


def test_another_pod_never_takes_an_interface(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.cni("ADD", "one", args=f"HOST_VETH={VETH}")

        reply = await node.cni("ADD", "two", pod=POD)

        assert reply.status == 1
        assert VETH in reason(reply)[1]
        assert len(await held(node)) == 1

    play(tmp_path, story)


def test_a_del_without_datastore_succeeds_and_owes_the_release(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        address = await node.add(POD)
        node.switch.is_away = True

        await node.delete(POD)

        assert await remembered(node) == [f"{KEY} {[address]}"]
        assert await node.routes() == []
        assert node.endpoints.get(KEY) is None

    play(tmp_path, story)


def test_a_debt_is_paid_when_the_datastore_is_back(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        node.switch.is_away = True
        await node.delete(POD)
        problems = await pay_debts(node.engine)

        node.switch.is_away = False
        after = await pay_debts(node.engine)

        assert len(problems) == 1
        assert after == []
        assert await remembered(node) == []
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_an_add_settles_the_debt_of_its_key_first(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        node.switch.is_away = True
        await node.delete(POD)
        refused = await node.cni("ADD", CONTAINER, pod=POD)
        node.switch.is_away = False

        address = await node.add(POD)

        assert reason(refused)[0] == 11
        assert await remembered(node) == []
        assert await held(node) == [f"{address} {NETWORK}.{CONTAINER}"]

    play(tmp_path, story)


def test_a_debt_never_takes_a_newer_pods_address(tmp_path: Path) -> None:
    """The journal was read, then an ADD settled the debt and was given an address again."""

    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        node.endpoints.remove(KEY)
        node.switch.is_away = True
        await node.delete(POD)  # without record: it owes whatever the handle holds
        node.switch.is_away = False
        (debt,) = node.endpoints.pending()
        pending = node.endpoints.pending()
        await node.add(POD)
        looks = iter([pending])
        node.engine.endpoints = Proxy(
            node.endpoints, pending=lambda: next(looks, node.endpoints.pending())
        )

        await pay_debts(node.engine)

        assert debt.addresses == ()
        assert len(await held(node)) == 1

    play(tmp_path, story)


def test_a_release_that_fails_within_an_add_is_settled_before_the_new_address(
    tmp_path: Path,
) -> None:
    async def story(node: NodeAgent) -> None:
        await crash(node, "ADD", "assigned")
        is_first = True

        async def hiccup(*_args: Any, **_options: Any) -> Any:  # noqa: ANN401 - like the real one.
            nonlocal is_first
            if is_first:
                is_first = False
                raise TryAgain("the datastore is away for a moment")
            return await node.allocator.release_by_handle(*_args, **_options)

        node.engine.allocator = Proxy(node.allocator, release_by_handle=hiccup)  # type: ignore[assignment]  # by delegation

        address = await node.add(POD)
        await pay_debts(node.engine)

        assert await held(node) == [f"{address} {NETWORK}.{CONTAINER}"]

    play(tmp_path, story)


def test_a_debt_waits_while_its_key_is_busy(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        node.endpoints.journal(PendingRelease(KEY, handle_id="x"))
        async with node.endpoints.lock(KEY, timeout_s=0):
            problems = await pay_debts(node.engine)

        assert problems == []  # nothing is wrong: whoever holds the key settles it or leaves it
        assert len(node.endpoints.pending()) == 1

    play(tmp_path, story)


# --- CHECK --------------------------------------------------------------------------------------


async def checked(node: NodeAgent, **result: Any) -> tuple[int, str]:  # noqa: ANN401 - keys of a result.
    reply = await node.cni("CHECK", CONTAINER, pod=POD, fd=7, config={"prevResult": result})
    return reason(reply) if reply.status else (0, "")


def test_check_is_content_with_what_add_made(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await node.cni("ADD", CONTAINER, pod=POD, fd=7)

        assert await checked(node, **json.loads(reply.output)) == (0, "")

    play(tmp_path, story)


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda node: node.kernel.change_link(VETH, mtu=1300), "1300"),
        (lambda node: node.kernel.delete_link(VETH), VETH),
        (
            lambda node: node.kernel.write_sysctl(f"net.ipv4.conf.{VETH}.rp_filter", "0"),
            "rp_filter",
        ),
        (lambda node: [node.kernel.delete_route(r) for r in pod_routes(node)], "192.168.39.192"),
    ],
    ids=["mtu", "link", "sysctl", "route"],
)
def test_check_names_each_difference(
    tmp_path: Path, break_it: Callable[[NodeAgent], Any], words: str
) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await node.cni("ADD", CONTAINER, pod=POD, fd=7)
        break_it(node)

        code, text = await checked(node, **json.loads(reply.output))

        assert code == 101
        assert text.startswith(f"endpoint {KEY} is not as it was made: ")
        assert words in text

    play(tmp_path, story)


def pod_routes(node: NodeAgent) -> list[Any]:
    return [r for r in node.kernel.routes() if VETH in r.oifs]


def test_check_compares_the_result_and_the_datastore(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        address = await node.add(POD, fd=7)
        record = node.endpoints.get(KEY)
        assert record is not None
        await node.allocator.release(record.addresses, handle_id=record.handle_id)
        free = await checked(node, ips=[{"address": f"{address}/32"}])
        stranger = Allocator(node.datastore, node="node-0")
        await stranger.assign(AssignRequest("other", addresses=(record.addresses[0].interface.ip,)))

        taken = await checked(node, ips=[{"address": f"{address}/32"}])
        lacking = await checked(node, ips=[])
        unreadable = await checked(node, ips=[{}])

        why = f"address {address} is free in the datastore"
        assert free == (101, f"endpoint {KEY} is not as it was made: {why}")
        assert "is held by other in the datastore" in taken[1]
        assert f"prevResult lacks our address {address}/32 (and 1 more)" in lacking[1]
        assert "prevResult can't be read" in unreadable[1]

    play(tmp_path, story)


def test_check_of_an_unknown_or_unfinished_endpoint(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        unknown = await checked(node)
        await crash(node, "ADD", "plugged")
        unfinished = await checked(node)

        assert unknown[0] == unfinished[0] == 3
        assert "delete the pod and add it again" in unknown[1]

    play(tmp_path, story)


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_a_namespace_that_can_not_be_opened_is_named(tmp_path: Path, verb: str) -> None:
    from pycni.cni.main import Reply, execute, parse_or_reply

    async def story(node: NodeAgent) -> None:
        request = parse_or_reply(
            {
                "CNI_COMMAND": verb,
                "CNI_CONTAINERID": "x",
                "CNI_NETNS": "/run/netns/x",
                "CNI_IFNAME": "eth0",
            },
            b'{"cniVersion": "1.1.0", "name": "net", "prevResult": {}}',
        )
        assert not isinstance(request, Reply)

        reply = await execute(node.engine, request, netns_fd=None)

        code, text = reason(reply)
        assert code == 4
        assert text.startswith("CNI_NETNS='/run/netns/x' can't be opened as a network namespace:")

    play(tmp_path, story)


# --- GC -----------------------------------------------------------------------------------------


async def collect(node: NodeAgent, *keep: str, **config: Any) -> Any:  # noqa: ANN401 - a Reply; any key.
    listed = {"cni.dev/valid-attachments": [{"containerID": k, "ifname": "eth0"} for k in keep]}
    return await node.cni("GC", "", config={**listed, **config})


def test_gc_removes_what_is_not_listed_and_leaves_other_networks(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        kept = await node.add("default/kept")
        await node.add("default/gone")
        other = await node.add("default/other", config={"name": "other"})

        reply = await collect(node, "default.kept")

        assert reply.status == 0, reply.output
        assert await held(node) == [
            f"{kept} {NETWORK}.default.kept",
            f"{other} other.default.other",
        ]
        assert [e.key.container_id for e in node.endpoints.list()] == [
            "default.kept",
            "default.other",
        ]

    play(tmp_path, story)


def lost(node: str, *, container: str = "lost", network: str = NETWORK) -> AssignRequest:
    """Ask for an address as an ADD does whose record is lost afterwards."""
    said = {"network": network, "container": container, "interface": "eth0", "node": node}
    return AssignRequest(f"{network}.{container}", attributes=tuple(sorted(said.items())))


def test_gc_releases_handles_that_lost_their_record(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.allocator.assign(lost("node-0"))
        elsewhere = Allocator(node.datastore, node="node-1")
        await elsewhere.assign(lost("node-1", container="theirs"))

        await collect(node)

        assert [line.split()[1] for line in await held(node)] == [f"{NETWORK}.theirs"]

    play(tmp_path, story)


def test_gc_of_one_network_spares_another_whose_name_begins_alike(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.allocator.assign(lost("node-0", network=f"{NETWORK}.blue"))

        await collect(node)

        assert [line.split()[1] for line in await held(node)] == [f"{NETWORK}.blue.lost"]

    play(tmp_path, story)


def test_an_add_whose_record_a_reboot_took_gives_the_old_address_back(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.cni("ADD", CONTAINER, pod=POD)
        node.endpoints.remove(KEY)  # /run is empty after a reboot, and the kernel new
        node.kernel.delete_link(VETH)

        reply = await node.cni("ADD", CONTAINER, pod=POD)

        address = json.loads(reply.output)["ips"][0]["address"].partition("/")[0]
        assert await held(node) == [f"{address} {NETWORK}.{CONTAINER}"]
        await node.cni("DEL", CONTAINER, pod=POD)
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_a_repeated_del_drops_what_a_crash_left_of_the_handle(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        datastore = node.datastore
        assert isinstance(datastore, FaultyDatastore)
        (stored,) = (await datastore.inner.list(Block)).items
        record = node.endpoints.get(KEY)
        assert record is not None
        freed = release_by_handle(stored.value, record.handle_id)
        await datastore.inner.update(freed.block, if_revision=stored.revision)

        await node.delete(POD)

        assert await leftovers(node) == []

    play(tmp_path, story)


def test_gc_without_a_list_removes_only_what_is_evidently_dead(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add("default/dead")
        living = await node.add("default/living")
        record = node.endpoints.list()[1]
        node.endpoints.put(replace(record, netns=str(tmp_path)))

        reply = await node.cni("GC", "")

        assert reply.status == 0
        assert await held(node) == [f"{living} {NETWORK}.default.living"]

    play(tmp_path, story)


def test_gc_pays_debts(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        node.switch.is_away = True
        await node.delete(POD)
        node.switch.is_away = False

        await node.cni("GC", "")

        assert await remembered(node) == []
        assert await leftovers(node) == []

    play(tmp_path, story)


def test_gc_that_can_not_do_all_does_the_rest_and_says_so(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add("default/one")
        await node.add("default/two")
        key = EndpointKey(NETWORK, "default.one", "eth0")

        async with node.other_engine().lock(key, timeout_s=0):
            reply = await collect(node)

        assert reason(reply)[0] == 11
        assert "default.one" in reason(reply)[1]
        assert [e.key.container_id for e in node.endpoints.list()] == ["default.one"]

    play(tmp_path, story)


def test_gc_names_handles_that_could_not_be_released(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.allocator.assign(lost("node-0"))

        async def away(_handle: str) -> None:
            raise TryAgain("the datastore is away")

        node.engine.allocator = Proxy(node.allocator, release_by_handle=away)  # type: ignore[assignment]  # by delegation

        assert reason(await collect(node)) == (
            11,
            f"GC could not remove everything: {NETWORK}.lost: the datastore is away",
        )

    play(tmp_path, story)


def test_an_add_that_runs_beside_a_gc_keeps_its_address(tmp_path: Path) -> None:
    """The GC has looked at the records; then an ADD takes its address; then it looks at handles."""

    async def story(node: NodeAgent) -> None:
        engine = node.engine
        listing, looks = node.endpoints.list, iter(range(10))
        inner = node.datastore
        assert isinstance(inner, FaultyDatastore)

        async def add_meanwhile(call: Call) -> None:
            if call.verb == "list" and call.kind is Block and next(looks) == 0:
                inner.before = node.switch.check
                await node.add(POD)

        inner.before = add_meanwhile

        await collect(node)

        assert engine.endpoints.list() == listing()
        assert len(await held(node)) == 1

    play(tmp_path, story)


# --- STATUS -------------------------------------------------------------------------------------


def test_status_complains_only_after_half_a_minute_on_end(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        now = 1000.0
        node.engine.clock = lambda: now
        codes = []
        for moment, is_away in [
            (0, False), (1, True), (30, True), (32, True), (33, False), (34, True), (63, True),
            (64, True),
        ]:  # fmt: skip
            now = 1000.0 + moment
            node.switch.is_away = is_away
            reply = await node.cni("STATUS", "")
            codes.append(reason(reply)[0] if reply.status else 0)

        assert codes == [0, 0, 0, 50, 0, 0, 0, 50]

    play(tmp_path, story)


@pytest.mark.parametrize("content", ["", "long ago", "nan", "99999"])
def test_a_damaged_memory_of_trouble_begins_anew(tmp_path: Path, content: str) -> None:
    async def story(node: NodeAgent) -> None:
        node.engine.clock = lambda: 1000.0
        (node.run_dir / "trouble-since").write_text(content)
        node.switch.is_away = True
        first = await node.cni("STATUS", "")
        node.engine.clock = lambda: 1031.0

        second = await node.cni("STATUS", "")

        assert first.status == 0
        assert reason(second)[0] == 50

    play(tmp_path, story)


def test_version_needs_nothing(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        reply = await node.cni("VERSION", "")

        assert json.loads(reply.output)["supportedVersions"][-1] == "1.1.0"

    play(tmp_path, story)


# --- looking up ---------------------------------------------------------------------------------


def test_who_holds_an_address() -> None:
    async def story() -> None:
        calls: list[tuple[str, type[object]]] = []

        async def note(call: Call) -> None:
            calls.append((call.verb, call.kind))

        datastore = FaultyDatastore(MemoryDatastore(MemoryStore()))
        await datastore.create(POOL)
        node = Allocator(datastore, node="node-0")
        given = await node.assign(AssignRequest("h"))
        address = given.addresses[0].interface.ip
        datastore.before = note

        assert await lookup.holder(datastore, address, expected="h") == "h"
        assert calls == [("get", Handle), ("get", Block)]
        assert await lookup.holder(datastore, address, expected="gone") == "h"
        assert await lookup.holder(datastore, address + 1, expected="h") is None
        elsewhere = ip_network("10.0.0.0/8")[1]
        assert await lookup.holder(datastore, elsewhere, expected="h") is None

    run(story())


def test_links_are_never_set_by_the_verbs_themselves(tmp_path: Path) -> None:
    async def story(node: NodeAgent) -> None:
        await node.add(POD)
        await node.delete(POD)

        assert [op for op in node.kernel.applied if isinstance(op, SetLink)] == []

    play(tmp_path, story)
