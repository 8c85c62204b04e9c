"""Blocks, handles and affinities ↔ Calico's documents `crd.projectcalico.org/v1`.

Blocks and handles are read and written by every ADD and DEL, so they have hand-written code here
instead of field readers.  Unknown fields are refused all the same: an update would drop what a
newer version has put there.
"""

import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from pycni.errors import InvalidInput
from pycni.model.prefix import read_prefix
from pycni.model.resources import (
    AffinityState,
    AllocationAttribute,
    Block,
    BlockAffinity,
    Handle,
    resource_name,
)
from pycni.model.schema_fields import Fields, parse_choice
from pycni.model.service_ranges import LOAD_BALANCER, VIRTUAL

HOST_PREFIX = "host:"

_BLOCK_FIELDS = frozenset(
    {
        "cidr",
        "affinity",
        "strictAffinity",
        "deleted",
        "allocations",
        "unallocated",
        "attributes",
        "sequenceNumber",
        "sequenceNumberForAllocation",
    }
)
_ATTRIBUTE_FIELDS = frozenset({"handle_id", "releasedAt", "secondary"})
_TEXT: frozenset[type] = frozenset({str})
_NAME: frozenset[type] = frozenset({str, type(None)})
_HANDLE_FIELDS = frozenset({"handleID", "block", "deleted"})
_MAX_ORDINALS = 4096

# A ready encoder: json.dumps with options builds a new one for each call.
to_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

_ATTRIBUTES = '"attributes":['
_AFTER_ATTRIBUTES = '],"sequenceNumber":'
_OPENING, _BETWEEN, _CLOSING = '{"handle_id":', '}},{"handle_id":', "}}"

# Parsing a CIDR costs as much as a tenth of a block, and the same few come again and again.
_network = lru_cache(maxsize=4096)(read_prefix)


def _refuse_others(spec: dict[str, Any], known: frozenset[str]) -> None:
    others = ", ".join(f"spec.{field}" for field in sorted(spec.keys() - known))
    raise InvalidInput(
        f"{others}: unknown field; a newer version may have written it, so use that one"
    )


def block_spec(block: Block) -> dict[str, Any]:
    """Return the `spec` of an IPAMBlock."""
    return _block_spec(block) | {
        "attributes": [_attribute_document(one) for one in block.attributes],
    }


def _block_spec(block: Block) -> dict[str, Any]:
    """Return the `spec` without its attributes, for which it keeps the place."""
    spec: dict[str, Any] = {"cidr": str(block.cidr)}
    if block.affinity is not None:
        is_virtual = block.affinity.startswith(VIRTUAL)
        spec["affinity"] = block.affinity if is_virtual else HOST_PREFIX + block.affinity
    # The CRD requires it; nothing reads it (the setting is the cluster's, in IPAMConfig).
    spec["strictAffinity"] = False
    spec["deleted"] = block.is_deleted
    spec["allocations"] = block.allocations
    spec["unallocated"] = block.unallocated
    spec["attributes"] = ()
    spec["sequenceNumber"] = block.sequence_number
    spec["sequenceNumberForAllocation"] = {
        str(ordinal): number
        for ordinal, number in enumerate(block.sequence_numbers)
        if number is not None
    }
    return spec


def parse_block(spec: dict[str, Any]) -> Block:
    """Read the `spec` of an IPAMBlock; `pycni.ipam.soundness` checks that it is consistent."""
    return _parse_block(spec, tuple(_attribute(one) for one in spec["attributes"]))


def _parse_block(spec: dict[str, Any], attributes: tuple[AllocationAttribute, ...]) -> Block:
    if not spec.keys() <= _BLOCK_FIELDS:
        _refuse_others(spec, _BLOCK_FIELDS)
    cidr = _network(spec["cidr"])
    if cidr.num_addresses > _MAX_ORDINALS:
        raise InvalidInput(f"spec.cidr: {cidr} is too large for a block")
    numbers: list[int | None] = [None] * cidr.num_addresses
    given = spec.get("sequenceNumberForAllocation") or {}
    for ordinal, number in given.items():
        numbers[int(ordinal)] = number
    return Block(
        cidr=cidr,
        affinity=_owner(spec.get("affinity")),
        allocations=tuple(spec["allocations"]),
        unallocated=tuple(spec["unallocated"]),
        attributes=attributes,
        sequence_number=_whole(spec.get("sequenceNumber", 0)),
        sequence_numbers=tuple(numbers),
        is_deleted=spec.get("deleted", False) is True,
    )


def _require(values: Iterable[object], types: frozenset[type], *, path: str) -> None:
    """Raise `InvalidInput` unless values are of some types: no schema of a server's says so."""
    if not types.issuperset(map(type, values)):
        wrong = next(value for value in values if type(value) not in types)
        raise InvalidInput(f"{path}: {wrong!r} has no place there")


# --- the text of a block ------------------------------------------------------------------------
# Nearly all of it is attributes, of which one changes at a time: each is spelled and read once.


def block_text(block: Block, *, api_version: str, kind: str, name: str) -> str:
    """Return a whole IPAMBlock as JSON, as `to_json` would spell it."""
    head, tail = to_json(
        {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {"name": name},
            "spec": _block_spec(block),
        }
    ).split(_ATTRIBUTES)
    texts = [one.text or _attribute_text(one) for one in block.attributes]
    return f"{head}{_ATTRIBUTES}{','.join(texts)}{tail}"


