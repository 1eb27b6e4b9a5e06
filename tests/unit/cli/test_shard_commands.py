"""`apr tokenize verify | explain | diff | show-batch | repair-manifest` from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.bare_files import DOCUMENTS, stream, write_bare, write_old_manifest
from tests.run_data import RunData
from tests.shard_files import TEXTS, write_corpus
from tests.tokenizer_files import swapped, tokenizer
from tests.unit.jobs.test_show_batch import record_run

from apr.cli import main
from apr.jobs.show_batch import show_batch
from apr.shards.encode import encode_corpus
from apr.shards.provenance import PROVENANCE_NAME
from apr.shards.reader import ShardReader
from apr.tokenizer.tokenizer import Tokenizer

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a tokenizer, and shards of a corpus before and after one row changed."""
    monkeypatch.chdir(tmp_path)
    tokenizer().save(tmp_path / "tok")
    used = Tokenizer.load(Path("tok"))
    for name, texts in (("a", TEXTS), ("b", [*TEXTS[:3], "naive\n"])):
        write_corpus(tmp_path / "corpus.jsonl", texts)
        encode_corpus(
            [tmp_path / "corpus.jsonl"], encoder="reference", tokenizer=used, output=tmp_path / name
        )
    return tmp_path


def run(line: str) -> int:
    return main.run(["tokenize", *line.split()])


def run_json(line: str, capsys: Captured) -> tuple[int, dict[str, Any]]:
    code = run(f"{line} --json")
    return code, json.loads(capsys.readouterr().out)


def flip_a_byte(directory: Path) -> None:
    path = directory / "shard-00000.bin"
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


@pytest.mark.usefixtures("here")
def test_verify_shows_every_check_and_the_next_command(capsys: Captured) -> None:
    assert run("verify a --tokenizer tok") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("PASS  a\n  compared 4 of 4 documents, counted all 69 tokens\n")
    for name in ("files", "hashes", "ids", "separators", "counts", "text", "encoding", "sources"):
        assert f"PASS     {name}" in shown
    assert shown.splitlines()[-1].strip().startswith("apr pretrain --dataset a --tokenizer tok ")
    assert run("verify a") == 0
    assert capsys.readouterr().out.startswith("PASS  a\n")
    code, value = run_json("verify a --sample all", capsys)
    assert code == 0
    assert (value["verdict"], value["num_documents_compared"]) == ("PASS", 4)
    assert {check["verdict"] for check in value["checks"]} == {"PASS"}


def test_a_failed_check_is_in_the_findings_and_in_the_refusal(here: Path, capsys: Captured) -> None:
    flip_a_byte(here / "a")
    assert run("verify a --tokenizer tok") == 4
    captured = capsys.readouterr()
    assert "FAIL     hashes" in captured.out
    assert "next:" not in captured.out
    assert captured.err.startswith("refused[shards.hash-mismatch] a/shard-00000.bin")
    code, value = run_json("verify a --tokenizer tok", capsys)
    assert code == value["exit_code"] == 4
    assert value["refused"]["id"] == "shards.hash-mismatch"
    assert value["verdict"] == "FAIL"
    first = next(check for check in value["checks"] if check["verdict"] == "FAIL")
    assert (first["check"], first["id"]) == ("hashes", "shards.hash-mismatch")


