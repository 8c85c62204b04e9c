"""Hold what the plugin and pycnictl say against docs/addresses.md, names and numbers apart."""

import re

from cluster import ROOT

_HANDLE = r"(?:spec|k8s-pod-network)\.[\w.-]+"


def require_documented(text: str) -> None:
    """Find each line among the page's quotes and examples."""
    page = (ROOT / "docs" / "addresses.md").read_text()
    told = {_shape(line.removeprefix("> ")) for line in page.splitlines()}
    assert [line for line in text.splitlines() if _shape(line) not in told] == []


def _shape(line: str) -> str:
    return " ".join(re.sub(rf"{_HANDLE}|\d+", "…", line).split())
