"""The text of a block: as any document is spelled, and read faster than one."""

import json
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pycni.errors import DatastoreUnusable
from pycni.model import schema
from pycni.model.resources import (
    AllocationAttribute,
    Block,
    resource_name,
)
from tests.unit.model.test_schema import BLOCK, BLOCK_DOCUMENT

# What could be mistaken for the marks between attributes, and what JSON has to escape.
TEXTS = st.text(st.sampled_from('a"\\}{][,:\n\u2028\U0001f600')) | st.sampled_from(
    ['"attributes":[', '],"sequenceNumber":', '}},{"handle_id":', "null"]
)
ATTRIBUTES = st.builds(
    AllocationAttribute,
    st.none() | TEXTS,
    st.dictionaries(TEXTS, TEXTS, max_size=3).map(lambda pairs: tuple(sorted(pairs.items()))),
)


@given(st.lists(ATTRIBUTES, max_size=4), st.none() | TEXTS)
def test_a_block_is_spelled_as_any_document(
    attributes: list[AllocationAttribute], affinity: str | None
) -> None:
    block = replace(BLOCK, attributes=tuple(attributes), affinity=affinity)
    document = schema.to_stored(block)

    text = schema.encode(block)

    assert text == json.dumps(document, separators=(",", ":"))
    assert schema.decode(Block, text, name=resource_name(block)) == block
    # Once more, with what reading and writing remember.
    assert schema.encode(schema.decode(Block, text, name=resource_name(block))) == text
    assert schema.encode(block) == text


@given(st.lists(ATTRIBUTES, max_size=3))
def test_a_block_in_another_spelling_is_read_as_well(
    attributes: list[AllocationAttribute],
) -> None:
    block = replace(BLOCK, attributes=tuple(attributes))
    document = schema.to_stored(block)

    for text in (json.dumps(document), json.dumps(document, sort_keys=True, indent=1)):
        assert schema.decode(Block, text, name=resource_name(block)) == block


@pytest.mark.parametrize(
    "attributes",
    [
        [{}],
        [{"handle_id": "a"}, {"handle_id": "b", "secondary": {}}],
        [{"secondary": {}, "handle_id": "b"}],
        [{"handle_id": "a", "secondary": {}}, {"handle_id": "b"}],
        [{"handle_id": "a", "secondary": None}, {"handle_id": "b", "secondary": {"c": "d"}}],
    ],
)
def test_attributes_of_another_shape_are_read_as_well(attributes: list[dict[str, Any]]) -> None:
    document = json.loads(json.dumps(BLOCK_DOCUMENT))
    document["spec"]["attributes"] = attributes

    block = schema.decode(
        Block, json.dumps(document, separators=(",", ":")), name=resource_name(BLOCK)
    )

    assert [one.handle_id for one in block.attributes] == [
        one.get("handle_id") for one in attributes
    ]


def test_an_attribute_is_read_once() -> None:
    text = schema.encode(BLOCK)

    first, second = (schema.decode(Block, text, name=resource_name(BLOCK)) for _ in range(2))

    assert all(map(lambda a, b: a is b, first.attributes, second.attributes))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"secondary":{"namespace"', '"secondary":{namespace'),
        ('"attributes":[{', '"attributes":[null,"secondary":{'),
        ('"nginx"}}]', '"nginx"}}'),
        ('"handle_id":"k8s', '"holder":"k8s'),
        ("}}", "}"),
    ],
)
def test_a_damaged_block_is_refused(old: str, new: str) -> None:
    text = schema.encode(BLOCK).replace(old, new)

    with pytest.raises(DatastoreUnusable, match="cannot read the stored IPAMBlock"):
        schema.decode(Block, text, name=resource_name(BLOCK))
