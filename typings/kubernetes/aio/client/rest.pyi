import ssl
from collections.abc import Mapping

import aiohttp
from kubernetes.aio.client import Configuration

class RESTResponse:
    status: int
    response: aiohttp.ClientResponse

    @property
    def headers(self) -> Mapping[str, str]: ...
    async def read(self) -> bytes: ...

class RESTClientObject:
    maxsize: int
    ssl_context: ssl.SSLContext
    pool_manager: aiohttp.ClientSession | None
    def __init__(self, configuration: Configuration) -> None: ...
    async def close(self) -> None: ...
    async def request(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = ...,
        body: object = ...,
        _request_timeout: aiohttp.ClientTimeout | None = ...,
    ) -> RESTResponse: ...
