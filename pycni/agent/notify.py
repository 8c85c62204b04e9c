"""Tell systemd how we are (sd_notify(3)): a datagram to the socket that it named."""

import os
import socket


def notify(state: str) -> None:
    """Send a state such as "READY=1"; without systemd nothing happens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagram:
        try:
            datagram.sendto(state.encode(), address)
        except OSError:
            return  # a supervisor that isn't there is none of our business