def test_unknown_is_not_called_passed(here: Path, capsys: Captured) -> None:
    (here / "a" / "encode.json").unlink()
    code, value = run_json("verify a", capsys)
    assert code == value["exit_code"] == 5
    assert value["refused"]["id"] == "shards.verify-unknown"
    assert value["verdict"] == "UNKNOWN"
    (here / "a" / PROVENANCE_NAME).unlink()
    assert run("verify a --tokenizer tok") == 0
    shown = capsys.readouterr().out
    assert "UNKNOWN  sources" in shown
    assert "passed, but not known: sources" in shown


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("sample", ["-1", "some", "1.5", ""])
def test_a_sample_is_a_number_or_all(capsys: Captured, sample: str) -> None:
    assert main.run(["tokenize", "verify", "a", "--sample", sample, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["refused"]["id"] == "usage"


def test_explain_names_the_line_and_marks_the_token(here: Path, capsys: Captured) -> None:
    assert run("explain a --token 31 --tokenizer tok --context 3") == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "token 31: id 220 ' '"
    assert shown[2] == f"  source: {here / 'corpus.jsonl'}, row 3, line 1 of the document"
    assert shown[3] == "  before: 2, as the row says"
    assert len(shown) == 5 + 7
    assert shown[8].startswith("> 31  ")
    code, value = run_json("explain a --token 62", capsys)
    assert code == 0
    assert (value["row"], value["bytes"], value["characters"]) == (4, "61", "a")
    assert value["unknown"] == {}


def test_explain_says_what_a_separator_is_and_what_is_cut(here: Path, capsys: Captured) -> None:
    run("explain a --token 63")
    assert "part of: 'ï'" in capsys.readouterr().out
    run("explain a --token 68")
    shown = capsys.readouterr().out
    assert shown.startswith("token 68: id 259, separator '<|endoftext|>'")
    assert "line unknown: a separator stands in no source" in shown
    for name in (PROVENANCE_NAME, "encode.json"):
        (here / "a" / name).unlink()
    run("explain a --token 63")
    shown = capsys.readouterr().out
    assert f"source: unknown: the directory has no {PROVENANCE_NAME}; line unknown" in shown
    assert "text unknown: no tokenizer was given" in shown


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("line", "code", "id"),
    [
        ("explain a --token 69", 2, "shards.token-range"),
        ("explain a --token -1", 2, "shards.token-range"),
        ("explain a --token 0 --tokenizer other", 5, "shards.other-tokenizer"),
        ("explain a --token 0 --tokenizer nowhere", 3, "files.not-found"),
        ("explain nowhere --token 0", 3, "files.not-found"),
        ("verify nowhere", 3, "files.not-found"),
        ("verify tok", 4, "shards.manifest-damaged"),
        ("verify a --tokenizer other", 5, "shards.other-tokenizer"),
        ("diff a nowhere", 3, "files.not-found"),
        ("diff tok a", 4, "shards.manifest-damaged"),
        ("show-batch nowhere --step 1", 3, "run.not-found"),
        ("show-batch a --step 1", 3, "run.not-found"),
    ],
)
def test_refusals_have_an_id_and_a_code(
    here: Path, capsys: Captured, line: str, code: int, id: str
) -> None:
    tokenizer(swapped("he", "hel")).save(here / "other")
    exit_code, value = run_json(line, capsys)
    assert exit_code == value["exit_code"] == code
    assert value["refused"]["id"] == id


@pytest.mark.usefixtures("here")
def test_diff_ends_like_diff(capsys: Captured) -> None:
    assert run("diff a a") == 0
    assert capsys.readouterr().out.startswith("the same data: a and a\n")
    assert run("diff a b") == 5
    captured = capsys.readouterr()
    assert "1 changed, at the same source and row" in captured.out
    assert "  changed: a 3 " in captured.out
    assert "next:\n  apr tokenize verify a\n  apr tokenize verify b" in captured.out
    assert captured.err == ""
    code, value = run_json("diff a b --show 0", capsys)
    assert code == 5
    assert (value["equal"], value["num_same"], value["examples"]) == (False, 3, [])


def test_diff_says_what_it_cannot_tell(here: Path, capsys: Captured) -> None:
    (here / "b" / PROVENANCE_NAME).unlink()
    assert run("diff a b") == 5
    assert "moved or changed: unknown" in capsys.readouterr().out


def test_show_batch_shows_rows_documents_and_separators(
    run_data: RunData, tmp_path: Path, capsys: Captured
) -> None:
    run_dir = record_run(run_data, tmp_path / "run", seq_length=512)
    step = next(
        step
        for step in range(9, 99)
        if any(
            piece.separator for row in show_batch(run_dir, step=step).rows for piece in row.pieces
        )
    )
    words = ["tokenize", "show-batch", str(run_dir), "--step", str(step)]
    assert main.run(words) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"step {step} of {run_dir}, which ends after step 8\n")
    assert shown.count("== row ") == 4
    assert "-- separator <|endoftext|>" in shown
    assert "train.jsonl, row " in shown
    assert shown.splitlines()[-1].strip().endswith(f"--step {step + 1}")
    assert main.run([*words, "--row", "1", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["row"] == 1


def test_repair_manifest_says_what_it_does_not_know(here: Path, capsys: Captured) -> None:
    bare = write_bare(here / "bare", stream(DOCUMENTS))
    assert run("repair-manifest --output bare --tokenizer tok") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("shards: bare\n")
    assert "4 of 4 documents, decoded and encoded again, have the ids that are there" in shown
    assert "unknown: tokenizer_fingerprint, " in shown
    assert "--waive preflight.tokenizer-fingerprint=REASON" in shown
    assert ShardReader.open(bare).num_documents == 4
    code, value = run_json("repair-manifest --output bare --tokenizer tok --into new", capsys)
    assert code == 0
    assert value["output"] == "new"
    assert value["repaired"]["num_same_ids"] == 4
    assert value["manifest_sha256"] == ShardReader.open(here / "new").manifest_sha256
    assert value["doubts"]


@pytest.mark.parametrize(
    ("options", "code", "id"),
    [
        ("", 5, "files.exists"),
        ("--overwrite --eos-policy between", 5, "shards.repair-policy"),
        ("--overwrite --eos-token <|none|>", 5, "tokenizer.eos-unknown"),
        ("--into bare/new", 2, "files.output-overlaps-input"),
        ("--eos-policy sometimes", 2, "usage"),
    ],
)
def test_repair_manifest_refuses(
    here: Path, capsys: Captured, options: str, code: int, id: str
) -> None:
    write_bare(here / "bare", stream(DOCUMENTS))
    assert run("repair-manifest --output bare --tokenizer tok") == 0
    capsys.readouterr()
    found, value = run_json(f"repair-manifest --output bare --tokenizer tok {options}", capsys)
    assert (found, value["refused"]["id"]) == (code, id)


def test_repair_manifest_options_decide_something(here: Path, capsys: Captured) -> None:
    write_bare(here / "bare", stream(DOCUMENTS))
    plain = "repair-manifest --output bare --tokenizer tok --overwrite"
    _, before = run_json(plain, capsys)
    _, whole = run_json(f"{plain} --eos-policy none", capsys)
    assert (before["total_documents"], whole["total_documents"]) == (4, 1)
    write_old_manifest(here / "bare", eos_token_id=3)
    assert run_json(plain, capsys)[1]["refused"]["id"] == "shards.repair-separator"
    assert run_json(f"{plain} --eos-token <|endoftext|>", capsys)[0] == 0
