"""The floors hold: a package imports only what stands below it, and packages are listed where they exist."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDER = ["errors", "state", "operators", "planner", "cluster"]
FOREIGN = {
    "sqlglot": ["planner/"],
    "ray": ["cluster/ray/"],
    "confluent_kafka": ["operators/connectors/kafka"],
}
MODULES = sorted(path for floor in ORDER[1:] for path in (ROOT / floor).rglob("*.py"))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_imports_only_floors_below(path: Path) -> None:
    place = str(path.relative_to(ROOT))
    allowed = ORDER[: ORDER.index(place.split("/")[0]) + 1]
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "millrace" and len(parts) > 1:
            assert parts[1] in allowed, f"{place} imports {name}"
        assert parts[0] not in ORDER[1:], f"{place} imports {name} without millrace"
        if parts[0] in FOREIGN:
            assert any(place.startswith(home) for home in FOREIGN[parts[0]]), f"{place} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_module_stays_within_600_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 600


def test_every_package_is_listed_for_the_build() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        "millrace." + str(init.parent.relative_to(ROOT)).replace("/", ".")
        for floor in ORDER[1:]
        for init in (ROOT / floor).rglob("__init__.py")
    }
    assert listed == found | {"millrace"}
