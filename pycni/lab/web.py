"""A pod's web server: tells each client the address that it comes from, and notes it.

Run as a plain file, `python3 -I -S web.py NAME LOG`, and imports next to nothing: in user-mode
Linux every import is felt, and there is one such process for each pod.
"""

import os
import socket
import sys

PORT = 80
MAX_REQUEST = 8192
TIMEOUT_S = 5.0


def listen() -> socket.socket:
    """Listen for both families, or for IPv4 alone where the kernel has no IPv6."""
    if socket.has_ipv6:
        try:
            return socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError:
            pass
    return socket.create_server(("", PORT))


def read_request(client: socket.socket) -> None:
    """Read up to the blank line, whatever it says."""
    request = b""
    while b"\r\n\r\n" not in request and len(request) < MAX_REQUEST:
        piece = client.recv(4096)
        if not piece:
            return
        request += piece


def answer(client: socket.socket, *, name: str, address: str) -> None:
    """Say who was asked by whom."""
    body = f"{name} was asked by {address}\n".encode()
    head = f"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall(head.encode() + body)


def main() -> None:
    """Serve one client after another, for ever."""
    name, log = sys.argv[1:3]
    note = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    with listen() as server:
        while True:
            client, peer = server.accept()
            address = peer[0].removeprefix("::ffff:")
            os.write(note, f"{address}\n".encode())
            client.settimeout(TIMEOUT_S)
            try:
                read_request(client)
                answer(client, name=name, address=address)
            except OSError:
                pass  # a client that went away
            finally:
                client.close()


if __name__ == "__main__":
    main()
