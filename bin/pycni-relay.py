"""The CNI plugin's work as the runtime calls it: hand the request to this node's agent.

Loaded by `pycni` beside it, which keeps it compiled.  Only modules that are built into the
interpreter are imported, because start-up is paid for every pod.  Without an agent, or when it does
not answer in time, the same engine runs in process: `pycni-engine`, which lies there, too.  Where
that is missing, and the cluster's objects are the datastore, see `answer_alone`.
`relay/` is the same relay in C; one test suite runs over both.

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
    """Return the configuration, `run_dir`, where the agent listens, and the seconds to wait for it.

    What is no object is an empty one.  What is no absolute path, or no whole number from 1 to 9999,
    is as good as absent: whoever answers the request complains of it.
    """
    try:
        text = stdin.removeprefix(b"\xef\xbb\xbf").decode().lstrip(" \t\r\n")
        document, _ = _json.make_scanner(_Scanner)(text, 0)
        run_dir, timeout = document.get("run_dir"), document.get("agent_timeout")
    except Exception:  # noqa: BLE001  # any defect of the input: not ours to judge
        document = {}
        run_dir = timeout = None
    if type(timeout) is not int or not 1 <= timeout <= MAX_TIMEOUT_S:
        timeout = DEFAULT_TIMEOUT_S
    if not isinstance(run_dir, str) or not run_dir.startswith("/") or "\0" in run_dir:
        run_dir = DEFAULT_RUN_DIR
    try:
        return document, run_dir.encode(), timeout
    except UnicodeEncodeError:  # half of a surrogate pair
        return document, DEFAULT_RUN_DIR.encode(), timeout


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


def run_engine(stdin, document, run_dir):
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
        answer_alone(document, run_dir.decode())
        posix.write(
            1,
            b'{"cniVersion": "1.0.0", "code": 5, "msg": "no agent answers, and pycni-engine beside'
            b" the plugin can't be started: run install.sh again\"}",
        )
        posix._exit(1)


# --- neither agent nor engine: see relay/alone.c, which has the same ----------------------------

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
UNAVAILABLE_AFTER_S = 30
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
FLOCK = "@hhqqi"


def answer_alone(document, run_dir):
    """Answer what can be answered without agent and engine; return where nothing can."""
    command = posix.environ.get(b"CNI_COMMAND")
    if command == b"VERSION":
        version = text_of(document, "cniVersion") or VERSIONS[0]
        versions = ", ".join(f'"{one}"' for one in VERSIONS)
        say(0, f'{{"cniVersion": {quoted(version)}, "supportedVersions": [{versions}]}}')
    kind = text_of(document, "datastore_type") or text_of(document, "datastore")
    if kind != "kubernetes":
        return
    if command == b"DEL":
        journal_del(document, run_dir)
    elif command == b"STATUS":
        answer_status(document, run_dir)
    elif command in (b"ADD", b"CHECK", b"GC"):
        refuse(document, run_dir, 11)


def text_of(document, key):
    text = document.get(key)
    return (
        text if isinstance(text, str) and not any(0xD800 <= ord(c) < 0xE000 for c in text) else ""
    )


def quoted(text):
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " else f"\\u{ord(c):04x}" for c in escaped) + '"'


def say(status, text):
    posix.write(1, text.encode())
    posix._exit(status)


def fail(document, code, message):
    version = text_of(document, "cniVersion") or VERSIONS[0]
    if version not in VERSIONS:
        version = VERSIONS[-1]
    say(1, f'{{"cniVersion": "{version}", "code": {code}, "msg": {quoted(message)}}}')


def refuse(document, run_dir, code, what=""):
    fail(
        document,
        code,
        f"{what}no agent answers in {run_dir}, and nobody else on this node may use the cluster's"
        " objects: look at the agent (systemctl status pycni-agent, or its pod)",
    )


def fail_to_keep(document, path, error):
    text = f"no agent answers, and {path} can't be written for it: {error.strerror}"
    fail(document, 5, text)


def make_directory(path, mode):
    """Make a directory and those above it."""
    for end in [i for i, c in enumerate(path) if c == "/" and i] + [len(path)]:
        try:  # noqa: SIM105  # no contextlib
            posix.mkdir(path[:end], mode if end == len(path) else 0o755)
        except OSError:
            pass  # whoever writes there says so


def answer_status(document, run_dir):
    """Answer 50 once no agent has been here for 30 s, by the file that the engine keeps, too."""
    import time

    make_directory(run_dir, 0o711)
    path, now = f"{run_dir}/trouble-since", time.time()
    since = now + 1
    try:  # noqa: SIM105  # no contextlib
        since = float(read_file(path))
    except (OSError, ValueError):
        pass
    if not since <= now:
        since = now
        try:
            file = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o644)
            posix.write(file, f"{now:.6f}".encode())
        except OSError:
            pass
    if now - since >= UNAVAILABLE_AFTER_S:
        refuse(document, run_dir, 50, "no ADD can work: ")
    posix._exit(0)


def read_file(path):
    file = posix.open(path, posix.O_RDONLY)
    try:
        return posix.read(file, 63).decode("ascii")
    finally:
        posix.close(file)


def is_identifier(text):
    return bool(text) and text[0] not in "_.-" and not text.strip(LETTERS)


def is_interface(text):
    return (
        0 < len(text) <= 15 and text not in (".", "..") and all("!" <= c <= "~" for c in text)
    ) and not set(text) & set("%/:")


def journal_del(document, run_dir):
    """Keep a DEL for the agent, in the files that it pays its own debts from."""
    import hashlib

    container = posix.environ.get(b"CNI_CONTAINERID", b"").decode("utf-8", "replace")
    ifname = posix.environ.get(b"CNI_IFNAME", b"").decode("utf-8", "replace")
    name, state_dir = text_of(document, "name"), document.get("state_dir")
    require_names(document, container, ifname)
    key = f"{name}/{container}/{ifname}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:40]
    lock_key(document, run_dir, key, int(digest[:15], 16))
    named = f'"network": "{name}", "containerID": "{container}", "ifname": {quoted(ifname)}'
    handle = f"{name}.{container}" + ("" if ifname == "eth0" else f".{ifname}")
    directory = f"{state_dir or '/var/lib/pycni'}/journal"
    make_directory(directory[: -len("/journal")], 0o700)
    make_directory(directory, 0o700)
    keep(
        document,
        directory,
        f"{directory}/{digest}.json",
        f'{{"key": {{{named}}}, "handle": {quoted(handle)}, "addresses": []}}',
    )
    posix._exit(0)


def require_names(document, container, ifname):
    if not (is_identifier(container) and is_interface(ifname)):
        fail(
            document,
            4,
            "DEL needs CNI_CONTAINERID and CNI_IFNAME, well formed, in the environment: set them"
            " and call again",
        )
    if not is_identifier(text_of(document, "name")):
        fail(
            document,
            7,
            "network configuration: 'name' must be a string of letters, digits, '_', '.' and '-'",
        )
    if document.get("state_dir") is not None and not text_of(document, "state_dir").startswith("/"):
        fail(document, 7, "network configuration: 'state_dir' must be an absolute path")


def lock_key(document, run_dir, key, place):
    """Hold the lock of a key, that of pycni.keylocks, until the end of this process."""
    import fcntl
    import struct

    make_directory(run_dir, 0o711)
    path = f"{run_dir}/endpoints.lock"
    try:
        file = posix.open(path, posix.O_RDWR | posix.O_CREAT, 0o600)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack(FLOCK, fcntl.F_WRLCK, 0, place, 1, 0))
    except (BlockingIOError, PermissionError) as error:
        if not isinstance(error, BlockingIOError):
            fail_to_keep(document, path, error)
        fail(
            document,
            11,
            f"another request for {key} is running, though no agent answers: try again",
        )
    except OSError as error:
        fail_to_keep(document, path, error)


def keep(document, directory, path, text):
    """Write a file of the journal; it is on disk when this returns."""
    new = f"{path}.new"
    try:
        place = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY)
        if posix.access(path, posix.F_OK):
            return  # It is owed already, and what an engine wrote says more.
        try:
            file = posix.open(new, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600)
            rest = text.encode()
            while rest:
                rest = rest[posix.write(file, rest) :]
            posix.fsync(file)
            posix.rename(new, path)
            posix.fsync(place)
        except OSError:
            if posix.access(new, posix.F_OK):
                posix.unlink(new)
            raise
    except OSError as error:
        fail_to_keep(document, directory, error)


def main():
    environment = posix.environ
    if b"CNI_COMMAND" not in environment and len(sys.argv) > 1:
        run_engine(b"", {}, b"")  # a person asks for --help or --version
    stdin = read_all(0)
    document, run_dir, timeout = read_hints(stdin)
    answer = ask_agent(run_dir + b"/cni.sock", timeout, environment, stdin)
    if answer is None:
        run_engine(stdin, document, run_dir)
    rest = answer[1:]
    while rest:
        rest = rest[posix.write(1, rest) :]
    posix._exit(answer[0])


main()
