"""apr imports only what installing apr brings, so that `make demo` needs no development package.

What an extra brings is imported inside the function that needs it, where its absence is refused.
"""

import ast
import sys
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tests.house.refusal_ids import read_source

ROOT = Path(__file__).parents[2]


def imported(text: str) -> set[str]:
    """The top-level packages that this module imports from outside the standard library."""
    return _imported(ast.walk(ast.parse(text)))


def imported_when_needed(text: str) -> set[str]:
    """Those of them that are imported inside functions only."""
    tree = ast.parse(text)
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    inside = {
        inner
        for outer in ast.walk(tree)
        if isinstance(outer, functions)
        for inner in ast.walk(outer)
    }
    return _imported(inside) - _imported(set(ast.walk(tree)) - inside)


def _imported(nodes: Iterable[ast.AST]) -> set[str]:
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"apr"}


@cache
def _providers() -> Mapping[str, list[str]]:
    """Which distributions bring each package; reading that takes a second."""
    return packages_distributions()


def undeclared(names: set[str], *, extras: bool = False) -> set[str]:
    """Those that no runtime dependency in pyproject.toml provides, or with `extras` no extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = list(project["dependencies"])
    if extras:
        requirements += [
            each for extra in project["optional-dependencies"].values() for each in extra
        ]
    declared = {canonicalize_name(Requirement(text).name) for text in requirements}
    providers = _providers()
    return {
        name
        for name in names
        if not declared & {canonicalize_name(each) for each in providers.get(name, [])}
    }


def test_every_import_is_a_declared_dependency() -> None:
    texts = read_source().values()
    names, optional = set().union(*map(imported, texts)), set[str]()
    for text in texts:
        optional |= undeclared(imported_when_needed(text))
        assert undeclared(imported(text) - imported_when_needed(text)) == set()
    assert {"torch", "click", "numpy"} <= names
    assert undeclared(optional, extras=True) == set()


def test_an_undeclared_import_is_seen() -> None:
    text = "import json, yaml\nfrom packaging.version import Version\nfrom . import sibling\n"
    assert imported(text) == {"yaml", "packaging"}
    assert undeclared(imported(text) | {"not_installed"}) == {"packaging", "not_installed"}


def test_an_extra_at_the_top_of_a_module_is_seen() -> None:
    needed = "import json\ndef f():\n    import pyarrow\n"
    assert (imported_when_needed(needed), imported(needed)) == ({"pyarrow"}, {"pyarrow"})
    assert imported_when_needed(needed + "import pyarrow.parquet\n") == set()
    assert undeclared({"pyarrow"}) == {"pyarrow"}
    assert undeclared({"pyarrow"}, extras=True) == set()
