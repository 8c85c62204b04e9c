"""`pycnictl`: the operator's command.  Arguments and output only; each verb group is a module."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

import pycni
from pycni.ctl.output import print_error, reason_of
from pycni.ctl.store import add_datastore_arguments
from pycni.ctl.usage import EXIT_FAILED, EXIT_STATUS

GROUPS = {
    **dict.fromkeys(("status", "routes"), "agent"),
    "bgp": "bgp",
    "node": "node",
    "check": "check",
    **dict.fromkeys(("get", "apply", "delete"), "resources"),
    "ipam": "ipam",
    "cluster": "cluster",
    "migrate": "migrate",
    "predict": "predict",
    "topology": "topology",
}
"""The module of each command, in the order of the help."""


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """Return the command line: that of one command, or all of it.

    What the others import is half of the time in which a command starts.
    """
    parser = argparse.ArgumentParser(
        prog="pycnictl",
        description="Look at and change a pycni network.",
        epilog=f"example: pycnictl get pools -o yaml\n\n{EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pycni {pycni.__version__}")
    add_datastore_arguments(parser)
    verbs = parser.add_subparsers(dest="group", required=True, metavar="COMMAND")
    for module in (GROUPS[command],) if command else dict.fromkeys(GROUPS.values()):
        importlib.import_module(f"pycni.ctl.{module}").register(verbs)
    return parser


def _command_of(words: Sequence[str]) -> str:
    """Return the command that the words begin with; "" where that is not plain to see."""
    at = 0
    while words[at : at + 1] and words[at] in ("--datastore", "--kubeconfig"):
        at += 2
    first = words[at] if at < len(words) else ""
    return first if first in GROUPS else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status (see `pycni.ctl.usage`)."""
    words = sys.argv[1:] if argv is None else argv
    args = build_parser(_command_of(words)).parse_args(words)
    try:
        status: int = args.func(args)
        print(end="", flush=True)  # does nothing where standard output is closed
    except BrokenPipeError:  # the reader (head, less) has seen enough
        _give_output_up()
        return 0
    except OSError as exc:  # border: process top
        _give_output_up()
        doing = f"use {exc.filename}" if exc.filename else "write the output"
        print_error(f"cannot {doing}: {reason_of(exc)}; mend that and try again")
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130
    return status


def _give_output_up() -> None:
    """Let what is still buffered go nowhere, so that nothing complains at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
