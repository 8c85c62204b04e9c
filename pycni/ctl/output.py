"""Printing for people and programs."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TextIO

from pycni.ctl.usage import exit_status_of
from pycni.errors import PycniError

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


def reason_of(exc: OSError) -> str:
    """Return the words of a system call's error, without its number."""
    return exc.strerror or str(exc)


def command(
    work: Callable[[argparse.Namespace], Coroutine[Any, Any, int]],
) -> Callable[[argparse.Namespace], int]:
    """Wrap an asynchronous command: run it, and print an expected error as a sentence."""

    def run(args: argparse.Namespace) -> int:
        import asyncio

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
