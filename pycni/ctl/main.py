"""`pycnictl`: the operator's command.  Arguments and output only; each verb group is a module."""

import argparse
import os
import sys
from collections.abc import Sequence

import pycni
from pycni.ctl import agent, bgp, check, cluster, ipam, migrate, node, predict, resources
from pycni.ctl.output import add_datastore_arguments, print_error, reason_of
from pycni.ctl.usage import EXIT_FAILED, EXIT_STATUS


def build_parser() -> argparse.ArgumentParser:
    """Return the whole command line."""
    parser = argparse.ArgumentParser(
        prog="pycnictl",
        description="Look at and change a pycni network.",
        epilog=f"example: pycnictl get pools -o yaml\n\n{EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"pycni {pycni.__version__}")
    add_datastore_arguments(parser)
    verbs = parser.add_subparsers(dest="group", required=True, metavar="COMMAND")
    for module in (agent, bgp, node, check, resources, ipam, cluster, migrate, predict):
        module.register(verbs)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit status (see `pycni.ctl.usage`)."""
    args = build_parser().parse_args(argv)
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
