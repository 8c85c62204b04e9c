"""`bin/lab`: read the command line, do the verb."""

import argparse
import os
import re
import signal
import sys
from collections.abc import Sequence

from pycni.ctl.output import add_output_argument
from pycni.ctl.usage import exit_status_of
from pycni.errors import AlreadyExists, InvalidInput, NotFound, PycniError
from pycni.lab import client, sockets
from pycni.lab.frames import Request
from pycni.lab.layout import TUNNELS
from pycni.lab.uml_guest import CLONE

DEFAULT_TOPOLOGY = CLONE / "examples" / "exercise.yaml"
OK, FAILED, NOT_UP, ALREADY_UP, INTERRUPTED = 0, 1, 3, 4, 130
BROKEN_PIPE = 141  # as of a program that SIGPIPE ends
VERBS_HERE = ("up", "down", "show", "test", "shell", "exec", "agent", "node", "pod", "kubectl")
_NAME = re.compile(r"[a-z0-9][-a-z0-9_.]{0,31}\Z")

EXIT_STATUS = """\
exit status: 0 all is right; 1 something failed, or is not as it should be; 2 wrong usage, such as a
place that isn't there; 3 no lab is up; 4 (up) it is up already; 130 interrupted; of shell and exec:
the command's own.
"""


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="bin/lab",
        description="Run the exercise's cluster on this machine: nodes, router, agents, pods.",
        epilog="With  --kubernetes  its nodes become a real cluster, joined by kubeadm.\n"
        "Several labs run side by side with  --name LAB,  which every verb takes.\n\n"
        "example: sudo bin/lab && sudo bin/lab show && sudo bin/lab down\n\n" + EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    up = _verb(verbs, "up", "bring the cluster up, in the background (the default)",
               "sudo bin/lab up --tunnel bpf --topology examples/exercise.yaml")  # fmt: skip
    up.add_argument(
        "--topology",
        default=str(DEFAULT_TOPOLOGY),
        metavar="FILE",
        help="what to build (default: examples/exercise.yaml); - reads stdin",
    )
    up.add_argument("--tunnel", choices=TUNNELS, default="auto",
                    help="ipip: the kernel's own; uml: in user-mode Linux; bpf: a stand-in by"
                    " tc-bpf; auto (default): ipip, where it is missing uml")  # fmt: skip
    up.add_argument("--kubernetes", action="store_true",
                    help="a real cluster: a machine with containerd and kubelet for each node,"
                    " joined by kubeadm")  # fmt: skip
    show = _verb(verbs, "show", "draw it; show tables, agents and sessions", "sudo bin/lab show")
    test = _verb(verbs, "test", "check that it works, in a table", "sudo bin/lab test")
    for sub in (show, test):
        add_output_argument(sub)
    _verb(verbs, "down", "end it; nothing is left", "sudo bin/lab down")
    shell = _verb(verbs, "shell", "a shell, or a command, in a node, pod, host or the router",
                  "sudo bin/lab shell default/web -- ip -4 addr")  # fmt: skip
    execute = _verb(verbs, "exec", "a command, over pipes, never on a terminal",
                    "sudo bin/lab exec node-1 -- ip route")  # fmt: skip
    for sub in (shell, execute):
        sub.add_argument("place", metavar="PLACE", help="such as node-1, default/web, router")
        # With a default argparse doesn't ask for words that need not be there.
        sub.add_argument("command", nargs="*", default=(), metavar="CMD", help="after --")
    agent = _verb(verbs, "agent", "start, stop or kill a node's agent; show its log",
                  "sudo bin/lab agent kill node-1")  # fmt: skip
    agent.add_argument("action", choices=("start", "stop", "kill", "log"))
    agent.add_argument("node", metavar="NODE")
    node = _verb(verbs, "node", "plug a node's cable out (down) or in (up)",
                 "sudo bin/lab node down node-1")  # fmt: skip
    node.add_argument("action", choices=("up", "down"))
    node.add_argument("node", metavar="NODE")
    _add_pod(verbs)
    kubectl = _verb(verbs, "kubectl", "ask the cluster of a lab that came up with --kubernetes",
                    "sudo bin/lab kubectl get pods -A -o wide")  # fmt: skip
    kubectl.add_argument("command", nargs="*", default=(), metavar="WORD", help="kubectl's own")
    return parser


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, text: str, example: str
) -> argparse.ArgumentParser:
    sub = verbs.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"example: {example}\n\n{EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument(
        "--name",
        default=sockets.DEFAULT_NAME,
        metavar="LAB",
        help="which lab (default: %(default)s)",
    )
    return sub