def parse_block_text(text: str) -> Block | None:
    """Read an IPAMBlock that `block_text` has spelled; None when it is spelled otherwise."""
    # Quotes inside of strings are escaped, so that none of these marks can be part of one.
    head, _, rest = text.partition(_ATTRIBUTES)
    attributes, _, tail = rest.rpartition(_AFTER_ATTRIBUTES)
    pieces = []
    if attributes:
        if not (attributes.startswith(_OPENING) and attributes.endswith(_CLOSING)):
            return None
        pieces = attributes[len(_OPENING) : -len(_CLOSING)].split(_BETWEEN)
    try:
        spec = json.loads(f"{head}{_ATTRIBUTES}{_AFTER_ATTRIBUTES}{tail}")["spec"]
        found = tuple(map(_parse_attribute_text, pieces))
    except ValueError:
        return None
    return _parse_block(spec, found)


def _attribute_text(attribute: AllocationAttribute) -> str:
    text = to_json(_attribute_document(attribute))
    # Frozen against changes of what it means; this is none.
    object.__setattr__(attribute, "text", text)
    return text


@lru_cache(maxsize=2048)
def _parse_attribute_text(piece: str) -> AllocationAttribute:
    text = f"{_OPENING}{piece}{_CLOSING}"
    attribute = _attribute(json.loads(text))
    object.__setattr__(attribute, "text", text)
    return attribute


def _whole(number: object) -> int:
    if not isinstance(number, int):
        raise InvalidInput(f"spec.sequenceNumber: {number!r} is no whole number")
    return number


def _owner(affinity: str | None) -> str | None:
    if affinity is None or affinity == LOAD_BALANCER:
        return affinity
    if not affinity.startswith(HOST_PREFIX):
        raise InvalidInput(f"spec.affinity: {affinity!r} is not of the form host:NODE")
    return affinity[len(HOST_PREFIX) :]


def _attribute_document(attribute: AllocationAttribute) -> dict[str, Any]:
    document: dict[str, Any] = {"handle_id": attribute.handle_id}
    if attribute.released_at is not None:
        document["releasedAt"] = attribute.released_at
    document["secondary"] = dict(attribute.secondary)  # last: see `block_text`
    return document


def _attribute(document: dict[str, Any]) -> AllocationAttribute:
    if not document.keys() <= _ATTRIBUTE_FIELDS:
        raise InvalidInput(f"spec.attributes: unknown field in {sorted(document)}")
    released_at = document.get("releasedAt")
    if not isinstance(released_at, str | None):
        raise InvalidInput(f"spec.attributes: releasedAt: {released_at!r} is no point in time")
    # Keys arrive sorted, from Go as from us; attributes that are equal therefore compare equal.
    secondary = document.get("secondary")
    _require((document.get("handle_id"),), _NAME, path="spec.attributes.handle_id")
    _require((secondary or {}).values(), _TEXT, path="spec.attributes.secondary")
    return AllocationAttribute(
        handle_id=document.get("handle_id"),
        secondary=tuple(secondary.items()) if secondary else (),
        released_at=released_at,
    )


def handle_spec(handle: Handle) -> dict[str, Any]:
    """Return the `spec` of an IPAMHandle."""
    return {
        "handleID": handle.id,
        "block": {str(cidr): count for cidr, count in handle.blocks},
        "deleted": handle.is_deleted,
    }


def parse_handle(spec: dict[str, Any]) -> Handle:
    """Read the `spec` of an IPAMHandle."""
    if not spec.keys() <= _HANDLE_FIELDS:
        _refuse_others(spec, _HANDLE_FIELDS)
    blocks = [(_network(cidr), _whole(count)) for cidr, count in (spec["block"] or {}).items()]
    blocks.sort(key=lambda one: (one[0].version, one[0]))
    return Handle(
        id=spec["handleID"], blocks=tuple(blocks), is_deleted=spec.get("deleted", False) is True
    )


def affinity_document(affinity: BlockAffinity) -> dict[str, Any]:
    """Return a whole BlockAffinity; unlike the others it needs labels, by which Calico lists."""
    # Imported late: an ADD into a block that the node has already reads affinities, no more.
    from base64 import b32encode
    from hashlib import sha3_256

    kind = "virtual" if affinity.node.startswith(VIRTUAL) else "host"
    node = affinity.node.removeprefix(VIRTUAL)
    digest = b32encode(sha3_256(node.encode()).digest()).decode().rstrip("=")
    return {
        "apiVersion": "crd.projectcalico.org/v1",
        "kind": "BlockAffinity",
        "metadata": {
            "name": resource_name(affinity),
            "labels": {
                "projectcalico.org/hostname-hash": digest,
                "projectcalico.org/affinity-type": kind,
                "projectcalico.org/ip-version": str(affinity.cidr.version),
            },
        },
        "spec": {
            "node": node,
            "cidr": str(affinity.cidr),
            "state": affinity.state.value,
            "type": kind,
            # A string here, in Calico's CRD; a boolean in all the others.
            "deleted": "true" if affinity.is_deleted else "false",
        },
    }


def parse_affinity(spec: object) -> BlockAffinity:
    """Read the `spec` of a BlockAffinity."""
    fields = Fields(spec, path="spec")
    kind = fields.text("type")
    node = fields.need("node")
    if kind == "virtual":
        node = VIRTUAL + node
    if kind not in (None, "", "host") and node != LOAD_BALANCER:
        raise InvalidInput(f"spec.type: {kind!r} of {node} is not supported, only host is")
    affinity = BlockAffinity(
        node=node,
        cidr=fields.network("cidr"),
        # As with Calico, whose readers pass over pending ones alone.
        state=parse_choice(
            fields.text("state") or AffinityState.CONFIRMED.value, AffinityState, path="spec.state"
        ),
        is_deleted=fields.text("deleted") == "true",
    )
    fields.finish()
    return affinity
