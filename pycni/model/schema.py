"""Values ↔ the JSON that is stored: Calico's `crd.projectcalico.org/v1`, for every kind.

This is what datastores use; `pycni.model.schema_yaml` is for people.  Kept light, because the
in-process engine imports it for each request.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from pycni.errors import DatastoreUnusable, InvalidInput
from pycni.model.resources import (
    Block,
    BlockAffinity,
    Handle,
    IPAMConfig,
    IPPool,
    IPReservation,
    Node,
    Resource,
    resource_name,
)
from pycni.model.resources_bgp import BGPConfiguration, BGPFilter, BGPPeer
from pycni.model.schema_bgp import parse_bgp_configuration, parse_peer
from pycni.model.schema_config import (
    config_spec,
    node_document,
    parse_ipam_config,
    parse_pool,
    parse_reservation,
    parse_stored_node,
)
from pycni.model.schema_fields import Fields
from pycni.model.schema_filter import parse_filter
from pycni.model.schema_ipam import (
    affinity_document,
    block_spec,
    block_text,
    handle_spec,
    parse_affinity,
    parse_block,
    parse_block_text,
    parse_handle,
    to_json,
)

T = TypeVar("T", bound=Resource)

STORED_VERSION = "crd.projectcalico.org/v1"

KIND_NAMES: dict[type[object], str] = {
    IPPool: "IPPool",
    IPReservation: "IPReservation",
    Node: "Node",
    BGPPeer: "BGPPeer",
    BGPFilter: "BGPFilter",
    BGPConfiguration: "BGPConfiguration",
    IPAMConfig: "IPAMConfig",
    BlockAffinity: "BlockAffinity",
    Block: "IPAMBlock",
    Handle: "IPAMHandle",
}
_CONFIGURED = (IPPool, IPReservation, IPAMConfig, BGPPeer, BGPFilter, BGPConfiguration)


def to_stored(value: Resource) -> dict[str, Any]:
    """Return the document of a value."""
    match value:
        case Node():
            return node_document(value)
        case BlockAffinity():
            return affinity_document(value)
        case Block():
            spec = block_spec(value)
        case Handle():
            spec = handle_spec(value)
        case _:
            spec = config_spec(value)
    return {
        "apiVersion": STORED_VERSION,
        "kind": KIND_NAMES[type(value)],
        "metadata": {"name": resource_name(value)},
        "spec": spec,
    }


def encode(value: Resource, *, name: str | None = None) -> str:
    """Return the text that is stored for a value; its name may be at hand."""
    if isinstance(value, Block):
        return block_text(
            value,
            api_version=STORED_VERSION,
            kind=KIND_NAMES[Block],
            name=name or resource_name(value),
        )
    return to_json(to_stored(value))


def decode(kind: type[T], text: str | bytes, *, name: str) -> T:
    """Read what is stored under a name; raise `DatastoreUnusable` when it is not what it must be.

    The stored name counts as part of the truth: a document under another's name is corrupt.
    """
    return _checked(kind, name, lambda: _from_text(kind, text))


def decode_document(kind: type[T], document: dict[str, Any], *, name: str) -> T:
    """Read what is stored under a name, as `decode` does, where it has been parsed already."""
    return _checked(kind, name, lambda: from_stored(kind, document))


def _checked(kind: type[T], name: str, read: Callable[[], T]) -> T:
    try:
        value = read()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as exc:
        raise _unreadable(kind, name, f"{type(exc).__name__}: {exc}") from exc
    except InvalidInput as exc:
        raise _unreadable(kind, name, str(exc)) from exc
    if resource_name(value) != name:
        raise _unreadable(kind, name, f"it describes {resource_name(value)}")
    return value


def _from_text(kind: type[T], text: str | bytes) -> T:
    if kind is Block and isinstance(text, str):
        block = parse_block_text(text)
        if isinstance(block, kind):
            return block
    return from_stored(kind, json.loads(text))


def _unreadable(kind: type[object], name: str, what: str) -> DatastoreUnusable:
    # What people configure is theirs to correct; what IPAM keeps is nobody's to write.
    step = (
        "edit or delete that object"
        if kind in _CONFIGURED
        else "restore the datastore from a backup"
    )
    return DatastoreUnusable(
        f"cannot read the stored {KIND_NAMES[kind]} {name}: {what};"
        f" {step}, or use the version of pycni that wrote it"
    )


def from_stored(kind: type[T], document: dict[str, Any]) -> T:
    """Read a document; raise `InvalidInput` with the field's path."""
    value: Resource
    if kind is Block:
        value = parse_block(document["spec"])
    elif kind is Handle:
        value = parse_handle(document["spec"])
    elif kind is BlockAffinity:
        value = parse_affinity(document["spec"])
    else:
        value = _from_config(kind, document)
    if not isinstance(value, kind):
        raise InvalidInput(f"kind: {kind.__name__} is none that is stored")
    return value


def _from_config(kind: type[object], document: dict[str, Any]) -> Resource:
    metadata = Fields(document["metadata"], path="metadata")
    name = metadata.need("name")
    if kind is Node:
        return parse_stored_node(name, metadata, status=Fields(document, path="").child("status"))
    spec = Fields(document["spec"], path="spec")
    value: Resource
    if kind is IPPool:
        value = parse_pool(name, spec)
    elif kind is IPReservation:
        value = parse_reservation(name, spec)
    elif kind is BGPPeer:
        value = parse_peer(name, spec)
    elif kind is BGPFilter:
        value = parse_filter(name, spec)
    elif kind is BGPConfiguration:
        value = parse_bgp_configuration(name, spec)
    else:
        value = parse_ipam_config(name, spec)
    spec.finish()
    return value
