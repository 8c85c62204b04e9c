"""A node's object is there as long as its agent runs, whatever else is amiss."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_interface

import pytest

from pycni.agent.messages import Changed, Listed
from pycni.agent.registration import Registration
from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore
from pycni.errors import DatastoreUnusable, Exhausted, TryAgain
from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import AssignRequest
from pycni.model.network import Address
from pycni.model.resources import Block, IPPool, Node, TunnelMode
from pycni.plan.underlay import OwnAddresses, own_addresses
from pycni.ports import Datastore
from tests.agent.ipam.faults import Failing
from tests.virtual_time import run

POOL = IPPool("small", IPv4Network("10.0.0.0/31"), block_size=31, ipip_mode=TunnelMode.ALWAYS)
ADDRESS = ip_interface("10.10.7.20/20")


def registration(store: Datastore, *, makes_node: bool = True) -> Registration:
    return Registration(
        store,
        Allocator(store, node="node-0"),
        node="node-0",
        addresses=(ADDRESS,),
        report=lambda _what, _why: None,
        makes_node=makes_node,
    )


async def fill(store: Datastore) -> None:
    for number in range(2):
        await Allocator(store, node="node-1").assign(AssignRequest(f"h{number}"))


async def written(store: Datastore) -> Node | None:
    stored = await store.get(Node, "node-0")
    return None if stored is None else stored.value


def test_node_without_an_address_for_its_tunnel_has_its_object_nevertheless() -> None:
    async def story() -> None:
        store = MemoryDatastore()
        await store.create(POOL)
        await fill(store)

        with pytest.raises(Exhausted, match="nothing is free in small"):
            await registration(store).once()

        assert await written(store) == Node("node-0", ipv4=ADDRESS)

    asyncio.run(story())


def test_object_keeps_its_tunnel_while_no_other_address_can_be_had() -> None:
    async def story() -> None:
        store = MemoryDatastore()
        await store.create(POOL)
        await fill(store)
        before = Node("node-0", ipip_tunnel_address=ip_address("10.0.0.9"))
        await store.create(before)

        with pytest.raises(Exhausted):
            await registration(store).once()

        assert await written(store) == replace(before, ipv4=ADDRESS)

    asyncio.run(story())


def test_object_has_the_tunnels_address_as_soon_as_there_is_one() -> None:
    async def story() -> None:
        store = MemoryDatastore()
        await store.create(POOL)
        await fill(store)
        registering = registration(store)
        with pytest.raises(Exhausted):
            await registering.once()

        await Allocator(store, node="node-1").release_by_handle("h1")
        await registering.once()

        tunnel = ip_address("10.0.0.1")
        assert await written(store) == Node("node-0", ipv4=ADDRESS, ipip_tunnel_address=tunnel)

    asyncio.run(story())


@pytest.mark.parametrize("error", [TryAgain, DatastoreUnusable])
def test_an_error_of_the_datastore_is_told_and_the_next_attempt_does_the_rest(
    error: type[Exception],
) -> None:
    """Whichever call it is that fails."""

    async def story() -> None:
        for at in range(1, 40):
            store = MemoryDatastore()
            await store.create(POOL)
            failing = Failing(store, at=at, error=error, late=False)
            registering = registration(failing.datastore)

            with contextlib.suppress(error):
                await registering.once()
                assert not failing.is_over  # or it was swallowed
                break
            await registering.once()
            node = await written(store)
            assert node == Node("node-0", ipv4=ADDRESS, ipip_tunnel_address=ip_address("10.0.0.0"))
        assert at > 5

    asyncio.run(story())


class Cluster:
    """A node whose object a kubelet has made."""

    def __init__(self, *internal_ips: str, stated: tuple[str, ...] = ()) -> None:
        self.calls: list[str] = []
        self.store = FaultyDatastore(MemoryDatastore(), before=self._note)
        self.internal_ips = tuple(map(ip_address, internal_ips))
        self.stated = tuple(map(ip_interface, stated))
        self.said: dict[str, str] = {}
        self.registration = Registration(
            self.store,
            Allocator(self.store, node="node-0"),
            node="node-0",
            addresses=self.stated,
            report=self.said.__setitem__,
            makes_node=False,
        )

    async def _note(self, call: Call) -> None:
        self.calls.append(call.verb)

    async def start(self) -> None:
        await self.store.create(Node("node-0", internal_ips=self.internal_ips))

    async def look_at(self, *host: str) -> None:
        """Do what an agent does after a pass."""
        node = await written(self.store)
        assert node is not None
        addresses = [Address("eth0", ip_interface(one)) for one in host]
        self.registration.look_at(own_addresses(node, stated=self.stated, host=addresses))

    async def addresses(self, *host: str) -> list[str]:
        """Return what the node is known by once its interface has these addresses."""
        await self.look_at(*host)
        await self.registration.once()
        node = await written(self.store)
        assert node is not None
        return [str(one) for one in (node.ipv4, node.ipv6) if one is not None]


def test_address_is_the_internal_ip_as_its_interface_has_it() -> None:
    async def story() -> None:
        cluster = Cluster("10.10.7.20", "fd00:10::20")
        await cluster.start()

        found = await cluster.addresses("10.10.7.20/20", "10.10.7.21/20", "fd00:10::20/64")

        assert found == ["10.10.7.20/20", "fd00:10::20/64"]
        assert cluster.said["node address"] == ""

    asyncio.run(story())


def test_another_prefix_length_or_internal_ip_is_followed() -> None:
    async def story() -> None:
        cluster = Cluster("10.10.7.20")
        await cluster.start()
        host = ("10.10.7.20/20", "10.10.7.21/24")
        assert await cluster.addresses(*host) == ["10.10.7.20/20"]
        assert await cluster.addresses("10.10.7.20/16", host[1]) == ["10.10.7.20/16"]

        stored = await cluster.store.get(Node, "node-0")
        assert stored is not None
        other = replace(stored.value, internal_ips=(ip_address("10.10.7.21"),))
        await cluster.store.update(other, if_revision=stored.revision)

        assert await cluster.addresses(*host) == ["10.10.7.21/24"]

    asyncio.run(story())


def test_internal_ip_on_no_interface_is_told_and_changes_nothing() -> None:
    async def story() -> None:
        cluster = Cluster("10.10.7.20")
        await cluster.start()
        await cluster.addresses("10.10.7.20/20")

        assert await cluster.addresses("10.10.7.99/20") == ["10.10.7.20/20"]

        sentence = "no interface has 10.10.7.20, the InternalIP of Node node-0"
        assert cluster.said["node address"].startswith(sentence)

    asyncio.run(story())


def test_node_without_internal_ip_says_so_unless_it_has_an_address() -> None:
    async def story() -> None:
        nameless, stated = Cluster(), Cluster(stated=("10.10.7.20/20",))
        for cluster in (nameless, stated):
            await cluster.start()

        assert await nameless.addresses("10.10.7.20/20") == []
        assert await stated.addresses() == ["10.10.7.20/20"]

        assert nameless.said["node address"].startswith("Node node-0 has no InternalIP")
        assert stated.said["node address"] == ""

    asyncio.run(story())


def test_internal_ip_that_a_method_stands_in_for_is_not_called_absent() -> None:
    async def story() -> None:
        cluster = Cluster("10.10.7.20")
        await cluster.start()

        cluster.registration.look_at(OwnAddresses())  # as while a name is being resolved
        await cluster.registration.once()

        assert cluster.said["node address"] == ""

    asyncio.run(story())


def test_what_autodetection_complains_of_is_told() -> None:
    async def story() -> None:
        cluster = Cluster("10.10.7.20")
        await cluster.start()

        cluster.registration.look_at(OwnAddresses(complaints=("no IPv4", "no IPv6")))
        await cluster.registration.once()

        assert cluster.said["node address"] == "no IPv4; no IPv6"

    asyncio.run(story())


def test_nothing_is_said_of_interfaces_that_nobody_has_looked_at() -> None:
    async def story() -> None:
        cluster = Cluster("10.10.7.20")
        await cluster.start()

        await cluster.registration.once()

        assert cluster.said["node address"] == ""

    asyncio.run(story())


def test_a_change_of_the_hosts_addresses_is_acted_upon() -> None:
    async def story() -> None:
        cluster = Cluster("10.10.7.20")
        await cluster.start()
        running = asyncio.create_task(cluster.registration.run())
        await cluster.look_at()
        await until(lambda: cluster.said.get("node address", "") != "")

        await cluster.look_at("10.10.7.20/20")

        await until(lambda: cluster.said["node address"] == "")
        running.cancel()
        node = await written(cluster.store)
        assert node is not None
        assert node.ipv4 == ip_interface("10.10.7.20/20")

    asyncio.run(story())


def test_addresses_of_others_on_this_host_cost_the_datastore_nothing() -> None:
    """A proxy may put each service's address on an interface."""

    async def story() -> None:
        cluster = Cluster("10.10.7.20")
        await cluster.start()
        running = asyncio.create_task(cluster.registration.run())
        await cluster.look_at("10.10.7.20/20")
        await asyncio.sleep(60)
        cluster.calls.clear()

        await cluster.look_at("10.10.7.20/20", "10.96.0.1/32")
        await asyncio.sleep(60)

        running.cancel()
        assert cluster.calls == ["get"]  # the test's own, of the Node

    run(story())


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - another task's doing
            await asyncio.sleep(0)


