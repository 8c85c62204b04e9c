"""Values ↔ `projectcalico.org/v3` documents, as people write them in YAML files.

One file may hold several documents and Lists of objects.  All errors of a file are reported at
once, each with file, number of the document and path of the field.  Not imported by the path of
an ADD: YAML is slow to load.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pycni.errors import InvalidInput
from pycni.model.resources import (
    Block,
    BlockAffinity,
    Handle,
    IPAMConfig,
    Node,
    Resource,
    resource_name,
)
from pycni.model.schema import KIND_NAMES, to_stored
from pycni.model.schema_bgp import parse_bgp_configuration, parse_peer
from pycni.model.schema_config import (
    Config,
    config_spec,
    parse_ipam_config,
    parse_labels,
    parse_node,
    parse_pool,
    parse_reservation,
)
from pycni.model.schema_fields import Fields, check_name
from pycni.model.schema_filter import parse_filter
from pycni.yamltext import read_documents

VERSION = "projectcalico.org/v3"
HIDDEN_PASSWORD = "********"  # noqa: S105 - what is shown instead of one.

_PASSWORDS = ("password", "nodeMeshPassword")
# What a server adds to an object when it is read: harmless in a file, of no meaning to us.
_SERVER_FIELDS = ("uid", "resourceVersion", "generation", "creationTimestamp")

_PARSERS: dict[str, Callable[[str, Fields], Config]] = {
    "IPPool": parse_pool,
    "IPReservation": parse_reservation,
    "BGPPeer": parse_peer,
    "BGPFilter": parse_filter,
    "BGPConfiguration": parse_bgp_configuration,
    "IPAMConfig": parse_ipam_config,
    "IPAMConfiguration": parse_ipam_config,
}


@dataclass(frozen=True, slots=True)
class Manifest:
    """One value out of a file, and where it stood there."""

    value: Config
    where: str


def parse_manifests(text: str, *, source: str) -> tuple[Manifest, ...]:
    """Read all objects of a file; raise one `InvalidInput` that lists every mistake in it."""
    documents = read_documents(text, source=source)
    found: list[Manifest] = []
    mistakes: list[str] = []
    seen: dict[tuple[str, str], str] = {}
    for where, document in _objects(documents, source):
        try:
            value = parse_document(document)
        except InvalidInput as exc:
            mistakes.append(f"{where}: {exc}")
            continue
        key = (KIND_NAMES[type(value)], value.name)
        if key in seen:
            mistakes.append(f"{where}: {key[0]} {key[1]} stands in {seen[key]} already")
        seen[key] = where
        found.append(Manifest(value, where))
    if mistakes:
        raise InvalidInput("\n".join(mistakes))
    return tuple(found)


def _objects(documents: list[object], source: str) -> Iterator[tuple[str, object]]:
    """Number the objects: a List's items one by one, empty documents not at all."""
    for number, document in enumerate(documents, start=1):
        where = f"{source}, document {number}"
        if document is None:
            continue
        if isinstance(document, dict) and isinstance(document.get("items"), list):
            for index, item in enumerate(document["items"]):
                yield f"{where}, items[{index}]", item
        else:
            yield where, document


def parse_document(document: object) -> Config:
    """Read one object; raise `InvalidInput` with the field's path."""
    if isinstance(document, dict) and "nodes" in document and "apiVersion" not in document:
        raise InvalidInput(
            "this is a topology, no manifest: see it by  pycnictl predict -f,  run it by"
            "  bin/lab up --topology"
        )
    fields = Fields(document, path="")
    version = fields.text("apiVersion")
    if not version:
        raise InvalidInput(f"apiVersion: is missing; write {VERSION}")
    if version != VERSION:
        raise InvalidInput(f"apiVersion: {version!r} is not supported; use {VERSION}")
    kind = fields.need("kind")
    metadata = fields.child("metadata")
    name = check_name(metadata.need("name"), path="metadata.name")
    metadata.skip(*_SERVER_FIELDS)
    spec = fields.child("spec")
    value: Config
    if kind == "Node":
        value = parse_node(name, spec, labels=parse_labels(metadata))
    elif kind in _PARSERS:
        value = _PARSERS[kind](name, spec)
    else:
        known = ", ".join(sorted([*_PARSERS, "Node"]))
        raise InvalidInput(f"kind: {kind!r} cannot be applied; known are {known}")
    for reader in (spec, metadata, fields):
        reader.finish()
    _refuse_unsupported(value)
    return value


def _refuse_unsupported(value: Config) -> None:
    for name in _PASSWORDS:
        if config_spec(value).get(name) == HIDDEN_PASSWORD:
            raise InvalidInput(f"spec.{name}: stars stand for a hidden password; give the real one")


def to_document(value: Resource) -> dict[str, Any]:
    """Return a value's v3 document, as `get -o yaml` shows it; passwords are hidden."""
    metadata: dict[str, Any] = {"name": resource_name(value)}
    kind = KIND_NAMES[type(value)]
    match value:
        case Block() | Handle() | BlockAffinity():
            spec = to_stored(value)["spec"]
        case _:
            spec = config_spec(value)
    if isinstance(value, Node) and value.labels:
        metadata["labels"] = dict(value.labels)
    if isinstance(value, IPAMConfig):
        kind = "IPAMConfiguration"
    spec |= {name: HIDDEN_PASSWORD for name in _PASSWORDS if isinstance(spec.get(name), str)}
    return {"apiVersion": VERSION, "kind": kind, "metadata": metadata, "spec": spec}
