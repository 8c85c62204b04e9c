"""A command brings along its own module alone, and the help all of them."""

import argparse
import importlib
import subprocess
import sys

import pytest

from pycni.ctl.main import GROUPS, build_parser


def commands_of(parser: argparse.ArgumentParser) -> list[str]:
    (verbs,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))  # noqa: SLF001
    return list(verbs.choices)


def test_every_command_is_known_by_its_module() -> None:
    registered = {}
    for module in dict.fromkeys(GROUPS.values()):
        parser = argparse.ArgumentParser()
        verbs = parser.add_subparsers()
        importlib.import_module(f"pycni.ctl.{module}").register(verbs)
        registered.update(dict.fromkeys(commands_of(parser), module))

    assert registered == GROUPS
    assert commands_of(build_parser()) == list(GROUPS)


@pytest.mark.parametrize(
    ("words", "is_whole"),
    [
        (["get", "--help"], False),
        (["--datastore", "x", "--kubeconfig", "y", "get", "--help"], False),
        (["--datastore=x", "get", "--help"], True),
        (["--datastore"], True),
        (["--help"], True),
        ([], True),
        (["gte"], True),
    ],
)
def test_only_what_is_asked_for_is_imported(words: list[str], *, is_whole: bool) -> None:
    script = (
        "import sys\nfrom pycni.ctl.main import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "print('pycni.migrate.plan' in sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True
    )

    assert ran.stdout.splitlines()[-1] == str(is_whole)
