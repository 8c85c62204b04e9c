"""The CNI plugin's work as the runtime calls it: hand the request to this node's agent.

Loaded by `pycni` beside it, which keeps it compiled.  Only modules that are built into the
interpreter are imported, because start-up is paid for every pod.  Without an agent, or when it does
not answer in time, the same engine runs in process: `pycni-engine`, which lies there, too.
`relay/pycni.c` is the same relay in C; one test suite runs over both.

Wire format: 4 bytes big-endian length of the environment, the CNI_… variables ("K=V", each ended
by NUL), then standard input up to the end.  The network namespace travels as a descriptor.  Answer:
one byte of exit status, then what to print.
"""

import _json
import _socket
import posix
import sys

DEFAULT_RUN_DIR = "/run/pycni"
DEFAULT_TIMEOUT_S = 30
MAX_TIMEOUT_S = 9999


class _Scanner:
    """What the interpreter's own JSON scanner wants to be told."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float = float
    parse_constant = float

    def parse_int(text):
        return int(text) if len(text) < 10 else 0  # int() refuses thousands of digits

    memo = {}


def read_all(fd):
    parts = []
    while part := posix.read(fd, 65536):
        parts.append(part)
    return b"".join(parts)


def read_hints(stdin):
    """Return `run_dir`, where the agent listens, and `agent_timeout`, the seconds to wait for it.

    What is no absolute path, or no whole number from 1 to 9999, is as good as absent: whoever
    answers the request complains of it.
    """
    try:
        text = stdin.removeprefix(b"\xef\xbb\xbf").decode().lstrip(" \t\r\n")
        document, _ = _json.make_scanner(_Scanner)(text, 0)
        run_dir, timeout = document.get("run_dir"), document.get("agent_timeout")
    except Exception:  # noqa: BLE001  # any defect of the input: not ours to judge
        run_dir = timeout = None
    if type(timeout) is not int or not 1 <= timeout <= MAX_TIMEOUT_S:
        timeout = DEFAULT_TIMEOUT_S
    if not isinstance(run_dir, str) or not run_dir.startswith("/") or "\0" in run_dir:
        run_dir = DEFAULT_RUN_DIR
    try:
        return run_dir.encode(), timeout
    except UnicodeEncodeError:  # half of a surrogate pair
        return DEFAULT_RUN_DIR.encode(), timeout


def open_netns(environment):
    path = environment.get(b"CNI_NETNS")
    if path:
        try:
            return posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
        except OSError:
            pass  # the agent says so, with the code that belongs to the verb
    return None


def ask_agent(path, timeout, environment, stdin):
    """Return the answer, or None when there is no agent or it does not answer."""
    variables = b"".join(
        k + b"=" + v + b"\0" for k, v in environment.items() if k.startswith(b"CNI_")
    )
    netns = open_netns(environment)
    ancillary = []
    if netns is not None:
        packed = netns.to_bytes(4, sys.byteorder)
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, packed)]
    agent = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        agent.settimeout(timeout)
        agent.connect(path)
        message = len(variables).to_bytes(4, "big") + variables + stdin
        sent = agent.sendmsg([message], ancillary)
        if sent < len(message):
            agent.sendall(message[sent:])
        agent.shutdown(_socket.SHUT_WR)
        parts = []
        while part := agent.recv(65536):
            parts.append(part)
    except OSError:
        return None
    finally:
        agent.close()
    answer = b"".join(parts)
    return answer or None


def run_engine(stdin):
    """Become the in-process engine, with the same environment and standard input."""
    head, slash, _ = sys.argv[0].rpartition("/")
    engine = head + slash + "pycni-engine"
    copy = posix.memfd_create("stdin", 0)
    written = 0
    while written < len(stdin):
        written += posix.write(copy, stdin[written:])
    posix.lseek(copy, 0, 0)
    posix.dup2(copy, 0)
    try:
        posix.execve(engine, [engine, *sys.argv[1:]], posix.environ)
    except OSError:
        posix.write(
            1,
            b'{"cniVersion": "1.0.0", "code": 5, "msg": "no agent answers, and pycni-engine beside'
            b" the plugin can't be started: run install.sh again\"}",
        )
        posix._exit(1)


def main():
    environment = posix.environ
    if b"CNI_COMMAND" not in environment and len(sys.argv) > 1:
        run_engine(b"")  # a person asks for --help or --version
    stdin = read_all(0)
    run_dir, timeout = read_hints(stdin)
    answer = ask_agent(run_dir + b"/cni.sock", timeout, environment, stdin)
    if answer is None:
        run_engine(stdin)
    rest = answer[1:]
    while rest:
        rest = rest[posix.write(1, rest) :]
    posix._exit(answer[0])


main()
