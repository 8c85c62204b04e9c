"""Calico's selector language: what each form means, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pycni.errors import InvalidInput
from pycni.model.selector import MAX_DEPTH, MAX_LENGTH, selector

NODE = {"rack": "a-1", "kubernetes.io/os": "linux", "empty": "", "in": "x"}


@pytest.mark.parametrize(
    ("text", "is_match"),
    [
        ("", True),
        ("   ", True),
        ("all()", True),
        (" all ( ) ", True),
        ("!all()", False),
        ("! ! all()", True),
        ("global()", True),
        ("has(rack)", True),
        ("has( rack )", True),
        ("has(zone)", False),
        ("!has(zone)", True),
        ("has(all)", False),
        ("rack == 'a-1'", True),
        ('rack == "a-1"', True),
        ("rack=='b'", False),
        ("zone == ''", False),
        ("empty == ''", True),
        ("rack != 'b'", True),
        ("rack != 'a-1'", False),
        ("zone != 'b'", True),
        ("rack in {'b', 'a-1'}", True),
        ("rack in {'b'}", False),
        ("rack in {}", False),
        ("rack in {'b',}", False),
        ("zone in {'b'}", False),
        ("rack not in {'b'}", True),
        ("rack not  in {'a-1'}", False),
        ("zone not in {'b'}", True),
        ("rack contains '-'", True),
        ("rack contains 'x'", False),
        ("zone contains ''", False),
        ("rack starts with 'a'", True),
        ("rack starts  with '1'", False),
        ("zone starts with ''", False),
        ("rack ends with '1'", True),
        ("rack ends with 'a'", False),
        ("zone ends with ''", False),
        ("kubernetes.io/os == 'linux'", True),
        ("in == 'x'", None),
        ("index == 'x' || ended == 'y' || starts == 'z' || notable == 'u'", False),
        ("has(rack) && has(empty)", True),
        ("has(rack) && has(zone)", False),
        ("has(zone) || has(rack)", True),
        ("has(zone) || has(region)", False),
        # && binds closer than ||.
        ("has(rack) || has(zone) && has(region)", True),
        ("(has(rack) || has(zone)) && has(region)", False),
        ("!(has(zone) || has(region)) && rack == 'a-1'", True),
        ("!has(rack) || rack == 'a-1'", True),
        ("rack == 'a || b'", False),
    ],
)
def test_what_each_form_means(text: str, is_match: bool | None) -> None:
    if is_match is None:
        with pytest.raises(InvalidInput):
            selector(text)
        return
    assert selector(text)(NODE) is is_match


def test_what_is_in_a_namespace_is_not_global() -> None:
    assert not selector("global()")({"projectcalico.org/namespace": "default"})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("rack", "character 5: what 'rack' is to be compared with is missing"),
        ("rack == a", "character 8: a text in quotes is missing"),
        ("rack == 'a", "character 9: what is there is no part of a selector"),
        ("rack = 'a'", "character 6: what is there is no part of a selector"),
        ("'a' == rack", "character 1: a label, has"),
        ("has(rack", "character 4: what 'has' is to be compared with is missing"),
        ("has()", "character 4: what 'has' is to be compared with is missing"),
        ("(has(rack)", "character 11: '\\)' is missing"),
        ("has(rack))", "character 10: '\\)' is not expected here"),
        ("has(rack) has(zone)", "is not expected here"),
        ("has(rack) &&", "a label, has"),
        ("|| has(rack)", "a label, has"),
        ("!", "a label, has"),
        ("rack in 'a'", "'{' is missing"),
        ("rack in {a}", "a text in quotes is missing"),
        ("rack in {'a' 'b'}", "'}' is missing"),
        ("rack in {'a'", "'}' is missing"),
        ("rack not 'a'", "what 'rack' is to be compared with"),
        ("rack & 'a'", "no part of a selector"),
        ("x" * (MAX_LENGTH + 1), "over 4096 characters"),
        ("(" * (MAX_DEPTH + 1) + "all()" + ")" * (MAX_DEPTH + 1), "more than 64 parentheses"),
    ],
)
def test_what_is_no_selector_is_refused_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        selector(text)


WORDS = ["all()", "has(a)", "a", "==", "!=", "in", "not in", "{", "}", ",", "'x'", "&&", "||"]
WORDS += ["!", "(", ")", "contains", '"y"', " ", "global()", "starts with", "\x00", "ä"]


@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_any_text_is_a_selector_or_refused(words: list[str]) -> None:
    text = " ".join(words)
    try:
        matches = selector(text)
    except InvalidInput:
        return
    assert matches({"a": "x"}) in (True, False)


def terms() -> st.SearchStrategy[tuple[str, bool]]:
    """Selectors with what they mean for {"a": "x"}."""
    leaves = st.sampled_from([("has(a)", True), ("has(b)", False), ("a == 'x'", True)])
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            inner.map(lambda one: (f"!({one[0]})", not one[1])),
            st.tuples(inner, inner).map(
                lambda two: (f"(({two[0][0]}) && ({two[1][0]}))", two[0][1] and two[1][1])
            ),
            st.tuples(inner, inner).map(
                lambda two: (f"(({two[0][0]}) || ({two[1][0]}))", two[0][1] or two[1][1])
            ),
        ),
        max_leaves=8,
    )


@given(terms())
def test_operators_mean_what_logic_says(term: tuple[str, bool]) -> None:
    text, meaning = term

    assert selector(f"({text})")({"a": "x"}) is meaning
