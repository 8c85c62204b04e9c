"""Read what an API server answers, however deep somebody has nested what nobody here reads.

Whoever may make a pod or a NetworkPolicy also writes its `metadata.managedFields`, in which the API
server takes thousands of levels.  Python's parser gives up long before that, and with such an
object all others of the same listing would be unreadable.  Pure.
"""

import json
import re
from typing import Any

DEPTH = 64
"""What is nested deeper is left out: a block, the deepest of what is read, has eight levels."""
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]', re.DOTALL)


def parse(text: bytes) -> Any:  # noqa: ANN401 - JSON
    """Return the value of a JSON text, with null for what is too deep; raise `ValueError`."""
    try:
        return json.loads(text)
    except RecursionError:
        return json.loads(_shallow(text.decode()))


def _shallow(text: str) -> str:
    """Put null in the place of each array and object below `DEPTH`."""
    kept, start, level = [], 0, 0
    for token in _TOKEN.finditer(text):
        if token[0] in ("[", "{"):
            level += 1
            if level == DEPTH + 1:
                kept.append(text[start : token.start()])
        elif token[0] in ("]", "}"):
            if level == DEPTH + 1:
                kept.append("null")
                start = token.end()
            level -= 1
    if level:
        raise ValueError("the answer ends in the middle of an object")
    return "".join([*kept, text[start:]])
