"""F21 after the split: near-duplicates, two sides that are one, and text that came later.

The certificate names both sets of texts, so encoding either of them shows whether it is still the
set that was checked.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.corpus_files import program, texts_in, write_jsonl
from tests.tokenizer_files import tokenizer
from tests.unit.corpus.deduplication.test_near_duplicates import edited

from apr.cli.main import run
from apr.corpus.document import document_hash
from apr.corpus.removals import Removals

ONE_LINE_IN_TWENTY = 20
TRAIN = [program(number) for number in range(20)]
HELD_OUT = [program(number) for number in range(50, 55)]


def write_sides(folder: Path, train: list[str], held_out: list[str]) -> None:
    for name, texts in ("train", train), ("held-out", held_out):
        write_jsonl(folder / name / "part.jsonl", [{"content": text} for text in texts])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tokenizer().save(tmp_path / "tok")
    write_sides(tmp_path, TRAIN, HELD_OUT)
    return tmp_path


def answer(capsys: pytest.CaptureFixture[str], line: str, *, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run([*line.split(), "--json"]) == code
    return json.loads(capsys.readouterr().out)


DEDUP = "corpus dedup train --held-out held-out -o list.jsonl --overwrite"
ENCODE = "tokenize encode-corpus --tokenizer tok --encoder reference -o shards --overwrite"
CERTIFIED = f"{ENCODE} --corpus train --remove list.jsonl --certificate list.certificate.json"


@pytest.mark.parametrize(
    ("planted", "reason"),
    [
        (edited(HELD_OUT[0], ONE_LINE_IN_TWENTY), "near_duplicate_of_held_out"),
        (HELD_OUT[0].replace("\n", "\r\n"), "duplicate_of_held_out"),
        (program(99), None),
    ],
    ids=["one line in twenty edited", "other line ends", "twin"],
)
def test_a_text_that_resembles_a_held_out_one_is_removed(
    here: Path, capsys: pytest.CaptureFixture[str], planted: str, reason: str | None
) -> None:
    write_sides(here, [*TRAIN, planted], HELD_OUT)
    found = answer(capsys, DEDUP)
    assert set(found["reasons"]) == ({reason} if reason else set())
    of_list = Removals.load([here / "list.jsonl"]).filter()
    left = [
        text for text in texts_in(here / "train") if of_list.reason(document_hash(text)) is None
    ]
    assert left == ([*TRAIN, planted] if reason is None else TRAIN)
    assert found["certified"]["train"]["num_documents"] == len(left)
    made = answer(capsys, CERTIFIED)
    assert made["certificate"]["side"] == "train"


@pytest.mark.parametrize(
    "line",
    [
        "corpus dedup train --held-out train -o list.jsonl",
        "corpus dedup train --held-out train/part.jsonl -o list.jsonl",
        "corpus dedup train/part.jsonl --held-out ./train -o list.jsonl",
        "corpus decontaminate train --held-out train -o list.jsonl",
    ],
)
def test_one_directory_for_both_sides_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    assert answer(capsys, line, code=2)["refused"]["id"] == "corpus.sides-overlap"
    assert not (here / "list.jsonl").exists()


def test_a_copy_of_the_training_directory_is_no_held_out_set(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sides(here, TRAIN, TRAIN)
    assert answer(capsys, DEDUP, code=5)["refused"]["id"] == "corpus.nothing-left"
    assert not (here / "list.jsonl").exists()


def rebuild_with_a_held_out_text(here: Path) -> str:
    write_sides(here, [*TRAIN, HELD_OUT[0]], HELD_OUT)
    return CERTIFIED


def rebuild_with_one_text_less(here: Path) -> str:
    write_sides(here, TRAIN[1:], HELD_OUT)
    return CERTIFIED


def forget_the_removals(here: Path) -> str:
    return CERTIFIED.replace(" --remove list.jsonl", "")


def take_one_entry_off_the_list(here: Path) -> str:
    lines = (here / "list.jsonl").read_text().splitlines(keepends=True)
    assert lines
    (here / "list.jsonl").write_text("".join(lines[1:]))
    return CERTIFIED


def lower_a_count_in_the_certificate(here: Path) -> str:
    path = here / "list.certificate.json"
    text = path.read_text()
    assert '"num_removed": 1' in text
    path.write_text(text.replace('"num_removed": 1', '"num_removed": 0'))
    return CERTIFIED


@pytest.mark.parametrize(
    ("plant", "id"),
    [
        (rebuild_with_a_held_out_text, "corpus.certificate-mismatch"),
        (rebuild_with_one_text_less, "corpus.certificate-mismatch"),
        (forget_the_removals, "corpus.certificate-mismatch"),
        (take_one_entry_off_the_list, "corpus.certificate-mismatch"),
        (lower_a_count_in_the_certificate, "corpus.certificate-edited"),
    ],
)
def test_other_text_than_was_certified_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], plant: Any, id: str
) -> None:
    write_sides(here, [*TRAIN, edited(HELD_OUT[0], ONE_LINE_IN_TWENTY)], HELD_OUT)
    assert answer(capsys, DEDUP)["num_removed"] == 1
    assert answer(capsys, CERTIFIED)["certificate"]["side"] == "train"
    held_out = answer(capsys, f"{ENCODE} --corpus held-out --certificate list.certificate.json")
    assert held_out["certificate"]["side"] == "held-out"
    before = sorted(path.read_bytes() for path in (here / "shards").iterdir())
    line = plant(here)
    assert answer(capsys, line, code=4 if "edited" in id else 5)["refused"]["id"] == id
    assert sorted(path.read_bytes() for path in (here / "shards").iterdir()) == before
