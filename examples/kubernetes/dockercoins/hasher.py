"""hasher: the SHA-256 of what is posted, in hexadecimal digits."""

import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hasher(BaseHTTPRequestHandler):
    """Answer with digests."""

    def do_POST(self) -> None:
        """Hash the request's body."""
        posted = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        digest = hashlib.sha256(posted).hexdigest().encode("ascii")
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(digest)))
        self.end_headers()
        self.wfile.write(digest)

    def log_message(self, *_: object) -> None:
        """Say nothing of each request: there are many."""


if __name__ == "__main__":
    ThreadingHTTPServer(("", 80), Hasher).serve_forever()
