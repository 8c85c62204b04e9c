"""Stories with one handle on what a real API server holds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from pycni.datastore.kubernetes import KubernetesDatastore, open_kubernetes
from pycni.datastore.kubernetes_api import Access
from tests.kube.apiserver import ApiServer

Story = Callable[[KubernetesDatastore], Awaitable[None]]


def told(server: ApiServer, story: Story) -> None:
    """Tell a story with one handle on a server."""

    async def main() -> None:
        async with asyncio.timeout(100), opened(server) as store:
            await story(store)

    asyncio.run(main())


@contextlib.asynccontextmanager
async def opened(server: ApiServer) -> AsyncIterator[KubernetesDatastore]:
    store = await open_kubernetes(Access(server.kubeconfig))
    try:
        yield store
    finally:
        await store.close()
