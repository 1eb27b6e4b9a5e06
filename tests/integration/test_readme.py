"""The README does what it says: its commands and its Python run as they stand."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(heading: str, language: str) -> str:
    """The first code block of a language below a heading."""
    section = README.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert found, f"no {language} block under {heading!r}"
    return found[1]


def test_the_same_by_hand(tmp_path: Path) -> None:
    for folder in ("src", "tests"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    commands = block("The same by hand", "sh")
    assert commands.count("\napr ") + commands.startswith("apr ") == 18
    apr = f'apr() {{ "{sys.executable}" -m apr "$@"; }}\n'
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        ["bash", "-euc", apr + commands],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "budget_exhausted" in done.stdout
    pages = "".join(
        found
        for page in ("huggingface.md", "gguf.md", "training.md", "performance.md")
        for found in re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    )
    assert len(re.findall(r"^apr ", pages, re.MULTILINE)) == 13
    done = subprocess.run(
        ["bash", "-euc", apr + pages],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    example = subprocess.run(
        [sys.executable, "-c", block("The same by hand", "python")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert example.returncode == 0, example.stderr
    assert example.stdout.startswith("budget_exhausted ")


def test_the_file_map_names_what_is_there() -> None:
    tree = re.search(r"```\nsrc/apr/\n(.*?)```", README, re.DOTALL)
    assert tree
    named = re.findall(r"^  ((?:[\w.]+(?:\.py|/) *)+)  ", tree[1], re.MULTILINE)
    paths = [ROOT / "src" / "apr" / name for line in named for name in line.split()]
    assert len(paths) > 12
    assert [path for path in paths if not path.exists()] == []
    packages = {path.name for path in (ROOT / "src" / "apr").iterdir() if path.is_dir()}
    assert packages - {"__pycache__"} <= {path.name for path in paths}
