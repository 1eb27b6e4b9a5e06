"""`apr corpus` from the command line: what is printed, in every ending."""

import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from tests.corpus_files import program, write_jsonl, write_tree
from tests.evaluation_files import HUMAN_EVAL, SOLUTION, write_items
from tests.unit.corpus.deduplication.test_near_duplicates import edited

from apr.cli.main import run
from apr.units import format_bytes


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A split corpus with one of everything that can be found in it."""
    rows = [{"content": program(number), "repo": f"r{number % 12}"} for number in range(60)]
    rows += [{"content": program(3), "repo": "copies"}] * 2
    rows += [{"content": edited(program(number), 25), "repo": "copies"} for number in range(8)]
    rows += [{"content": program(99) + SOLUTION, "repo": "r1"}]
    corpus = write_jsonl(tmp_path / "in.jsonl", rows)
    assert (
        run(["corpus", "split", str(corpus), "-o", str(tmp_path / "data"), "--val-fraction", "0.2"])
        == 0
    )
    return tmp_path / "data"


def answer(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["corpus", *map(str, words), "--json"]) == code
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_the_three_commands_one_after_another(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = [data / "train", "--held-out", data / "held-out"]
    items = write_items(tmp_path / "set.jsonl", HUMAN_EVAL)
    found = answer(
        capsys, "dedup", *sides, "--certificate", data / "certificate.json", "-o", data / "a.jsonl"
    )
    assert sum(each["num_documents"] for each in found["reasons"].values()) == found["num_removed"]
    assert found["num_removed"] > 5
    assert found["certified"]["split"] == {"group": "repo", "fraction": 0.2, "seed": 0}
    cleaned = answer(
        capsys, "decontaminate", *sides, "--against", items, "--remove", data / "a.jsonl",
        "--certificate", data / "a.certificate.json", "-o", data / "clean",
    )  # fmt: skip
    assert cleaned["reasons"] == {"contaminated": 1}
    assert [check["kind"] for check in cleaned["certified"]["checks"]] == ["exact", "near", "ngram"]
    assert cleaned["certified"]["refines"] == found["certificate_sha256"]
    assert (data / "clean" / "certificate.json").is_file()


def test_a_person_sees_the_pairs_and_the_next_command(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    arguments = [str(data / "train"), "--held-out", str(data / "held-out")]
    assert run(["corpus", "dedup", *arguments, "-o", str(data / "a.jsonl"), "--show", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("    repeats ") == 2
    assert "compared with probability 0.9983" in shown
    assert "decontaminate also takes what you will test on: --against FILE" in shown
    assert f"apr corpus decontaminate {data / 'train'} --held-out {data / 'held-out'}" in shown
    again = ["--remove", str(data / "a.jsonl"), "-o", str(data / "b.jsonl")]
    assert run(["corpus", "decontaminate", *arguments, *again]) == 0
    shown = capsys.readouterr().out
    assert "not found by this: paraphrase" in shown
    assert f"--remove {data / 'a.jsonl'} --remove {data / 'b.jsonl'}" in shown
    assert f"--certificate {data / 'b.certificate.json'}" in shown


def test_a_split_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = write_tree(
        tmp_path / "in", {f"r{number % 9}/{number}.py": program(number) for number in range(40)}
    )
    said = answer(capsys, "split", tree, "-o", tmp_path / "out", "--val-fraction", "0.3")
    assert said["group"] == "repo"
    assert said["train"]["num_documents"] + said["held-out"]["num_documents"] == 40
    assert said["held_out_groups"] == sorted(said["held_out_groups"])
    assert (tmp_path / "out" / "split.json").is_file()
    arguments = ["split", str(tree), "-o", str(tmp_path / "out"), "--val-fraction", "0.3"]
    assert run(["corpus", *arguments, "--overwrite"]) == 0
    assert "apr corpus dedup" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "id", "code"),
    [
        (["scan", "{none}"], "files.not-found", 3),
        (["scan", "{in}", "{in}/a.py"], "corpus.path-repeated", 2),
        (["scan", "{in}", "--max-quarantined", "1"], "usage", 2),
        (["scan", "{in}", "--show", "-1"], "usage", 2),
        (["split", "{in}", "-o", "{out}"], "corpus.split-impossible", 5),
        (["split", "{in}", "-o", "{out}", "--val-fraction", "2"], "corpus.split-fraction", 2),
        (["split", "{in}", "-o", "{in}/x"], "files.output-overlaps-input", 2),
        (["split", "{none}", "-o", "{out}"], "files.not-found", 3),
        (["dedup", "{in}", "--held-out", "{in}", "-o", "{out}"], "corpus.sides-overlap", 2),
        (["dedup", "{in}", "-o", "{out}", "--certificate", "{none}"], "files.not-found", 3),
        (["decontaminate", "{in}", "-o", "{out}"], "corpus.nothing-to-compare", 2),
        (["dedup", "{in}", "-o", "{out}", "--jaccard", "1.5"], "usage", 2),
        (["dedup", "{bad}", "-o", "{out}"], "corpus.jsonl-damaged", 4),
        (["split", "{bad}", "-o", "{out}", "--group", "file"], "corpus.jsonl-damaged", 4),
        (["decontaminate", "{bad}", "--against", "{in}", "-o", "{out}"], "corpus.jsonl-damaged", 4),
    ],
)
def test_every_ending_is_one_object(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], id: str, code: int
) -> None:
    write_tree(tmp_path / "in", {"a.py": program(1)})
    (tmp_path / "bad.jsonl").write_text('{"content": "x"}\n{"content": 1}\n')
    places = {"in": "in", "out": "out", "none": "none", "bad": "bad.jsonl"}
    filled = [
        word.format(**{key: tmp_path / name for key, name in places.items()}) for word in words
    ]
    assert answer(capsys, *filled, code=code)["refused"]["id"] == id
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.rglob("*.tmp")] == []


def test_bad_rows_may_be_allowed_and_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(json.dumps({"content": program(number)}) + "\n" for number in range(30))
    (tmp_path / "in.jsonl").write_text(rows + '{"content": 1}\n[]\n')
    said = answer(
        capsys, "split", tmp_path / "in.jsonl", "-o", tmp_path / "out", "--group", "file",
        "--val-fraction", "0.3", "--max-quarantined", "2",
    )  # fmt: skip
    assert said["account"]["quarantined"] == {"field_not_string": 1, "not_an_object": 1}
    assert [each["row"] for each in said["account"]["entries"]] == [31, 32]


def test_near_duplicates_need_a_package_and_say_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a machine without the extra: the import finds nothing."""
    monkeypatch.setitem(__import__("sys").modules, "rensa", None)
    tree = write_tree(tmp_path / "in", {"a.py": program(1), "b.py": program(1)})
    refused = answer(capsys, "dedup", tree, "-o", tmp_path / "a.jsonl", code=9)["refused"]
    assert refused["id"] == "corpus.no-rensa"
    assert "apr[dedup]" in refused["fix"]
    found = answer(capsys, "dedup", tree, "-o", tmp_path / "a.jsonl", "--no-near")
    assert found["reasons"]["duplicate"]["num_documents"] == 1


