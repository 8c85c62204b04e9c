"""Every module has its place among the layers, and both lists of pure modules are one."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]


def contract(name: str) -> dict[str, list[str]]:
    contracts = SETTINGS["importlinter"]["contracts"]
    (found,) = (c for c in contracts if c["id"] == name)
    return dict(found)


def modules() -> set[str]:
    files = (ROOT / "pycni").rglob("*.py")
    names = (".".join(f.relative_to(ROOT).with_suffix("").parts) for f in files)
    return {name for name in names if not name.endswith(".__init__")}


def is_within(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def test_every_module_has_a_layer() -> None:
    placed = {name.strip() for line in contract("layers")["layers"] for name in line.split("|")}

    homeless = {m for m in modules() if not any(is_within(m, p) for p in placed)}

    assert homeless == set()


def test_the_coverage_tier_and_the_contract_name_the_same_pure_modules() -> None:
    patterns = SETTINGS["pycni"]["coverage"]["pure"]
    covered = {p.removesuffix("/*").removesuffix(".py").replace("/", ".") for p in patterns}

    assert covered == set(contract("pure")["source_modules"])
