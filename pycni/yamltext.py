"""YAML as people write it, to plain values.

Not imported by the path of an ADD: YAML is slow to load.
"""

from collections.abc import Hashable
from typing import Any

import yaml

from pycni.errors import InvalidInput


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, of which YAML would silently keep the last."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    loader.flatten_mapping(node)
    result: dict[Hashable, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is no string", key_node.start_mark
            )
        if key in result:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is given twice", key_node.start_mark
            )
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_documents(text: str, *, source: str) -> list[object]:
    """Return a text's documents; an error is one line that says where the fault is."""
    try:
        return list(yaml.load_all(text, Loader=_Loader))
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        raise InvalidInput(f"cannot read {source}: {_fault(exc)}") from exc


def _fault(exc: Exception) -> str:
    fault = str(exc)
    if isinstance(exc, yaml.MarkedYAMLError) and exc.problem_mark is not None:
        mark = exc.problem_mark
        fault = f"line {mark.line + 1}, column {mark.column + 1}: {exc.problem}"
    return " ".join(fault.split()) or type(exc).__name__
