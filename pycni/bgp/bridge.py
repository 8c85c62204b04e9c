"""ExaBGP's API helper: hand ExaBGP's two pipes to the agent, then get out of the way.

ExaBGP insists on starting a helper and talking to its stdin and stdout.  This one connects to the
agent's socket, passes both descriptors with SCM_RIGHTS and only waits.  It imports nothing but the
standard library and is run as a plain file: `python3 -IES bridge.py SOCKET`.
"""

import os
import socket
import sys


def main() -> int:
    """Pass the pipes, wait for the agent's word that it has them, then for its end."""
    if len(sys.argv) != 2:
        sys.stderr.write("usage: bridge.py SOCKET (started by ExaBGP, not by hand)\n")
        return 2
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    agent.settimeout(10)
    agent.connect(sys.argv[1])
    socket.send_fds(agent, [b"exabgp\n"], [0, 1])
    if agent.recv(1) != b"k":
        return 1
    # Keep no copy: ExaBGP must see the end of its pipes as soon as the agent closes its own.
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    agent.settimeout(None)
    while agent.recv(64):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
