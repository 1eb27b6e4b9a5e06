"""F18 for what `apr corpus` writes: the same bytes in another process, locale, zone and order."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.corpus_files import program, write_tree
from tests.evaluation_files import HUMAN_EVAL, SOLUTION, write_items
from tests.unit.corpus.deduplication.test_near_duplicates import edited

COMMANDS = """
import sys
from apr.cli.main import run
words = "--quiet --exclude *.csv".split()
sides = ["data/train", "--held-out", "data/held-out"]
assert run(["corpus", "split", "in", "-o", "data", "--val-fraction", "0.3", *words]) == 0
assert run(["corpus", "dedup", *sides, "-o", "list.jsonl", *words]) == 0
sides += ["--against", "set.jsonl"]
assert run(["corpus", "decontaminate", *sides, "-o", "clean", *words]) == 0
"""
# The order of a set of texts is another in every process, unless PYTHONHASHSEED says otherwise.
PLANTED = """
import apr.corpus.reading.documents as documents
list_tree = documents.list_tree
documents.list_tree = lambda *given, **options: list({*list_tree(*given, **options)})
"""
# A file system lists a directory in an order of its own; this one by name, up or down.
LISTED = """
import os
scandir = os.scandir
class Listed:
    def __init__(self, path):
        with scandir(path) as entries:
            self.entries = sorted(entries, key=lambda entry: entry.name, reverse={reverse})
    def __enter__(self):
        return self.entries
    def __iter__(self):
        return iter(self.entries)
    def __exit__(self, *fault):
        pass
os.scandir = Listed
"""
TEXTS = {f"repo{number % 8}/{number}.py": program(number) for number in range(40)}
TEXTS |= {f"copies/{number}.py": program(number) for number in range(0, 40, 9)}
TEXTS |= {f"near/{number}.py": edited(program(number), 25) for number in range(0, 40, 7)}
TEXTS |= {f"repo1/x{number}.csv": "left out" for number in range(6)}
TEXTS["repo2/tested.py"] = program(77) + SOLUTION


def write(folder: Path) -> Path:
    """The corpus, with links, which are never opened."""
    write_tree(folder / "in", TEXTS)
    for name in "abcdef":
        os.symlink("nowhere", folder / "in" / name)
    write_items(folder / "set.jsonl", HUMAN_EVAL)
    return folder


def written(folder: Path, environment: dict[str, str], *, planted: str = "") -> dict[str, bytes]:
    variables = {"PYTHONPATH": ":".join(sys.path), "PATH": os.environ["PATH"]} | environment
    subprocess.run(
        [sys.executable, "-c", planted + COMMANDS],
        cwd=folder,
        env=variables,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    files = [*folder.glob("data/**/*.*"), *folder.glob("list.*"), *folder.glob("clean/*")]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = write(tmp_path_factory.mktemp("expected"))
    files = written(folder, {"PYTHONHASHSEED": "0"})
    assert len(files) == 8
    assert b"near_duplicate" in files["list.jsonl"]
    assert b"contaminated" in files["clean/removals.jsonl"]
    return files


@pytest.mark.parametrize(
    ("environment", "reverse"),
    [
        ({"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"}, False),
        ({"PYTHONHASHSEED": "2", "LC_ALL": "C", "PYTHONUTF8": "0"}, True),
        ({"PYTHONHASHSEED": "3", "LANG": "tr_TR.UTF-8", "OMP_NUM_THREADS": "2"}, True),
    ],
)
def test_another_process_and_another_file_system_write_the_same_bytes(
    expected: dict[str, bytes], tmp_path: Path, environment: dict[str, str], reverse: bool
) -> None:
    listed = LISTED.format(reverse=reverse)
    assert written(write(tmp_path), environment, planted=listed) == expected


def test_a_planted_iteration_over_a_set_would_be_seen(
    expected: dict[str, bytes], tmp_path: Path
) -> None:
    folder = write(tmp_path)
    seen = written(folder, {"PYTHONHASHSEED": "1"}, planted=PLANTED)
    assert seen.keys() == expected.keys()
    assert seen["list.jsonl"] != expected["list.jsonl"]
    assert seen["data/train/part-00000.jsonl.zst"] != expected["data/train/part-00000.jsonl.zst"]
    # The certificate names sets of texts, which have no order.
    assert seen["data/certificate.json"] == expected["data/certificate.json"]
