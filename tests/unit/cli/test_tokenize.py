"""`apr tokenize` from the command line: results, refusals, exit codes, help."""

import inspect
import json
from pathlib import Path
from typing import Any

import click
import pytest
from tests.shard_files import TEXTS, write_corpus
from tests.tokenizer_files import EOS, set_in, tokenizer, write

from apr.cli import main
from apr.cli.cache import encoder_proofs
from apr.cli.tokenize.group import command
from apr.files import sha256_file
from apr.jobs.train_tokenizer import train_tokenizer
from apr.shards.encode import encode_corpus
from apr.shards.reader import ShardReader
from apr.tokenizer.checks import Checked, read_checked
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.train import train_bpe

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "a.jsonl", TEXTS * 20)
    return tmp_path


def run(line: str) -> int:
    return main.run(["tokenize", *line.split()])


def run_json(line: str, capsys: Captured) -> tuple[int, dict[str, Any]]:
    code = run(f"{line} --json")
    return code, json.loads(capsys.readouterr().out)


def test_from_corpus_to_shards(here: Path, capsys: Captured) -> None:
    assert run("train --corpus a.jsonl --vocab-size 300 -o tok") == 0
    shown = capsys.readouterr().out
    assert "separator <|endoftext|> = " in shown
    command_line = shown.splitlines()[-1].strip().removeprefix("apr tokenize ")
    assert command_line == "encode-corpus --corpus a.jsonl --tokenizer tok -o shards/train"
    assert run(command_line) == 0
    shown = capsys.readouterr().out
    assert f"{len(TEXTS) * 20} separators <|endoftext|> (after)" in shown
    assert shown.splitlines()[-1].strip().startswith("apr pretrain --dataset shards/train ")
    reader = ShardReader.open(here / "shards" / "train")
    learned = Tokenizer.load(here / "tok")
    assert reader.manifest.tokenizer_fingerprint == learned.fingerprint
    end = int(reader.document_ends[0])
    assert learned.decode(reader.read(0, end)) == TEXTS[0] + EOS


def test_json_is_one_object_with_the_record(here: Path, capsys: Captured) -> None:
    code, trained = run_json("train --corpus a.jsonl --vocab-size 300 -o tok", capsys)
    assert code == 0
    assert trained["vocab_size"] == Tokenizer.load(here / "tok").vocab_size
    assert trained["training"]["num_documents"] == len(TEXTS) * 20
    code, encoded = run_json("encode-corpus --corpus a.jsonl --tokenizer tok -o out", capsys)
    assert code == 0
    assert encoded["schema"] == "apr-shards-v1"
    assert encoded["total_documents"] == encoded["eos_token_count"] == len(TEXTS) * 20
    assert encoded["manifest_sha256"] == ShardReader.open(here / "out").manifest_sha256


def test_the_first_run_keeps_that_the_tokenizer_was_checked(here: Path, capsys: Captured) -> None:
    write(here / "tok", words=("th", "tho", "thos"))
    sha256 = sha256_file(here / "tok" / "tokenizer.json")
    line = f"encode-corpus --corpus a.jsonl --tokenizer tok --eos-token {EOS} --encoder reference"
    for output in ("first", "second"):
        assert run(f"{line} -o {output}") == 0
        checked = read_checked(encoder_proofs(), sha256)
        assert checked == Checked(fingerprint=Tokenizer.load(here / "tok").fingerprint)
    manifests = [(here / name / "manifest.json").read_bytes() for name in ("first", "second")]
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize(
    ("normalizer", "fits"),
    [(None, "none"), ({"type": "NFC"}, "nfc"), ({"type": "NFKC"}, None)],
)
def test_normalization_is_the_tokenizers_or_refused(
    here: Path, capsys: Captured, normalizer: dict[str, str] | None, fits: str | None
) -> None:
    write(here / "tok", set_in("normalizer", to=normalizer))
    line = f"encode-corpus --corpus a.jsonl --tokenizer tok --eos-token {EOS} --encoder reference"
    assert run(f"{line} -o plain") == 0
    for wanted in ("nfc", "none"):
        capsys.readouterr()
        assert run(f"{line} --normalization {wanted} -o {wanted}") == (0 if wanted == fits else 5)
        refused = "refused[tokenizer.normalization-differs]" in capsys.readouterr().err
        assert refused == (wanted != fits)
        assert (here / wanted).exists() != refused


