"""What no module of the library may do: print, exit, read argv or the environment, run code."""

import ast

import pytest
from tests.house.refusal_ids import read_source

FORBIDDEN = {
    "print",
    "input",
    "exit",
    "quit",
    "eval",
    "exec",
    "sys.argv",
    "sys.exit",
    "sys.stdout",
    "sys.stderr",
    "os.environ",
    "os.getenv",
    "os.putenv",
    "os._exit",
    "pickle",
    "marshal",
    "shelve",
    "dill",
    "torch.load",
    "torch.save",
}
# The command line is the one place that knows a terminal and an environment.
LIBRARY = {
    name: text
    for name, text in read_source().items()
    if not name.startswith("apr.cli") and name != "apr.__main__"
}


def bad_habits(text: str) -> list[str]:
    """Forbidden names this module uses, with their lines."""
    found = []
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names = [f"{node.value.id}.{node.attr}"]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            names = [node.func.id]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        found += [f"line {node.lineno}: {name}" for name in names if name in FORBIDDEN]
    return found


def test_the_library_keeps_its_habits() -> None:
    assert len(LIBRARY) > 20
    bad = {name: bad_habits(text) for name, text in LIBRARY.items()}
    assert {name: lines for name, lines in bad.items() if lines} == {}


@pytest.mark.parametrize(
    "planted",
    [
        "def f():\n    print(1)",
        "import sys\nsys.exit(1)",
        "from sys import argv",
        "import os\nos.environ['A']",
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "eval('1')",
    ],
)
def test_a_bad_habit_is_seen(planted: str) -> None:
    assert bad_habits(planted)


def test_harmless_lookalikes_pass() -> None:
    assert bad_habits("model.eval()\nimport os\nos.replace('a', 'b')\nfingerprint('x')") == []


def test_every_module_says_what_it_is() -> None:
    silent = [
        name
        for name, text in read_source().items()
        if text.strip() and not ast.get_docstring(ast.parse(text))
    ]
    assert silent == []


def test_package_files_stay_empty() -> None:
    """An import there would load what the disk half must not load."""
    texts = {name: text for name, text in read_source().items() if name.endswith(".__init__")}
    assert len(texts) > 5
    assert [name for name, text in texts.items() if text and name != "apr.__init__"] == []
