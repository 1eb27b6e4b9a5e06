"""`apr corpus` from the command line: what is printed, in every ending."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.corpus_files import program, write_jsonl, write_tree
from tests.evaluation_files import HUMAN_EVAL, SOLUTION, write_items
from tests.unit.corpus.test_near_duplicates import edited

from apr.cli.main import run


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
