"""What a migration has done to a node, so that it can be finished or taken back: pure.

Pods are not listed: that one was taken over shows in its record and its interface's ifalias.
"""

import json
from dataclasses import dataclass, replace
from enum import Enum

from pycni.errors import InvalidInput

_VERSION = 1


class Stage(Enum):
    """How far a migration has got."""

    GOING = "going"
    DONE = "done"
    RETURNING = "returning"


@dataclass(frozen=True, slots=True)
class Moved:
    """A file of the host that was renamed."""

    name: str
    aside: str


@dataclass(frozen=True, slots=True)
class Migration:
    """One node's migration; `protocols` are those that handed-over routes had, by destination."""

    node: str
    stage: Stage = Stage.GOING
    moved: tuple[Moved, ...] = ()
    protocols: tuple[tuple[str, int], ...] = ()

    def with_more(
        self, *, moved: tuple[Moved, ...], protocols: tuple[tuple[str, int], ...]
    ) -> "Migration":
        """Return it with what is about to be done as well; what was first stays."""
        return replace(
            self,
            moved=tuple(dict.fromkeys((*self.moved, *moved))),
            protocols=tuple(sorted((dict(protocols) | dict(self.protocols)).items())),
        )


def migration_text(value: Migration) -> str:
    """Return it as the file has it."""
    document = {
        "kind": "Migration",
        "version": _VERSION,
        "from": "calico",
        "node": value.node,
        "stage": value.stage.value,
        "moved": [{"name": one.name, "aside": one.aside} for one in value.moved],
        "protocols": dict(value.protocols),
    }
    return json.dumps(document, indent=2) + "\n"


def parse_migration(text: str, *, source: str) -> Migration:
    """Read the file."""
    try:
        document = json.loads(text)
        if (document["kind"], document["version"]) != ("Migration", _VERSION):
            raise ValueError(f"version {document['version']!r} of a {document['kind']!r}")
        return Migration(
            node=str(document["node"]),
            stage=Stage(document["stage"]),
            moved=tuple(Moved(str(one["name"]), str(one["aside"])) for one in document["moved"]),
            protocols=tuple((str(k), int(v)) for k, v in document["protocols"].items()),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        raise InvalidInput(
            f"cannot read {source}: {exc}; it was written by another version of pycni, or damaged:"
            " see docs/migration.md for what it says"
        ) from exc
