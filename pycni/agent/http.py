"""/healthz, /readyz and /metrics over HTTP/1.0, on the loopback address by default."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

REQUEST_TIMEOUT_S = 5.0
RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class Page:
    """One answer: status, body, media type."""

    status: int
    body: bytes
    media_type: str = "text/plain; charset=utf-8"


Pages = dict[str, Callable[[], Page]]
_REASONS = {200: "OK", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


class HttpServer:
    """Serves a handful of pages made on demand."""

    def __init__(
        self, *, address: str, port: int, pages: Pages, report: Callable[[str, str], None]
    ) -> None:
        self._report = report
        self._address = address
        self._port = port
        self._pages = pages

    async def run(self) -> None:
        """Serve until cancelled; a port that is taken is reported, and tried again."""
        while True:
            try:
                server = await asyncio.start_server(self._serve, self._address, self._port)
            except OSError as exc:
                self._report("http", f"cannot listen on {self._address}:{self._port}: {exc}")
                await asyncio.sleep(RETRY_S)
                continue
            self._report("http", "")
            async with server:
                await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                line = await reader.readline()
                while (await reader.readline()).strip():
                    pass
            writer.write(_spell(self._page(line)))
            await writer.drain()
        except (OSError, TimeoutError, ValueError):
            pass  # a caller that went away or sent nonsense; there is nobody to tell
        finally:
            writer.close()

    def _page(self, line: bytes) -> Page:
        method, _, rest = line.decode("latin-1").partition(" ")
        if method not in ("GET", "HEAD"):
            return Page(405, b"only GET is known\n")
        path = rest.split(" ", maxsplit=1)[0].partition("?")[0]
        make = self._pages.get(path)
        if make is None:
            return Page(404, f"known pages: {', '.join(self._pages)}\n".encode())
        return make()


def _spell(page: Page) -> bytes:
    head = (
        f"HTTP/1.0 {page.status} {_REASONS[page.status]}\r\n"
        f"Content-Type: {page.media_type}\r\n"
        f"Content-Length: {len(page.body)}\r\n\r\n"
    )
    return head.encode() + page.body
