"""Calico's selector language: which objects a rule means, by their labels.  Pure.

    all()                       everything (so does an empty text)
    has(rack)                   objects with that label
    rack == "a"   rack != "a"   != also means objects without the label
    rack in {"a", "b"}          rack not in {…}: also objects without the label
    rack contains "x"           starts with, ends with
    !…   … && …   … || …   (…)  && binds closer than ||
    global()                    objects in no namespace

Source: the documentation of Calico's `selector` fields and its parser's behaviour.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from pycni.errors import InvalidInput

Labels = Mapping[str, str]
Matches = Callable[[Labels], bool]

NAMESPACE_LABEL = "projectcalico.org/namespace"
MAX_LENGTH = 4096
MAX_DEPTH = 64

# Compiled with the first selector: hardly any request meets one, and each pays for its imports.
_SPELLING = r"""\s*(?:
        (?P<operator>all\s*\(\s*\)|global\s*\(\s*\)|has\s*\(\s*(?P<had>[A-Za-z0-9_./-]+)\s*\)
            |==|!=|&&|\|\||!|\(|\)|\{|\}|,
            |(?:not\s+in|in|contains|starts\s+with|ends\s+with)(?![A-Za-z0-9_./-]))
        |"(?P<double>[^"]*)"|'(?P<single>[^']*)'
        |(?P<label>[A-Za-z0-9_./-]+)
    )"""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # "operator", "text", "label", "end"
    text: str
    at: int


@lru_cache(maxsize=256)
def selector(text: str) -> Matches:
    """Return the test that a selector stands for; raise `InvalidInput` where it is none."""
    if len(text) > MAX_LENGTH:
        raise InvalidInput(f"a selector of over {MAX_LENGTH} characters")
    if not text.strip():
        return _everything
    return _Parser(text).parsed()


def _everything(_: Labels) -> bool:
    return True


class _Parser:
    """Reads one text by recursive descent; each method leaves the first token behind its part."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._split())
        self._next = 0
        self._depth = 0

    def _split(self) -> Iterator[_Token]:
        token = re.compile(_SPELLING, re.VERBOSE)
        at, end = 0, len(self._text.rstrip())
        while at < end:
            found = token.match(self._text, at)
            if found is None:
                start = at + len(self._text[at:]) - len(self._text[at:].lstrip())
                raise self._wrong(start, "what is there is no part of a selector")
            group = found.lastgroup or ""
            kind = {"double": "text", "single": "text", "had": "operator"}.get(group, group)
            text = found["operator"] or found[group]
            yield _Token(kind, " ".join(text.split()) if kind == "operator" else text, at)
            at = found.end()
        yield _Token("end", "", at)

    def _wrong(self, at: int, why: str) -> InvalidInput:
        return InvalidInput(f"selector {self._text!r}, character {at + 1}: {why}")

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, text: str) -> bool:
        """Step over an operator if it is next."""
        is_next = (self._token.kind, self._token.text) == ("operator", text)
        self._next += is_next
        return is_next

    def _expect(self, text: str) -> None:
        if not self._take(text):
            raise self._wrong(self._token.at, f"{text!r} is missing")

    def parsed(self) -> Matches:
        """Return the whole."""
        matches = self._either()
        if self._token.kind != "end":
            raise self._wrong(self._token.at, f"{self._token.text!r} is not expected here")
        return matches

    def _either(self) -> Matches:
        parts = [self._both()]
        while self._take("||"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else lambda labels: any(p(labels) for p in parts)

    def _both(self) -> Matches:
        parts = [self._negated()]
        while self._take("&&"):
            parts.append(self._negated())
        return parts[0] if len(parts) == 1 else lambda labels: all(p(labels) for p in parts)

    def _negated(self) -> Matches:
        is_negated = False
        while self._take("!"):
            is_negated = not is_negated
        part = self._term()
        return (lambda labels: not part(labels)) if is_negated else part

    def _term(self) -> Matches:
        token = self._token
        if self._take("("):
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise self._wrong(token.at, f"more than {MAX_DEPTH} parentheses in one another")
            inner = self._either()
            self._expect(")")
            self._depth -= 1
            return inner
        if token.kind == "label":
            self._next += 1
            return self._comparison(token.text)
        name, _, rest = token.text.partition("(")
        if token.kind == "operator" and rest:
            self._next += 1
            return _call(name.strip(), rest.rstrip(") ").strip())
        raise self._wrong(token.at, "a label, has(…), all() or a parenthesis is missing")

    def _comparison(self, label: str) -> Matches:
        token = self._token
        self._next += token.kind == "operator"
        match token.text if token.kind == "operator" else "":
            case "==":
                value = self._value()
                return lambda labels: labels.get(label) == value
            case "!=":
                value = self._value()
                return lambda labels: labels.get(label) != value
            case "in":
                values = self._values()
                return lambda labels: labels.get(label) in values
            case "not in":
                values = self._values()
                return lambda labels: labels.get(label) not in values
            case "contains":
                value = self._value()
                return lambda labels: value in labels[label] if label in labels else False
            case "starts with":
                value = self._value()
                return lambda labels: labels[label].startswith(value) if label in labels else False
            case "ends with":
                value = self._value()
                return lambda labels: labels[label].endswith(value) if label in labels else False
            case _:
                raise self._wrong(token.at, f"what {label!r} is to be compared with is missing")

    def _value(self) -> str:
        token = self._token
        if token.kind != "text":
            raise self._wrong(token.at, "a text in quotes is missing")
        self._next += 1
        return token.text

    def _values(self) -> frozenset[str]:
        self._expect("{")
        values: set[str] = set()
        while not self._take("}"):
            values.add(self._value())
            if not self._take(","):
                self._expect("}")
                break
        return frozenset(values)


def _call(name: str, label: str) -> Matches:
    match name:
        case "has":
            return lambda labels: label in labels
        case "global":
            return lambda labels: NAMESPACE_LABEL not in labels
        case _:
            return _everything
