"""Facts about the files that git keeps: the licence, and words that must not be in them."""

import hashlib
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Written in two halves, so that this file does not hold what it looks for.
FORBIDDEN = [
    "/wo" "rk/",
    "py" "pi.org",
    "pytho" "nhosted.org",
    "download.py" "torch.org",
    "extra-index" "-url",
    "find" "-links",
    "/.lib" "rary",
    "apr" "-brief",
]  # fmt: skip


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"], cwd=ROOT, capture_output=True
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so nothing says which files are kept")
    names = listed.stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def forbidden_words(data: bytes) -> list[str]:
    return [word for word in FORBIDDEN if word.encode() in data]


def test_no_file_names_a_machine_or_an_index() -> None:
    files = tracked_files()
    assert len(files) > 40
    found = {str(path.relative_to(ROOT)): forbidden_words(path.read_bytes()) for path in files}
    assert {name: words for name, words in found.items() if words} == {}


@pytest.mark.parametrize("word", FORBIDDEN)
def test_each_forbidden_word_is_seen(word: str) -> None:
    assert forbidden_words(f"see {word} for more".encode()) == [word]


def test_the_licence_is_the_standard_text() -> None:
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"


def test_nothing_large_is_kept() -> None:
    large = [str(path) for path in tracked_files() if path.stat().st_size > 500_000]
    assert large == []


def test_source_is_ascii() -> None:
    sources = [path for path in tracked_files() if path.is_relative_to(ROOT / "src")]
    assert sources
    assert [str(path) for path in sources if not path.read_bytes().isascii()] == []
