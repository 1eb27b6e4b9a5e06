"""F18: output depends on workers, order or time.

Shards are a function of the texts and the tokenizer: threads, hash seeds, locale, time zone,
the order in which a file system lists, and where things lie change no byte.
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tokenizer_files import tokenizer

from apr.files import sha256_file
from apr.shards.encode import encode_corpus

NAMES = [f"{package}/{module}.py" for package in "dbca" for module in ("z", "a", "m", "é")]

ENCODE = """
import sys
from pathlib import Path
from apr.shards.encode import encode_corpus
from apr.tokenizer.tokenizer import Tokenizer
corpus, tok, output = map(Path, sys.argv[1:])
tokenizer = Tokenizer.load(tok)
encode_corpus(
    [corpus], tokenizer=tokenizer, encoder="reference", output=output, shard_tokens=50
)
"""


def tree(root: Path, names: list[str], *, changed: str = "") -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"def f():\n    return {name!r}\n" * 9 + changed, encoding="utf-8")
    return root


def identity(corpus: Path, output: Path) -> str:
    encode_corpus(
        [corpus], tokenizer=tokenizer(), encoder="reference", output=output, shard_tokens=50
    )
    return sha256_file(output / "manifest.json")


@pytest.mark.parametrize(
    "environment",
    [
        {"RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "1"},
        {"RAYON_NUM_THREADS": "7", "PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        {"TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "3", "LANG": "tr_TR.UTF-8"},
    ],
)
def test_another_process_writes_the_same_bytes(tmp_path: Path, environment: dict[str, str]) -> None:
    corpus, output = tree(tmp_path / "src", NAMES), tmp_path / "elsewhere" / "shards"
    tokenizer().save(tmp_path / "tok")
    words = [sys.executable, "-c", ENCODE, corpus, tmp_path / "tok", output]
    environment = {"PYTHONPATH": ":".join(sys.path), "PYTHONUTF8": "1"} | environment
    subprocess.run(list(map(str, words)), env=environment, check=True)
    assert sha256_file(output / "manifest.json") == identity(corpus, tmp_path / "here")
    for name in os.listdir(output):
        if name != "encode.json":
            assert (output / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_the_order_in_which_files_were_made_does_not_matter(tmp_path: Path) -> None:
    shuffled = NAMES.copy()
    random.Random(3).shuffle(shuffled)
    first = identity(tree(tmp_path / "first", NAMES), tmp_path / "out-first")
    assert shuffled != NAMES
    assert identity(tree(tmp_path / "second", shuffled), tmp_path / "out-second") == first
    other = tree(tmp_path / "third", NAMES, changed="#")
    assert identity(other, tmp_path / "out-third") != first
