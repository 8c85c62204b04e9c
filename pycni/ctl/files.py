"""Reading the file that a command line names."""

import sys
from pathlib import Path

from pycni.ctl.output import reason_of
from pycni.errors import InvalidInput


def source_name(filename: str) -> str:
    """Return what a sentence calls a file; - is standard input."""
    return "standard input" if filename == "-" else filename


def read_input(filename: str) -> str:
    """Return the text of a file; - is standard input."""
    if filename == "-" and getattr(sys, "stdin", None) is None:
        raise InvalidInput("cannot read standard input: it is closed; name a file")
    try:
        return sys.stdin.read() if filename == "-" else Path(filename).read_text("utf-8")
    except OSError as exc:
        raise InvalidInput(f"cannot read {source_name(filename)}: {reason_of(exc)}") from exc
    except UnicodeDecodeError as exc:
        raise InvalidInput(
            f"cannot read {source_name(filename)}: it is no text in UTF-8 ({exc})"
        ) from exc
