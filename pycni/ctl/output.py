"""Printing for people and programs, and the datastore that a command works on."""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from pycni.config import DEFAULT_CONFIG, KUBERNETES, AgentConfig, load_config
from pycni.ctl.usage import WrongUsage, exit_status_of
from pycni.datastore import opening
from pycni.datastore.opening import OpenDatastore
from pycni.datastore.sqlite import DEFAULT_PATH
from pycni.errors import DatastoreUnusable, InvalidInput, PycniError

FORMATS = ("table", "yaml", "json")

_BOLD = "\x1b[1m"
_RED = "\x1b[31m"
_PLAIN = "\x1b[0m"


def add_output_argument(parser: argparse.ArgumentParser, *, plain: str = "") -> None:
    """Add `-o`, the format of the output; `plain` names a default (None) that is no table."""
    parser.add_argument(
        "-o",
        "--output",
        choices=FORMATS,
        default=None if plain else "table",
        help=f"format (default: {plain or 'table'})",
    )


def is_colourful(stream: TextIO) -> bool:
    """Return whether colours would reach a person (see no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print columns, as narrow as they go; nothing but the headers when there are no rows."""
    lines = [list(headers), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    for number, line in enumerate(lines):
        text = "  ".join(
            cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        ).rstrip()
        if number == 0 and is_colourful(sys.stdout):
            text = f"{_BOLD}{text}{_PLAIN}"
        print(text)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def print_documents(documents: Sequence[dict[str, Any]], *, form: str) -> None:
    """Print documents as YAML (one after another), or a single one as JSON."""
    print(documents_text(documents, form=form), end="")


def documents_text(documents: Sequence[dict[str, Any]], *, form: str) -> str:
    """Return what `print_documents` prints."""
    if form == "json":
        (whole,) = documents
        return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
    import yaml

    # Through JSON, because YAML would spell tuples as Python objects.
    plain = (json.loads(json.dumps(document)) for document in documents)
    return "---\n".join(yaml.safe_dump(d, sort_keys=False, allow_unicode=True) for d in plain)


def list_of(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a Kubernetes List."""
    return {"apiVersion": "v1", "kind": "List", "items": list(documents)}


def add_datastore_arguments(parser: argparse.ArgumentParser) -> None:
    """Let the datastore be named before a verb, or behind it; said there, it holds."""
    # No defaults: those behind the verb would overrule what stands before it.
    parser.add_argument(
        "--datastore",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help=f"the embedded datastore ({DEFAULT_PATH}), or 'kubernetes' for the cluster's objects",
    )
    parser.add_argument(
        "--kubeconfig",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="how to reach the cluster (KUBECONFIG, ~/.kube/config); means --datastore kubernetes",
    )


async def open_datastore(args: argparse.Namespace, *, is_read_only: bool = False) -> OpenDatastore:
    """Open the datastore that the command line names, or else that of this host's agent."""
    kubeconfig = getattr(args, "kubeconfig", None)
    named = getattr(args, "datastore", None if kubeconfig is None else KUBERNETES)
    if "" in (named, kubeconfig):
        # An unset variable of a script must not mean the machine's own datastore.
        empty = "--datastore" if named == "" else "--kubeconfig"
        raise WrongUsage(f"{empty} is empty: name a file, or leave it out")
    if named is None:
        named = _agents().datastore_place
    if named == KUBERNETES:
        return await opening.open_datastore(KUBERNETES, kubeconfig=kubeconfig_of(args))
    if kubeconfig is not None:
        raise WrongUsage("--kubeconfig is for --datastore kubernetes: leave one of them out")
    return await _open_file(Path(named), is_read_only)


def kubeconfig_of(args: argparse.Namespace) -> str:
    """Return what the command line names, or where kubectl would look, or the agent's.

    "" where there is none of these, as in a pod.
    """
    usual = Path.home() / ".kube" / "config"
    named: str = getattr(args, "kubeconfig", "") or os.environ.get("KUBECONFIG", "")
    return named or (str(usual) if usual.exists() else _agents().kubeconfig)


def _agents() -> AgentConfig:
    """Return the settings of this host's agent; all defaults, where we may not read them."""
    try:
        return load_config(DEFAULT_CONFIG)
    except InvalidInput as exc:
        if isinstance(exc.__cause__, PermissionError):
            return AgentConfig()
        raise


def _is_file(path: Path) -> bool:
    if path.is_dir():
        raise InvalidInput(f"{path} is a directory: name the datastore's file in it")
    return path.exists()


async def _open_file(path: Path, is_read_only: bool) -> OpenDatastore:  # noqa: FBT001
    try:
        is_new = not _is_file(path) and not is_read_only
        datastore = await opening.open_datastore(str(path), is_read_only=is_read_only)
    except PermissionError as exc:
        raise DatastoreUnusable(f"only root may use the datastore {path}: use sudo") from exc
    except DatastoreUnusable as exc:
        if isinstance(exc.__cause__, OSError):
            raise DatastoreUnusable(_cannot_create(path, exc.__cause__)) from exc
        raise
    if is_new:  # perhaps the path was mistyped
        print_note(f"there was no datastore at {path}; a new one was made")
    return datastore


def _cannot_create(path: Path, exc: OSError) -> str:
    step = "use sudo" if isinstance(exc, PermissionError) else "name another by --datastore"
    return f"cannot create the datastore {path}: {reason_of(exc)}; {step}"


def reason_of(exc: OSError) -> str:
    """Return the words of a system call's error, without its number."""
    return exc.strerror or str(exc)


def command(
    work: Callable[[argparse.Namespace], Coroutine[Any, Any, int]],
) -> Callable[[argparse.Namespace], int]:
    """Wrap an asynchronous command: run it, and print an expected error as a sentence."""

    def run(args: argparse.Namespace) -> int:
        try:
            return asyncio.run(work(args))
        except PycniError as exc:
            print_error(str(exc))
            return exit_status_of(exc)

    return run


def print_note(text: str) -> None:
    """Print beside the output what is worth knowing."""
    print(f"note: {text}", file=sys.stderr)


def print_error(text: str) -> None:
    """Print an error, one line for each of its lines."""
    for line in text.splitlines():
        label = f"{_RED}error:{_PLAIN}" if is_colourful(sys.stderr) else "error:"
        print(f"{label} {line}", file=sys.stderr)
