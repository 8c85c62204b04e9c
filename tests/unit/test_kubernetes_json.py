"""Answers of an API server that somebody has nested without measure."""

import json

import pytest

from pycni.datastore.kubernetes_json import DEPTH, parse

SURELY_TOO_DEEP = 20_000


def nested(depth: int, *, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


def test_what_a_parser_can_follow_is_left_as_it_is() -> None:
    text = nested(DEPTH + 1)

    assert parse(text.encode()) == json.loads(text)


def test_what_is_too_deep_is_left_out_and_all_else_is_there() -> None:
    deep = nested(SURELY_TOO_DEEP)
    text = f'{{"before": [1, {{}}], "deep": {deep}, "between": "ü", "again": {deep}, "after": 2}}'

    value = parse(text.encode())

    assert [value["before"], value["between"], value["after"]] == [[1, {}], "ü", 2]
    levels, inner = 1, value["deep"]
    while inner is not None:
        levels, (inner,) = levels + 1, inner
    assert levels == DEPTH
    assert value["again"] == value["deep"]


def test_brackets_in_texts_are_no_levels() -> None:
    said = 'a [[[ "quoted" }}} \\'
    text = f'[{json.dumps(said)}, {nested(SURELY_TOO_DEEP)}, "]"]'

    first, _, last = parse(text.encode())

    assert (first, last) == (said, "]")


@pytest.mark.parametrize(
    "text", ["[" * SURELY_TOO_DEEP, nested(SURELY_TOO_DEEP) + "x", "{torn", '"']
)
def test_what_is_no_json_is_an_error_however_deep(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(text.encode())
