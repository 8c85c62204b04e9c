"""The lab's two addresses on its host, both abstract, so that no file outlives anybody.

`@pycni-lab/NAME` takes verbs.  `@pycni-lab/NAME/life` is held, from the first moment to the last,
by the process whose end is the end of everything (the first process of the lab's PID namespace, or
the one that owns user-mode Linux): it is the lock against a second lab of that name, and its
listener's process id is what `down` waits for.
"""

import os
import select
import socket
import struct

from pycni.errors import AlreadyExists, NotFound, TryAgain

DEFAULT_NAME = "lab"
_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid


def verb_address(name: str) -> str:
    """Return the address for verbs."""
    return f"\0pycni-lab/{name}"


def life_address(name: str) -> str:
    """Return the address that says that the lab is there."""
    return f"\0pycni-lab/{name}/life"


def command(verb: str, name: str) -> str:
    """Return a line to type that concerns this lab."""
    return f"bin/lab {verb}" + ("" if name == DEFAULT_NAME else f" --name {name}")


def take_life(name: str) -> socket.socket:
    """Bind the lab's lock; the caller, or a child of it, must `listen` once it is the holder."""
    life = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        life.bind(life_address(name))
    except OSError as exc:
        life.close()
        raise AlreadyExists(
            f"the lab {name!r} is up already: look at it with  {command('show', name)},"
            f" end it with  {command('down', name)}, or give this one another --name"
        ) from exc
    return life


def peer(connected: socket.socket) -> tuple[int, int]:
    """Return process id and user id of the other end (of a listener: who called listen)."""
    pid, uid, _ = _PEER.unpack(
        connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    )
    return pid, uid


def _connect(address: str, name: str) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        connected.connect(address)
    except OSError as exc:
        connected.close()
        raise NotFound(f"no lab {name!r} is up: start it with  {command('up', name)}") from exc
    # Anybody may bind an abstract name: what answers there must be root's.
    if peer(connected)[1] != 0:
        connected.close()
        raise TryAgain(f"another user's process answers in place of the lab {name!r}: refused")
    return connected


def connect(name: str) -> socket.socket:
    """Connect for one verb."""
    return _connect(verb_address(name), name)


def is_up(name: str) -> bool:
    """Say whether the lab is there, be it half way up or down."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(life_address(name))
        except ConnectionRefusedError:
            return False
        return True


def open_holder(name: str) -> int:
    """Return a descriptor that becomes readable when the lab's last process has ended."""
    with _connect(life_address(name), name) as life:
        pid = peer(life)[0]
        try:
            return os.pidfd_open(pid)
        except ProcessLookupError:
            raise NotFound(f"the lab {name!r} is just ending: try again") from None


def wait_for_end(holder: int, *, seconds: float) -> bool:
    """Wait for the end of what `open_holder` opened; False: it is still there."""
    return bool(select.select([holder], [], [], seconds)[0])
