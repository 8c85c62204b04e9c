"""What a real API server makes of giving LoadBalancer addresses, with an agent's rights."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from pycni.datastore.kubernetes import open_kubernetes
from pycni.datastore.kubernetes_api import Access, Api
from pycni.datastore.kubernetes_balancing import LEASE, LEASES, KubernetesBalancing
from pycni.errors import Conflict, TryAgain
from pycni.model.services import BalancedService
from tests.kube.apiserver import ApiServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(60)]

SERVICES = "/api/v1/namespaces/default/services"
EVENTS = "/api/v1/namespaces/default/events"
Story = Callable[[KubernetesBalancing, KubernetesBalancing], Awaitable[None]]


@pytest.fixture
def api(cluster: ApiServer) -> Iterator[ApiServer]:
    cluster.apply("load-balancer.yaml")
    yield cluster
    cluster.remove("load-balancer.yaml")
    for one in cluster.ask("GET", LEASES)["items"]:
        if one["metadata"]["name"] == LEASE:
            cluster.ask("DELETE", f"{LEASES}/{LEASE}")
    for one in cluster.ask("GET", SERVICES)["items"]:
        if one["metadata"]["name"] != "kubernetes":
            cluster.ask("DELETE", f"{SERVICES}/{one['metadata']['name']}")
    cluster.ask("DELETE", EVENTS)


def told(api: ApiServer, story: Story) -> None:
    async def main() -> None:
        stores = [await open_kubernetes(Access(api.agents_kubeconfig)) for _ in range(2)]
        try:
            async with asyncio.timeout(40):
                await story(*(store.load_balancing() for store in stores))
        finally:
            for store in stores:
                await store.close()

    asyncio.run(main())


def make_service(api: ApiServer, name: str = "shop", **spec: Any) -> None:  # noqa: ANN401
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}]} | spec
    api.ask("POST", SERVICES, {"metadata": {"name": name}, "spec": spec})


async def shop_in(news: AsyncIterator[Sequence[BalancedService]]) -> BalancedService:
    """Wait until the Service is told of; return it."""
    async for services in news:
        for one in services:
            if one.name == "default/shop":
                return one
    raise AssertionError("no shop")


def test_one_of_two_leads_until_it_says_nothing_any_more(api: ApiServer) -> None:
    async def story(one: KubernetesBalancing, other: KubernetesBalancing) -> None:
        assert await one.lead("node-0")
        assert not await other.lead("node-1")
        assert await one.lead("node-0")
        lease = api.ask("GET", f"{LEASES}/{LEASE}")
        assert lease["spec"]["holderIdentity"] == "node-0"

        # As a leader says that gives it up, or an operator.
        api.ask("PUT", f"{LEASES}/{LEASE}", lease | {"spec": {"holderIdentity": ""}})
        assert await other.lead("node-1")
        assert not await one.lead("node-0")
        lease = api.ask("GET", f"{LEASES}/{LEASE}")
        assert (lease["spec"]["holderIdentity"], lease["spec"]["leaseTransitions"]) == ("node-1", 1)

    told(api, story)


class Meddled(Api):
    """Somebody writes to the Lease just before each of the first writes to it."""

    def __init__(self, access: Access, *, meddle: Callable[[], object], times: int) -> None:
        super().__init__(access)
        self.meddle, self.times = meddle, times

    async def call(self, method: str, path: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
        if method == "PUT" and self.times:
            self.times -= 1
            self.meddle()
        return await super().call(method, path, **more)


@pytest.mark.parametrize(("times", "leads"), [(1, True), (9, False)])
def test_a_lease_that_somebody_touches_is_renewed_all_the_same(
    api: ApiServer, times: int, *, leads: bool
) -> None:
    def label() -> None:
        lease = api.ask("GET", f"{LEASES}/{LEASE}")
        lease["metadata"]["labels"] = {"touched": f"by-{lease['metadata']['resourceVersion']}"}
        api.ask("PUT", f"{LEASES}/{LEASE}", lease)

    async def main() -> None:
        meddled = Meddled(Access(api.agents_kubeconfig), meddle=label, times=times)
        await meddled.connect()
        try:
            one = KubernetesBalancing(meddled)
            assert await one.lead("node-0")
            assert await one.lead("node-0") is leads
        finally:
            await meddled.close()

    asyncio.run(main())


def test_services_are_told_of_and_their_status_is_written(api: ApiServer) -> None:
    async def story(one: KubernetesBalancing, other: KubernetesBalancing) -> None:
        del other
        news = one.services()
        await anext(news)
        make_service(api)
        shop = await shop_in(news)
        assert (shop.is_ours, shop.versions, shop.ingress) == (True, (4,), ())

        address = ip_address("198.51.100.1")
        await one.set_ingress(shop, [address])
        written = await shop_in(news)
        assert written == replace(shop, ingress=(address,))
        assert await one.service("default/shop") == written
        with pytest.raises(Conflict, match="cannot write the status of Service default/shop"):
            await one.set_ingress(shop, [])
        await one.set_ingress(written, [])
        assert (await shop_in(news)).ingress == ()

        api.ask("DELETE", f"{SERVICES}/shop")
        assert "default/shop" not in {found.name for found in await anext(news)}
        assert await one.service("default/shop") is None
        with pytest.raises(Conflict, match="cannot write the status of Service default/shop"):
            await one.set_ingress(written, [])
        await news.aclose()  # type: ignore[attr-defined]

    told(api, story)


def test_of_services_that_are_not_ours_nobody_is_told(api: ApiServer) -> None:
    async def story(one: KubernetesBalancing, other: KubernetesBalancing) -> None:
        del other
        news = one.services()
        await anext(news)
        make_service(api, "quiet", type="ClusterIP")
        make_service(api)
        names = {found.name for found in await anext(news)}
        assert {"default/quiet", "default/shop"} <= names
        await news.aclose()  # type: ignore[attr-defined]

    told(api, story)


def test_a_class_of_somebody_else_is_not_ours(api: ApiServer) -> None:
    async def story(one: KubernetesBalancing, other: KubernetesBalancing) -> None:
        del other
        make_service(api, loadBalancerClass="example.com/other")
        make_service(api, "mine", loadBalancerClass="example.com/calico")
        found = {found.name: found.is_ours for found in await anext(one.services())}
        assert (found["default/shop"], found["default/mine"]) == (False, False)

    told(api, story)


def test_a_service_is_told_what_is_wrong_as_an_event(api: ApiServer) -> None:
    async def story(one: KubernetesBalancing, other: KubernetesBalancing) -> None:
        del other
        make_service(api)
        shop = await one.service("default/shop")
        assert shop is not None
        await one.warn(shop, reason="NoLoadBalancerAddress", message="all are in use")
        # Others may be about the API server itself, which other tests have used before.
        said = [
            event["message"]
            for event in api.ask("GET", EVENTS)["items"]
            if event["involvedObject"].get("uid") == shop.uid
        ]
        assert said == ["all are in use"]

    told(api, story)


def test_without_the_rights_the_file_that_gives_them_is_named(cluster: ApiServer) -> None:
    async def story(one: KubernetesBalancing, other: KubernetesBalancing) -> None:
        del other
        (shop, *_) = await anext(one.services())
        for attempt in (
            one.lead("node-0"),
            one.set_ingress(shop, []),
            one.service("default/kubernetes"),
        ):
            with pytest.raises(TryAgain, match=r"is deploy/load-balancer.yaml applied\?"):
                await attempt

    told(cluster, story)
