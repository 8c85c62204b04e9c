"""docs/spec.md names every test of the specification's suites, and nothing that is none."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITES = ("errors", "verbs", "cnitool")


def in_the_suites() -> set[str]:
    texts = ((ROOT / "netns-tests" / f"test_spec_{name}.py").read_text() for name in SUITES)
    return {name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}


def test_every_test_of_the_specification_stands_in_the_document_and_the_reverse() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "spec.md").read_text()))

    assert named == in_the_suites()


def test_every_file_that_is_named_exists() -> None:
    text = (ROOT / "docs" / "spec.md").read_text()
    files = set(re.findall(r"`([\w/-]*test_\w+\.py)`", text))

    assert files
    for name in files:
        assert (ROOT / name).exists() or (ROOT / "netns-tests" / name).exists(), name
