"""Who holds an address, in as few calls as that takes."""

from ipaddress import ip_network

from pycni.datastore.faulty import Call, FaultyDatastore
from pycni.datastore.memory import MemoryDatastore, MemoryStore
from pycni.ipam import lookup
from pycni.ipam.allocator import Allocator
from pycni.ipam.requests import AssignRequest
from pycni.model.resources import Block, Handle
from tests.agent.cluster import POOL
from tests.virtual_time import run


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
