"""Unix sockets that only root can use."""

import os
import socket
import struct
from pathlib import Path

BACKLOG = 512


def listen_private(path: Path) -> socket.socket:
    """Listen on a unix socket that only root can use; take over the place of a dead one.

    The directory lets others pass, but not look: ExaBGP's own user has a directory of its own
    below it.
    """
    path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    path.parent.chmod(0o711)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    previous = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(previous)
    listener.listen(BACKLOG)
    return listener


def peer_uid(connection: socket.socket) -> int:
    """Return the user at the other end (struct ucred: pid, uid, gid)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    uid: int = struct.unpack("iII", raw)[1]
    return uid
