"""What an API server tells of Services and EndpointSlices, with the rights of an agent."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from ipaddress import ip_address
from typing import Any

import pytest

from pycni.datastore.kubernetes import open_kubernetes
from pycni.datastore.kubernetes_api import JSON, Access, Api
from pycni.datastore.kubernetes_services import service_sources
from pycni.model.services import (
    EndpointSlice,
    Service,
    ServiceChanged,
    ServiceNews,
    ServicesListed,
    SliceChanged,
    SlicesListed,
)
from tests.kube.apiserver import ApiServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(60)]

SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
LABELS = {"kubernetes.io/service-name": "shop"}


@pytest.fixture
def api(cluster: ApiServer) -> Iterator[ApiServer]:
    yield cluster
    for path in (SERVICES, SLICES):
        for one in cluster.ask("GET", path)["items"]:
            if one["metadata"]["name"] != "kubernetes":
                cluster.ask("DELETE", f"{path}/{one['metadata']['name']}")


def endpoint_slice(*nodes: str, labels: dict[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "shop-1", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.0.0.1"], "nodeName": node, "conditions": {"ready": True}}
            for node in nodes
        ],
    }


class Paged(Api):
    """Notes what is listed, and has none of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, str] | None]] = []

    async def paging(
        self, path: str, *, query: Mapping[str, str] | None = None, accept: str = JSON
    ) -> AsyncIterator[tuple[list[dict[str, Any]], str]]:
        self.asked.append((path, query))
        yield [], f"1 {accept}"


def test_slices_of_no_service_are_not_listed_either() -> None:
    api = Paged()

    async def main() -> None:
        news = service_sources(api)["EndpointSlices"]()
        assert await listed(news) == []
        await news.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())

    label = "kubernetes.io/service-name"
    assert api.asked == [("/apis/discovery.k8s.io/v1/endpointslices", {"labelSelector": label})]


async def listed(news: AsyncIterator[ServiceNews]) -> list[str]:
    first = await anext(news)
    assert isinstance(first, ServicesListed | SlicesListed)
    return [one.name for one in first.values]


def test_services_are_followed(api: ApiServer) -> None:
    async def main() -> None:
        store = await open_kubernetes(Access(api.agents_kubeconfig))
        news = store.service_sources()["Services"]()
        assert "default/shop" not in await listed(news)
        made = {"metadata": {"name": "shop"}, "spec": {"ports": [{"port": 80}]}}
        api.ask("POST", SERVICES, made)
        own = ip_address(api.ask("GET", f"{SERVICES}/shop")["spec"]["clusterIP"])
        shop = Service("default/shop", cluster_ips=(own,))
        assert await anext(news) == ServiceChanged("default/shop", shop)
        api.ask("DELETE", f"{SERVICES}/shop")
        assert await anext(news) == ServiceChanged("default/shop", None)
        await news.aclose()  # type: ignore[attr-defined]
        await store.close()

    asyncio.run(main())


def test_slices_are_followed_until_they_are_no_services_any_more(api: ApiServer) -> None:
    path = f"{SLICES}/shop-1"

    async def main() -> None:
        store = await open_kubernetes(Access(api.agents_kubeconfig))
        api.ask("POST", SLICES, endpoint_slice("node-0", labels=LABELS))
        news = store.service_sources()["EndpointSlices"]()
        assert "default/shop-1" in await listed(news)
        api.ask("PUT", path, endpoint_slice("node-0", "node-1", labels=LABELS))
        nodes = frozenset({"node-0", "node-1"})
        changed = EndpointSlice("default/shop-1", "default/shop", 4, nodes, is_ready=True)
        assert await anext(news) == SliceChanged("default/shop-1", changed)
        api.ask("PUT", path, endpoint_slice("node-0", labels={}))
        assert await anext(news) == SliceChanged("default/shop-1", None)
        await news.aclose()  # type: ignore[attr-defined]
        await store.close()

    asyncio.run(main())
