"""Which removal lists and which certificate lie beside a corpus, by names and hashes."""

from pathlib import Path

import pytest
from tests.corpus_files import program, write_jsonl

from apr.cli.main import run
from apr.corpus.beside import Cleaning, cleaning_beside


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"content": program(number), "repo": f"r{number}"} for number in range(12)]
    write_jsonl(tmp_path / "in.jsonl", [*rows, rows[3]])
    return tmp_path


def dedup(*words: str) -> None:
    assert run(["corpus", "dedup", *words, "--no-near", "--quiet"]) == 0


def test_a_list_without_a_certificate_is_named(here: Path) -> None:
    corpus = Path("in.jsonl")
    assert cleaning_beside([corpus]) == Cleaning()
    dedup("in.jsonl", "-o", "list.jsonl")
    (here / "list.certificate.json").unlink(missing_ok=True)
    assert cleaning_beside([corpus]) == Cleaning((Path("list.jsonl"),))
    # Another corpus is no list, and what lies apart, or elsewhere, has none beside it.
    write_jsonl(here / "more.jsonl", [{"content": "a"}])
    assert cleaning_beside([corpus]) == Cleaning((Path("list.jsonl"),))
    write_jsonl(here / "apart" / "in.jsonl", [{"content": "a"}])
    assert cleaning_beside([corpus, Path("apart/in.jsonl")]) == Cleaning()
    assert cleaning_beside([corpus, "memory://in.jsonl"]) == Cleaning()


def test_the_last_certificate_decides_and_two_last_ones_decide_nothing(here: Path) -> None:
    split = "corpus split in.jsonl -o data --group file --val-fraction 0.2 --group repo"
    assert run([*split.split(), "--quiet"]) == 0
    sides = ("data/train", "--held-out", "data/held-out", "--certificate", "data/certificate.json")
    corpus = [Path("data/train")]
    dedup(*sides, "-o", "data/a.jsonl")
    first = Cleaning((Path("data/a.jsonl"),), Path("data/a.certificate.json"))
    assert cleaning_beside(corpus) == first
    (here / "data" / "in-the-way.json").write_text("{")
    assert cleaning_beside(corpus) == first
    # Two that carry the first one on, by other rules: neither is the last.
    again = ["data/train", *sides[1:3], "--remove", "data/a.jsonl", "--quiet"]
    again += ["--certificate", "data/a.certificate.json"]
    for words in ("12", "13"):
        named = ["--words", words, "-o", f"data/{words}.jsonl"]
        assert run(["corpus", "decontaminate", *again, *named]) == 0
    assert cleaning_beside(corpus) == Cleaning()
    (here / "data" / "12.certificate.json").unlink()
    lists = (Path("data/a.jsonl"), Path("data/13.jsonl"))
    assert cleaning_beside(corpus) == Cleaning(lists, Path("data/13.certificate.json"))
