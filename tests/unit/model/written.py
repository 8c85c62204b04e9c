"""Objects as people write them."""

from typing import Any


def document(kind: str, *, name: object = "x", **spec: object) -> dict[str, Any]:
    """Return a document of a kind with this `spec`."""
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }
