"""`import apr` and every `--help` stay light: no heavy package is loaded to answer them."""

import json
import subprocess
import sys

import pytest
from tests.house.command_line import commands

from apr.cli.main import VERBS

HEAVY = ("torch", "numpy", "pydantic", "rich", "tokenizers", "safetensors", "transformers")

PROGRAM = """
import contextlib, io, json, sys
{work}
heavy = [name for name in {heavy} if name in sys.modules]
print(json.dumps({{"heavy": heavy, "num_modules": len(sys.modules), "text": text}}))
"""
HELP = """
from apr.cli.main import run
with contextlib.redirect_stdout(io.StringIO()) as out:
    assert run({arguments}) == 0
text = out.getvalue()
"""


def loaded_by(work: str) -> dict[str, object]:
    program = PROGRAM.format(work=work, heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_import_apr_loads_nothing_heavy() -> None:
    report = loaded_by("import apr; text = apr.__version__")
    assert report["heavy"] == []


def test_help_of_the_program_imports_no_verb() -> None:
    report = loaded_by(
        HELP.format(arguments=["--help"])
        + "text += ' '.join(name for name in sys.modules if name.startswith('apr.cli.'))"
    )
    assert report["heavy"] == []
    assert "Verbs:" in str(report["text"])
    assert [verb for verb in VERBS if f"apr.cli.{verb}" in str(report["text"]).split()] == []


@pytest.mark.parametrize(
    "path", sorted({f"apr {verb}" for verb in VERBS} | {path for path, _ in commands()})
)
def test_help_of_a_verb_loads_nothing_heavy(path: str) -> None:
    report = loaded_by(HELP.format(arguments=[*path.split()[1:], "--help"]))
    assert report["heavy"] == []
    assert f"Usage: {path}" in str(report["text"])


def test_a_heavy_import_would_be_seen() -> None:
    report = loaded_by("import numpy; text = ''")
    assert report["heavy"] == ["numpy"]