def test_pool_without_tunnel_needs_no_address() -> None:
    async def story() -> None:
        store = MemoryDatastore()
        await store.create(replace(POOL, ipip_mode=TunnelMode.NEVER))

        await registration(store).once()

        assert await written(store) == Node("node-0", ipv4=ADDRESS)

    asyncio.run(story())


def test_a_node_that_was_made_anew_between_two_looks_shows_its_presence() -> None:
    """Whoever saw none in between may be about to take back what was its predecessor's."""

    async def number(store: Datastore) -> int:
        (block,) = (await store.list(Block)).items
        return block.value.sequence_number

    async def story() -> None:
        store = MemoryDatastore()
        await store.create(POOL)
        first = await store.create(Node("node-0", uid="one"))
        registering = registration(store, makes_node=False)
        await registering.once()
        await registering.once()
        before = await number(store)

        stored = await store.get(Node, "node-0")
        assert stored is not None
        await store.delete(Node, "node-0", if_revision=stored.revision)
        await store.create(replace(first.value, uid="two"))
        await registering.once()
        shown = await number(store)
        await registering.once()

        assert (shown, await number(store)) == (before + 1, before + 1)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("message", "is_looked_at"),
    [
        (Changed(Node, "node-0", None), True),
        (Changed(Node, "node-0", Node("node-0")), True),
        (Changed(Node, "node-1", Node("node-1")), False),
        (Listed(Node, (Node("node-1"),)), True),
        (Changed(IPPool, "small", None), True),
        (Listed(IPPool, (POOL,)), True),
        (Changed(Block, "10-0-0-0-31", None), False),
    ],
)
def test_only_what_concerns_this_node_has_the_datastore_asked_again(
    message: Listed | Changed, is_looked_at: bool
) -> None:
    async def story() -> None:
        cluster = Cluster("10.10.7.20")
        await cluster.start()
        task = asyncio.create_task(cluster.registration.run())
        await asyncio.sleep(1)
        cluster.calls.clear()

        cluster.registration.heed(message)
        await asyncio.sleep(1)

        assert bool(cluster.calls) is is_looked_at
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(story())