def shown(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert run(["corpus", *map(str, words)]) == 0
    return capsys.readouterr().out


def test_a_scan_shows_what_there_is_and_a_next_command_that_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"text": program(number), "path": f"{number}.rs"} for number in range(300)]
    write_jsonl(tmp_path / "in" / "a b.jsonl", [*rows, {"text": 1}, {}, {"text": "x " * 3000}])
    write_tree(tmp_path / "in", {"b.py": program(7), "skip.py": "", "tests/c.py": "c"})
    words = ["in", "--content-field", "text", "--exclude", "tests", "--show", "1"]
    text = shown(capsys, "scan", *words)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "rows 306 texts of a tree are one each" in lines
    assert any(line.startswith("Rust 300 ") and line.endswith("#" * 19) for line in lines)
    assert any(line.startswith("unknown: no path 1 ") for line in lines)
    assert "in/a b.jsonl:301: 'text' is int" in lines
    assert "in/a b.jsonl:302: no field 'text'; fields: none" in lines
    assert f"2 times, {format_bytes(2 * len(program(7)))} in all" in lines
    assert "no row has a path" not in text
    assert "no row has a licence in 'license'; --license-field names another field" in lines
    assert (
        "2 rows would be quarantined: encode-corpus refuses them unless --max-quarantined 2; the "
        "first is in/a b.jsonl:301" in lines
    )
    split, dedup = text.split("next:\n")[1].splitlines()
    assert "dedup data/train" in dedup
    assert run(shlex.split(split)[1:]) == 0
    assert run(shlex.split(dedup)[1:]) == 0
    again = shown(capsys, "scan", *words)
    assert f"-o {Path('data-split')}" in again
    monkeypatch.chdir(tmp_path / "in")
    assert "apr corpus split . -o ../data-split" in shown(capsys, "scan", ".")