def test_lines_of_progress_come_as_often_as_is_asked(
    here: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that moves a second at each look stands in for a long encoding."""
    tokenizer().save(here / "tok")
    seconds = iter(range(1_000_000))
    monkeypatch.setattr("apr.cli.progress_line.time.monotonic", lambda: float(next(seconds)))
    line = "encode-corpus --corpus a.jsonl --tokenizer tok --encoder reference --num-workers 1"
    num_lines: list[int] = []
    for interval_s in (0.5, 1000):
        assert run(f"{line} -o out-{interval_s} --progress-interval-seconds {interval_s}") == 0
        num_lines.append(capsys.readouterr().err.count("\n"))
    assert num_lines[0] > num_lines[1]
    assert run(f"{line} -o out --progress-interval-seconds 0") == 2


def test_a_slice_that_comes_late_says_that_the_shards_are_complete(
    here: Path, capsys: Captured
) -> None:
    tokenizer().save(here / "tok")
    line = "encode-corpus --corpus a.jsonl --tokenizer tok -o out --num-workers 1 --task"
    assert run(f"{line} 0/1") == 0
    assert "complete before" not in capsys.readouterr().out
    assert run(f"{line} 5/9") == 0
    assert capsys.readouterr().out.startswith("complete before this slice began")
    assert run(f"{line} 5/9 --eos-policy none") == 5
    assert "refused[files.exists]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("--eos-policy between", "eos_token_count", len(TEXTS) * 20 - 1),
        ("--eos-policy none", "eos_token_count", 0),
        ("--shard-tokens 50", "shard_count", 21),
        ("--content-field source", "text_bytes", 10 + 70 * 2),
        ("--eos-token <|pad|>", "eos_token_id", 259),
    ],
)
def test_every_option_does_something(
    here: Path, capsys: Captured, option: str, field: str, value: int
) -> None:
    tokenizer(control=("<|pad|>", EOS)).save(here / "tok")
    plain = "encode-corpus --corpus a.jsonl --tokenizer tok"
    _, before = run_json(f"{plain} -o before", capsys)
    code, after = run_json(f"{plain} {option} -o after", capsys)
    assert code == 0
    assert after[field] == value != before[field]


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ("--vocab-size 280", "vocab_size"),
        ("--min-frequency 1000", "vocab_size"),
        ("--normalization none", "fingerprint"),
        ("--eos-token </s>", "eos_token"),
        ("--content-field source", "training"),
        ("--corpus b.txt", "training"),
    ],
)
def test_every_option_of_train_does_something(
    here: Path, capsys: Captured, option: str, changed: str
) -> None:
    (here / "b.txt").write_text("more")
    plain = "train --corpus a.jsonl"
    _, before = run_json(f"{plain} --vocab-size 300 -o before", capsys)
    vocab_size = "" if option.startswith("--vocab") else "--vocab-size 300"
    code, after = run_json(f"{plain} {vocab_size} {option} -o after", capsys)
    assert code == 0
    assert after[changed] != before[changed]


@pytest.mark.parametrize(
    ("line", "code", "id"),
    [
        ("train --corpus nothing --vocab-size 300 -o out", 3, "files.not-found"),
        ("train --corpus a.jsonl --vocab-size 256 -o out", 2, "tokenizer.vocab-size"),
        ("train --corpus a.jsonl --eos-token a -o out", 2, "tokenizer.eos-ordinary"),
        ("train --corpus a.jsonl -o bare", 5, "files.exists"),
        ("train --corpus a.jsonl -o bare/.. --overwrite", 2, "files.output-overlaps-input"),
        ("train --corpus bad.jsonl --vocab-size 300 -o out", 4, "corpus.jsonl-damaged"),
        ("train --corpus a.jsonl", 2, "usage"),
        ("train --corpus a.jsonl --algorithm unigram -o out", 2, "usage"),
        ("encode-corpus --corpus a.jsonl --tokenizer nothing -o out", 3, "files.not-found"),
        ("encode-corpus --corpus a.jsonl --tokenizer . -o out", 3, "tokenizer.json-missing"),
        ("encode-corpus --corpus a.jsonl --tokenizer a.jsonl -o out", 4, "tokenizer.damaged"),
        ("encode-corpus --corpus a.jsonl --tokenizer bare -o out", 5, "tokenizer.eos-undeclared"),
        ("encode-corpus --corpus a.jsonl --tokenizer tok -o tok", 5, "files.exists"),
        (
            "encode-corpus --corpus a.jsonl --tokenizer tok -o tok --overwrite",
            5,
            "files.foreign-content",
        ),
        ("encode-corpus --corpus empty --tokenizer tok -o out", 5, "corpus.empty"),
        (
            "encode-corpus --corpus a.jsonl --corpus a.jsonl --tokenizer tok -o out",
            2,
            "corpus.path-repeated",
        ),
        (
            "encode-corpus --corpus a.jsonl --tokenizer tok --eos-policy before -o out",
            2,
            "usage",
        ),
    ],
)
def test_refusals_have_an_id_and_a_code(
    here: Path, capsys: Captured, line: str, code: int, id: str
) -> None:
    write(here / "bare")
    tokenizer().save(here / "tok")
    (here / "empty").mkdir()
    (here / "bad.jsonl").write_text('{"content": 1}')
    before = sorted(here.rglob("*"))
    found, answer = run_json(line, capsys)
    assert (found, answer["exit_code"], answer["refused"]["id"]) == (code, code, id)
    assert all(answer["refused"][part] for part in ("where", "found", "expected", "fix"))
    assert sorted(here.rglob("*")) == before


def test_quiet_says_nothing_on_stderr(here: Path, capsys: Captured) -> None:
    assert run("train --corpus a.jsonl --vocab-size 300 -o tok --quiet") == 0
    assert capsys.readouterr().err == ""


def test_what_was_left_out_is_shown(here: Path, capsys: Captured) -> None:
    (here / "src").mkdir()
    (here / "src" / "a.py").write_text("x = 1\n" * 50)
    (here / "src" / "b.png").write_bytes(b"\0")
    assert run("train --corpus src --vocab-size 300 -o tok") == 0
    assert "left out: 1 binary" in capsys.readouterr().out
    assert run("encode-corpus --corpus src --tokenizer tok -o out") == 0
    assert "left out: 1 binary" in capsys.readouterr().out


def test_a_small_corpus_explains_its_small_vocabulary(here: Path, capsys: Captured) -> None:
    assert run("train --corpus a.jsonl --vocab-size 5000 -o tok") == 0
    assert "fewer than the 5000 asked for" in capsys.readouterr().out


def test_defaults_are_those_of_the_functions() -> None:
    assert isinstance(command, click.Group)
    pairs = [("train", train_tokenizer), ("train", train_bpe), ("encode-corpus", encode_corpus)]
    compared = 0
    for name, function in pairs:
        parameters = inspect.signature(function).parameters
        for option in command.get_command(click.Context(command), name).params:
            default = parameters[option.name].default if option.name in parameters else None
            if default not in (None, False, (), inspect.Parameter.empty):
                assert option.default == default, (name, option.name)
                compared += 1
    assert compared > 8
