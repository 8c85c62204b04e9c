"""webui: a page that shows how many hashes and coins there are, and /json with the same."""

import json
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WAIT_S = 5.0
PAGE = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>DockerCoin Miner</title></head>
<body><h1>DockerCoin Miner</h1><p id="counters"></p><script>
async function show() {
  const counters = await (await fetch("json")).json();
  document.getElementById("counters").textContent =
    counters.hashes + " hashes, " + counters.coins + " coins";
}
setInterval(show, 1000); show();
</script></body></html>
"""


class WebUi(BaseHTTPRequestHandler):
    """Answer with the page or the counters."""

    def do_GET(self) -> None:
        """Look at the path alone."""
        if self.path == "/":
            self.answer("text/html; charset=utf-8", PAGE)
        elif self.path == "/json":
            self.tell()
        else:
            self.send_error(404, "there are / and /json")

    def tell(self) -> None:
        """Answer with the counters."""
        try:
            counters = {name: read(name) for name in ("hashes", "coins")}
        except OSError as error:
            self.send_error(503, f"cannot ask redis: {error}")
            return
        self.answer("application/json", json.dumps(counters))

    def answer(self, kind: str, text: str) -> None:
        """Send a text."""
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""


def read(counter: str) -> int:
    """Return a counter of redis: 0 as long as there is none."""
    with socket.create_connection(("redis", 6379), timeout=WAIT_S) as connection:
        connection.sendall(f"GET {counter}\r\n".encode("ascii"))
        lines = connection.recv(64).split(b"\r\n")
    # A length, "$-1" for what is not there, then the value.
    return 0 if lines[0] == b"$-1" else int(lines[1])


if __name__ == "__main__":
    ThreadingHTTPServer(("", 80), WebUi).serve_forever()
