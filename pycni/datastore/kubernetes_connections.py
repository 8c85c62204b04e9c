"""Connections to an API server that end with whoever opened them, those too that are being made.

They stand below the official client's REST layer; of Kubernetes they know nothing.
"""

import asyncio

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.tracing import Trace
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse


class Connector(aiohttp.TCPConnector):
    """Makes connections until it is closed; one that is ready only then is broken off.

    aiohttp sends a GET whose connection breaks a second time, and makes another connection for
    that after `close` as well.  It would close that one politely: its socket would stay until the
    server has answered TLS's farewell, or for good where the loop ends before.
    """

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - handed on
    ) -> ResponseHandler:
        self._require_open()
        made = await super()._create_connection(req, traces, timeout)
        if self.closed:
            made.abort()
        self._require_open()
        return made

    def _require_open(self) -> None:
        if self.closed:
            raise aiohttp.ClientConnectionError("the connector is closed")


class Rest(RESTClientObject):
    """The official client's REST layer, over such connections."""

    def _create_connector(self) -> Connector:
        return Connector(limit=self.maxsize, ssl=self.ssl_context)

    async def abort(self) -> None:
        """Break off all connections: a loop that ends doesn't wait for TLS's farewells."""
        pool = self.pool_manager
        if pool is not None and pool.connector is not None:
            await pool.connector.close(abort_ssl=True)
        await self.close()
        await asyncio.sleep(0)  # what is below TLS is closed a turn later


def hang_up(response: RESTResponse) -> None:
    """End a response with its connection, at once: the loop may end before TLS's farewells do."""
    connection = response.response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.response.close()
