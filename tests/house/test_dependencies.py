"""apr imports only what installing apr brings, so that `make demo` needs no development package."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.house.refusal_ids import read_source

ROOT = Path(__file__).parents[2]


def imported(text: str) -> set[str]:
    """The top-level packages that this module imports from outside the standard library."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"apr"}


def undeclared(names: set[str]) -> set[str]:
    """Those that no runtime dependency in pyproject.toml provides."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    providers = packages_distributions()
    return {
        name
        for name in names
        if not declared & {canonicalize_name(each) for each in providers.get(name, [])}
    }


def test_every_import_is_a_declared_dependency() -> None:
    names = set().union(*map(imported, read_source().values()))
    assert {"torch", "click", "numpy"} <= names
    assert undeclared(names) == set()


def test_an_undeclared_import_is_seen() -> None:
    text = "import json, yaml\nfrom packaging.version import Version\nfrom . import sibling\n"
    assert imported(text) == {"yaml", "packaging"}
    assert undeclared(imported(text) | {"not_installed"}) == {"packaging", "not_installed"}
