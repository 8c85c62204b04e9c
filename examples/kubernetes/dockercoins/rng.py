"""rng: as many random bytes as the path asks for, /32 for thirty-two."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MOST = 1024


class Rng(BaseHTTPRequestHandler):
    """Answer with bytes."""

    def do_GET(self) -> None:
        """Draw them."""
        wish = self.path.lstrip("/")
        if not wish.isdigit() or not 1 <= int(wish) <= MOST:
            self.send_error(404, f"ask for /1 to /{MOST}")
            return
        drawn = os.urandom(int(wish))
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(drawn)))
        self.end_headers()
        self.wfile.write(drawn)

    def log_message(self, *_: object) -> None:
        """Say nothing of each request: there are many."""


if __name__ == "__main__":
    ThreadingHTTPServer(("", 80), Rng).serve_forever()