def _add_pod(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    pod = _verb(verbs, "pod", "add a pod, or delete one",
                "sudo bin/lab pod add default/extra --node node-1")  # fmt: skip
    pod.add_argument("action", choices=("add", "del"))
    pod.add_argument("pod", metavar="NAMESPACE/NAME")
    pod.add_argument("--node", help="where (add)")
    pod.add_argument("--address", help="which address (add; default: the next one)")
    pod.add_argument("--address6", help="which IPv6 address beside that (add)")


def normalise(argv: Sequence[str]) -> list[str]:
    """Put the verb first: the default one where none is given, behind --name too."""
    words = list(argv)
    if len(words) > 2 and words[0] == "--name" and words[2] in VERBS_HERE:
        return [words[2], *words[:2], *words[3:]]
    if not words or (words[0] not in VERBS_HERE and words[0] not in ("-h", "--help")):
        if words and not words[0].startswith("-"):
            return words  # a typing error: argparse names the verbs
        return ["up", *words]
    return words


def main(argv: Sequence[str]) -> int:
    """Be `bin/lab`."""
    parser = build_parser()
    words, command = split_command(normalise(argv))
    options = parser.parse_args(words)
    if command:
        options.command = [*getattr(options, "command", []), *command]
    _check_words(parser, options)
    if os.geteuid() != 0:
        print(f"error: this needs root: run  sudo bin/lab {' '.join(argv)}", file=sys.stderr)
        return FAILED
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _dispatch(options)
    except AlreadyExists as exc:
        print(f"error: {exc}", file=sys.stderr)
        return ALREADY_UP
    except NotFound as exc:
        print(f"error: {exc}", file=sys.stderr)
        return NOT_UP
    except PycniError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exit_status_of(exc)
    except BrokenPipeError:
        # Whoever read our output has seen enough; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED


def split_command(words: list[str]) -> tuple[list[str], list[str]]:
    """Take away what are another program's words: after `--`, and all of kubectl's."""
    if words and words[0] == "kubectl":
        own = 3 if words[1:2] == ["--name"] else 1
        rest = words[own:]
        if rest[:1] not in (["-h"], ["--help"]):
            return words[:own], rest[1:] if rest[:1] == ["--"] else rest
    if "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def _check_words(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End with wrong usage for what no lab could do, before one is asked."""
    if not _NAME.match(options.name):
        parser.error(f"--name {options.name!r}: use a-z, 0-9, '-', '_', '.', at most 32")
    if options.verb == "up" and options.kubernetes and options.tunnel == "uml":
        parser.error("user-mode Linux is too slow for --kubernetes: use --tunnel bpf")
    if options.verb == "exec" and not options.command:
        parser.error("exec needs a command: bin/lab exec PLACE -- CMD…")
    if options.verb != "pod":
        return
    if options.action == "del":
        if (options.node, options.address, options.address6) != (None, None, None):
            parser.error("pod del takes neither --node nor --address")
        return
    if options.node is None:
        parser.error("pod add needs --node")
    from pycni.topology.model import parse_pod

    try:
        parse_pod(_pod_document(options))
    except InvalidInput as exc:
        parser.error(f"{exc}, as in  bin/lab pod add default/extra --node node-1")


def _pod_document(options: argparse.Namespace) -> dict[str, str]:
    keys = {"name": "pod", "node": "node", "address": "address", "address6": "address6"}
    wanted = {key: getattr(options, name) for key, name in keys.items()}
    return {key: value for key, value in wanted.items() if value is not None}


def _dispatch(options: argparse.Namespace) -> int:
    if options.verb in ("up", "down"):
        # Here, because it takes longer to import than most verbs to be done.
        from pycni.lab import up_down

        return up_down.up(options) if options.verb == "up" else up_down.down(options.name)
    match options.verb:
        case "shell" | "exec":
            return _execute(options)
        case "kubectl":
            return _kubectl(options)
        case "pod":
            arguments = {"action": options.action, **_pod_document(options)}
        case "show" | "test":
            arguments = {"output": options.output}
        case "agent" | "node":
            arguments = {"action": options.action, "node": options.node}
        case _:
            arguments = {}
    request = Request(options.verb, arguments, client.own_terminal())
    return client.perform(sockets.connect(options.name), request, has_input=False)


def _execute(options: argparse.Namespace) -> int:
    arguments = {"place": options.place, "command": options.command}
    has_terminal = options.verb == "shell" and os.isatty(client.STDIN)
    request = Request("exec", arguments, client.own_terminal() if has_terminal else None)
    return client.perform(sockets.connect(options.name), request, has_input=True)


def _kubectl(options: argparse.Namespace) -> int:
    has_terminal = os.isatty(client.STDIN)
    terminal = client.own_terminal() if has_terminal else None
    request = Request("kubectl", {"command": list(options.command)}, terminal)
    return client.perform(sockets.connect(options.name), request, has_input=True)
