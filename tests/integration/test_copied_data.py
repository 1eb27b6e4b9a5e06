"""Copies of documents are no more data: plan, dry run, gate, record and page say one number."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.run_data import RunData
from tests.unit.report.page_reader import Page

from apr.cli.main import run as run_command
from apr.jobs.pretrain import pretrain
from apr.shards.encode import encode_corpus
from apr.shards.reader import ShardReader
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.gates import Finding
from apr.train.inputs import open_inputs
from apr.train.token_budget_gate import check_token_budget

Captured = pytest.CaptureFixture[str]


def _encode(data: RunData, output: Path, lines: list[bytes], *, shard_tokens: int) -> Path:
    output.parent.mkdir(parents=True, exist_ok=True)
    corpus = output.with_suffix(".jsonl")
    corpus.write_bytes(b"".join(lines))
    encode_corpus(
        [corpus],
        tokenizer=Tokenizer.load(data.tokenizer),
        encoder="reference",
        output=output,
        shard_tokens=shard_tokens,
        certificate=data.checked / "certificate.json",
    )
    return output


@pytest.fixture(scope="module")
def lines(run_data: RunData) -> list[bytes]:
    return (run_data.root / "train.jsonl").read_bytes().splitlines(keepends=True)


@pytest.fixture(scope="module")
def copies(
    run_data: RunData, lines: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    """The same documents three times, in other shards, so that no manifest equals another."""
    root = tmp_path_factory.mktemp("copies")
    return [
        run_data.train,
        *(_encode(run_data, root / f"{n}", lines, shard_tokens=n * 40_000) for n in (2, 3)),
    ]


@pytest.fixture(scope="module")
def tripled(
    run_data: RunData, lines: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Every document three times in one directory."""
    root = tmp_path_factory.mktemp("tripled")
    return _encode(run_data, root / "train", lines * 3, shard_tokens=90_000)


def judged(data: RunData, run_dir: Path, datasets: list[Path]) -> Finding:
    """The budget of 22 tokens per parameter, which five epochs of these documents do not meet."""
    config = data.config(run_dir, dataset=datasets, num_steps=2700, batch_size=32)
    return check_token_budget(config, open_inputs(config, verify=False))


def test_copies_in_other_directories_do_not_meet_the_budget(
    run_data: RunData, copies: list[Path], tmp_path: Path
) -> None:
    alone, together = (judged(run_data, tmp_path, each) for each in (copies[:1], copies))
    assert alone.verdict == together.verdict == "FAIL"
    assert "tokens are copies of documents in another source" in together.found
    assert "copies" not in alone.found
    ratio = alone.found.partition("parameters: ")[2]
    assert together.found.endswith(ratio)


def test_copies_in_one_directory_do_not_meet_the_budget(
    run_data: RunData, tripled: Path, tmp_path: Path
) -> None:
    alone, thrice = (judged(run_data, tmp_path, [each]) for each in (run_data.train, tripled))
    assert thrice.verdict == "FAIL"
    assert "tokens are copies of documents in the same source" in thrice.found
    assert thrice.found.endswith(alone.found.partition("parameters: ")[2])


def test_as_many_tokens_of_different_documents_meet_it(
    run_data: RunData, lines: list[bytes], tmp_path: Path
) -> None:
    other = [line.replace(b"self", b"this").replace(b"the", b"that") for line in lines]
    third = [line.replace(b"return", b"yield").replace(b"import", b"take") for line in lines]
    datasets = [run_data.train]
    for name, each in (("other", other), ("third", third)):
        kept = [new for new, old in zip(each, lines, strict=True) if new != old]
        corpus = tmp_path / f"{name}.jsonl"
        corpus.write_bytes(b"".join(kept))
        encode_corpus(
            [corpus],
            tokenizer=Tokenizer.load(run_data.tokenizer),
            encoder="reference",
            output=tmp_path / name,
        )
        datasets.append(tmp_path / name)
    found = judged(run_data, tmp_path / "run", datasets)
    assert found.verdict == "PASS", found
    assert "copies" not in found.found


def _json(capsys: Captured, words: list[str], *, code: int) -> dict[str, Any]:
    capsys.readouterr()
    assert run_command([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("kind", ["across", "within"])
def test_one_number_everywhere(
    run_data: RunData,
    copies: list[Path],
    tripled: Path,
    tmp_path: Path,
    capsys: Captured,
    kind: str,
) -> None:
    datasets = copies if kind == "across" else [tripled]
    unique = ShardReader.open(run_data.train).num_tokens
    # The first two words of the flags are the dataset of other tests.
    flags = run_data.flags(tmp_path / "run")[2:]
    named = [word for each in datasets for word in ("--dataset", str(each))]
    words = ["plan", "--arch", "tiny", "--device", "cpu", "--num-steps", "8", "--batch-size", "4"]
    words += ["--seq-length", "32", "--val-shard", str(run_data.val), *named]
    plan = _json(capsys, words, code=0)
    dry = _json(capsys, ["pretrain", "--dry-run", *flags, *named], code=0)
    pretrain(run_data.config(tmp_path / "run", dataset=datasets))
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    for each in (plan, dry, record):
        assert (each["unique_tokens"], each["copied_tokens"]) == (unique, 2 * unique)
    assert plan["copies"] == dry["copies"]
    assert "are copies of documents in" in plan["copies"]
    assert plan["epochs_over_data"] == dry["epochs_over_data"]
    # All but the first token of each source are targets.
    passes = record["tokens_seen"] / (3 * unique - len(datasets))
    assert record["epochs_over_data"] == pytest.approx(3 * passes)
    by_source = [each["unique_tokens"] for each in record["tokens_by_source"]]
    assert by_source == [unique] * len(datasets)
    (budget,) = [gate for gate in record["gates"] if gate["id"] == "preflight.token-budget"]
    assert plan["copies"] in budget["found"]
    page = Page(tmp_path / "run" / "report.html").text
    assert plan["copies"] in page
    assert run_command(words) == 0
    assert plan["copies"] in capsys.readouterr().out