def test_a_scan_is_one_object_that_says_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"content": "x"}, {"content": 1}])
    found = answer(capsys, "scan", tmp_path / "a.jsonl")
    assert (found["num_rows"], found["num_documents"], found["num_quarantined"]) == (2, 1, 1)
    assert found["stops"][0]["max_quarantined"] == 1


def test_a_scan_of_nothing_but_bad_rows_says_so_and_what_fields_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"code": "x"}] * 3)
    text = shown(capsys, "scan", path)
    assert "no field 'content'; fields: code" in text
    assert "there is no document: every command refuses that (corpus.empty)" in text
    assert "next:" not in text


def test_no_name_and_no_text_drives_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J\x9b31m\u202e\nfake: 0\tx"
    write_tree(tmp_path / "in", {f"{evil}.py": "a\n", f"{evil}e.py": "", f"{evil}2.py": "a\n"})
    rows = [{"content": "x", "license": evil, "path": f"a.{evil}"}, {evil: 1}]
    write_jsonl(tmp_path / "in" / f"{evil}.jsonl", rows)
    text = shown(capsys, "scan", tmp_path / "in", "--license-field", "license")
    assert [line for line in text.splitlines() if line.lstrip().startswith("fake")] == []
    assert not {"\x1b", "\x9b", "\u202e", "\t"} & {*text}
    assert text.count("fake: 0") > 8
    none = shown(capsys, "scan", tmp_path / "in", "--license-field", evil)
    assert "fake: 0" in none.split("no row has a licence in ")[1].splitlines()[0]


def test_unreadable_files_are_named_and_what_they_stop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parquet.write_table(pyarrow.table({"code": ["x"]}), tmp_path / "a.parquet")
    write_tree(tmp_path, {"b.py": "b"})
    text = shown(capsys, "scan", tmp_path)
    assert "could not be read to the end: 1 files" in text
    assert f"{tmp_path / 'a.parquet'}: 0 columns 'content'; the columns: code" in text
    assert f"every command refuses to read {tmp_path / 'a.parquet'} (corpus.column-missing)" in text


def test_long_tables_and_long_names_are_cut_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"content": "x" * (number + 1), "path": f"a.x{number}", "license": f"licence {number}"}
        for number in range(20)
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    write_tree(tmp_path, {"n" * 200 + ".py": "y" * 99})
    text = shown(capsys, "scan", tmp_path)
    assert "and 5 more languages, which --json lists" in text
    assert "and 5 more licences, which --json lists" in text
    assert text.count("unknown: .x") == 15
    assert text.count("(row)") == 15
    assert "none of their own" in text
    tables = text.split("next:")[0]
    assert max(map(len, tables.splitlines())) < 130
    assert "  99 B  ..." + "n" * 94 + ".py\n" in tables
