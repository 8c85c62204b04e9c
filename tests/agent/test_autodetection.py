"""An agent that finds its node's address among its host's, and follows it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest

from pycni.agent import watchers
from pycni.agent.autodetection import RETRY_S, Autodetection, resolve_by_host
from pycni.agent.facts import WATCHED_KINDS, Facts
from pycni.agent.messages import EndpointsListed
from pycni.agent.reconciler import Reconciler
from pycni.agent.registration import Registration
from pycni.autodetection import parse_method
from pycni.bgp.fake import FakeNetwork, FakeSpeaker
from pycni.datastore.memory import MemoryDatastore
from pycni.endpoints import FileEndpoints
from pycni.ipam.allocator import Allocator
from pycni.kernel.fake import FakeKernel
from pycni.model.network import Address, IPAddress, NextHop, Route
from pycni.model.resources import Node
from pycni.model.resources_bgp import BGPConfiguration
from pycni.plan.candidates import PATIENCE_S
from pycni.plan.inputs import Inputs, Settings
from pycni.plan.prefixes import host_prefix, route_key
from tests.virtual_time import run

SETTINGS = {4: "ip_autodetection_method", 6: "ip6_autodetection_method"}


class Names:
    """A resolver that knows nothing until it is told."""

    def __init__(self) -> None:
        self.known: dict[str, IPAddress] = {}
        self.asked = 0

    async def resolve(self, name: str, version: int) -> IPAddress:
        self.asked += 1
        if name not in self.known or self.known[name].version != version:
            raise OSError(-2, "Name or service not known")
        return self.known[name]


class Machine:
    """A host with two interfaces, and the parts of the agent that its address hangs on."""

    def __init__(self, directory: Path, **methods: str) -> None:
        self.kernel = FakeKernel()
        for name, texts in (("eth0", ("10.0.0.5/24", "fd00::5/64")), ("eth1", ("10.1.0.5/24",))):
            self.kernel.add_link(name)
            for text in texts:
                self.add(name, text)
        self.store = MemoryDatastore()
        self.names = Names()
        self.troubles: dict[str, str] = {}
        self.facts = Facts(Inputs(Settings(node="node-0")))
        self.reconciler = Reconciler(
            self.facts,
            kernel=self.kernel,
            speaker=FakeSpeaker(FakeNetwork(), ip_address("10.0.0.5")),
            endpoints=FileEndpoints(run_dir=directory / "run", state_dir=directory / "state"),
            on_pass=self._after_pass,
        )
        self.registration = Registration(
            self.store,
            Allocator(self.store, node="node-0"),
            node="node-0",
            addresses=(),
            report=self.report,
        )
        parsed = [
            parse_method(text, setting=SETTINGS[version], version=version)
            for version, text in ((4, methods.get("ipv4", "")), (6, methods.get("ipv6", "")))
            if text
        ]
        self.autodetection = Autodetection(
            {one.version: one for one in parsed},
            stated=(),
            source_to=self.kernel.source_to,
            post=self.reconciler.post,
            report=self.report,
            resolve=self.names.resolve,
        )

    def report(self, what: str, why: str) -> None:
        self.troubles[what] = why

    def _after_pass(self) -> None:
        node = self.facts.inputs.node
        if node is not None:
            is_known = BGPConfiguration in self.facts.listed
            found = self.autodetection.look(self.facts.inputs, node, knows_ignored=is_known)
            self.registration.look_at(found)

    def add(self, ifname: str, text: str) -> None:
        self.kernel.add_address(Address(ifname, ip_interface(text)))

    def remove(self, ifname: str, text: str) -> None:
        self.kernel.delete_address(Address(ifname, ip_interface(text)))

    async def addresses(self, *, after_s: float = 1.0) -> list[str]:
        """Return what the Node object says after a while."""
        await asyncio.sleep(after_s)
        stored = await self.store.get(Node, "node-0")
        assert stored is not None
        return [str(one) for one in (stored.value.ipv4, stored.value.ipv6) if one is not None]

    def explained(self) -> dict[str, Any]:
        (explanation,) = self.autodetection.explain(self.facts.inputs)
        return explanation


@contextlib.asynccontextmanager
async def running(machine: Machine) -> AsyncIterator[Machine]:
    post = machine.reconciler.post
    post(EndpointsListed(()))
    tasks = [
        asyncio.create_task(one)
        for one in (
            machine.reconciler.run(),
            watchers.watch_kernel(machine.kernel, post=post),
            machine.registration.run(),
            machine.autodetection.run(),
            *(
                watchers.watch_kind(machine.store, kind, post=post, report=machine.report)
                for kind in WATCHED_KINDS
            ),
        )
    ]
    try:
        yield machine
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


def test_each_ip_version_is_found_by_its_own_method(tmp_path: Path) -> None:
    async def story() -> None:
        made = Machine(tmp_path, ipv4="first-found", ipv6="interface=eth0")
        async with running(made) as machine:
            assert await machine.addresses() == ["10.1.0.5/24", "fd00::5/64"]
            assert machine.troubles["node address"] == ""

    run(story())


def test_an_interface_that_bgp_ignores_has_no_address_of_the_nodes(tmp_path: Path) -> None:
    async def story() -> None:
        made = Machine(tmp_path, ipv4="first-found")
        await made.store.create(BGPConfiguration(ignored_interfaces=("eth1",)))
        async with running(made) as machine:
            assert await machine.addresses() == ["10.0.0.5/24"]
            (stored,) = (await machine.store.list(BGPConfiguration)).items
            other = BGPConfiguration(ignored_interfaces=("eth0",))

            await machine.store.update(other, if_revision=stored.revision)

            assert await machine.addresses(after_s=PATIENCE_S / 2) == ["10.0.0.5/24"]
            assert await machine.addresses(after_s=PATIENCE_S) == ["10.1.0.5/24"]

    run(story())


def test_nothing_is_chosen_before_it_is_known_what_bgp_ignores(tmp_path: Path) -> None:
    async def story() -> None:
        machine = Machine(tmp_path, ipv4="first-found")
        machine.facts.snapshot(await machine.kernel.snapshot([]), now=0.0)
        inputs, node = machine.facts.inputs, Node("node-0")

        before = machine.autodetection.look(inputs, node, knows_ignored=False)
        after = machine.autodetection.look(inputs, node, knows_ignored=True)

        assert (before.found, before.complaints) == ((), ())
        assert after.found == (ip_interface("10.1.0.5/24"),)

    run(story())


def test_an_address_that_is_there_is_kept_when_a_better_one_comes(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(Machine(tmp_path, ipv4="first-found")) as machine:
            before = await machine.addresses()
            machine.kernel.add_link("eth2")
            machine.add("eth2", "10.2.0.5/24")

            assert await machine.addresses(after_s=100) == before == ["10.1.0.5/24"]

    run(story())


def test_a_restarted_agent_keeps_what_the_node_object_says(tmp_path: Path) -> None:
    async def story() -> None:
        made = Machine(tmp_path, ipv4="first-found")
        await made.store.create(Node("node-0", ipv4=ip_interface("10.0.0.5/24")))
        async with running(made) as machine:
            assert await machine.addresses(after_s=100) == ["10.0.0.5/24"]

    run(story())


def test_an_address_that_is_gone_for_a_moment_changes_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(Machine(tmp_path, ipv4="first-found")) as machine:
            await machine.addresses()
            machine.remove("eth1", "10.1.0.5/24")
            assert await machine.addresses(after_s=PATIENCE_S / 2) == ["10.1.0.5/24"]
            machine.add("eth1", "10.1.0.5/24")

            assert await machine.addresses(after_s=2 * PATIENCE_S) == ["10.1.0.5/24"]

    run(story())


@pytest.mark.parametrize(
    "lose",
    [
        lambda machine: machine.remove("eth1", "10.1.0.5/24"),
        lambda machine: machine.kernel.change_link("eth1", is_up=False),
        lambda machine: machine.kernel.delete_link("eth1"),
    ],
    ids=["address", "down", "link"],
)
def test_another_follows_an_address_that_stays_away(
    tmp_path: Path, lose: Callable[[Machine], None]
) -> None:
    async def story() -> None:
        async with running(Machine(tmp_path, ipv4="first-found")) as machine:
            await machine.addresses()
            lose(machine)
            assert await machine.addresses(after_s=PATIENCE_S - 1) == ["10.1.0.5/24"]

            # In time: without waiting for the pass of each minute.
            assert await machine.addresses(after_s=2) == ["10.0.0.5/24"]

    run(story())


def test_another_prefix_length_is_followed_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(Machine(tmp_path, ipv4="interface=eth1")) as machine:
            await machine.addresses()
            machine.remove("eth1", "10.1.0.5/24")
            machine.add("eth1", "10.1.0.5/20")

            assert await machine.addresses() == ["10.1.0.5/20"]

    run(story())


def test_where_nothing_fits_the_node_keeps_what_it_had_and_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(Machine(tmp_path, ipv4="interface=eth1")) as machine:
            await machine.addresses()
            machine.remove("eth1", "10.1.0.5/24")

            assert await machine.addresses(after_s=100) == ["10.1.0.5/24"]
            assert machine.troubles["node address"].startswith(
                "no IPv4 address of this host fits ip_autodetection_method interface=eth1"
            )

            machine.add("eth1", "10.1.0.6/24")

            assert await machine.addresses() == ["10.1.0.6/24"]
            assert machine.troubles["node address"] == ""

    run(story())


def test_a_destination_is_reached_by_the_kernels_own_choice(tmp_path: Path) -> None:
    async def story() -> None:
        made = Machine(tmp_path, ipv4="can-reach=192.0.2.1")
        way = Route(
            route_key(host_prefix(ip_address("192.0.2.1"))),
            next_hops=frozenset({NextHop("eth0", ip_address("10.0.0.1"))}),
        )
        async with running(made) as machine:
            assert await machine.addresses() == []
            assert "can-reach=192.0.2.1" in machine.troubles["node address"]

            machine.kernel.create_route(way)

            assert await machine.addresses() == ["10.0.0.5/24"]

    run(story())


def test_a_name_is_resolved_once_and_asked_for_until_then(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(Machine(tmp_path, ipv4="can-reach=router.example")) as machine:
            assert await machine.addresses() == []
            assert machine.troubles["autodetection of IPv4"] == (
                "cannot resolve router.example of ip_autodetection_method"
                " can-reach=router.example: Name or service not known; look at this host's"
                " resolv.conf, or name an address"
            )
            assert machine.troubles["node address"] == ""

            machine.names.known["router.example"] = ip_address("10.0.0.1")

            assert await machine.addresses(after_s=RETRY_S + 1) == ["10.0.0.5/24"]
            assert machine.troubles["autodetection of IPv4"] == ""
            machine.names.known["router.example"] = ip_address("10.1.0.1")
            assert await machine.addresses(after_s=200) == ["10.0.0.5/24"]
            assert machine.names.asked == 2

    run(story())


def test_the_hosts_resolver_is_asked_for_an_address_of_the_ip_version() -> None:
    async def story() -> None:
        assert await resolve_by_host("192.0.2.1", 4) == ip_address("192.0.2.1")
        with pytest.raises(OSError, match="not supported"):
            await resolve_by_host("192.0.2.1", 6)

    asyncio.run(story())


def test_the_choice_and_what_was_passed_over_are_explained(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(Machine(tmp_path, ipv4="interface=eth.*")) as machine:
            await machine.addresses()

            assert machine.explained() == {
                "version": 4,
                "setting": "ip_autodetection_method",
                "method": "interface=eth.*",
                "address": "10.1.0.5/24",
                "interface": "eth1",
                "passed_over": [
                    {
                        "interface": "eth0",
                        "addresses": ["10.0.0.5/24"],
                        "more": 0,
                        "reason": "it fits, and 10.1.0.5/24 of eth1 comes first",
                    }
                ],
            }

            machine.remove("eth1", "10.1.0.5/24")
            await asyncio.sleep(1)

            waiting = machine.explained()
            assert (waiting["address"], waiting["interface"]) == ("10.1.0.5/24", None)
            assert waiting["passed_over"][0]["reason"] == "it fits, and is not taken yet"

    run(story())


def test_the_kubelets_word_is_explained_too(tmp_path: Path) -> None:
    async def story() -> None:
        made = Machine(tmp_path, ipv4="kubernetes-internal-ip")
        await made.store.create(Node("node-0", internal_ips=(ip_address("10.0.0.5"),)))
        async with running(made) as machine:
            assert await machine.addresses() == ["10.0.0.5/24"]

            explained = machine.explained()

            assert explained["interface"] == "eth0"
            assert [one["reason"] for one in explained["passed_over"]] == [
                "the kubelet does not register it as an InternalIP"
            ]

    run(story())
