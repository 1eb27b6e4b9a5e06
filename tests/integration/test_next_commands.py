"""What apr prints under `next:` can be pasted: followed from a corpus to the door of training."""

import shlex
from pathlib import Path

import pytest
from tests.corpus_files import program, write_jsonl

from apr.cli.main import run

pytestmark = pytest.mark.slow

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = [{"text": program(number), "repo": f"r{number % 12}"} for number in range(60)]
    rows += [{"text": program(3), "repo": "copies"}] * 2
    write_jsonl(tmp_path / "in.jsonl", rows)
    return tmp_path


def follow(line: str, capsys: Captured, *, code: int = 0) -> list[str]:
    """Run a printed command; return those that it prints."""
    capsys.readouterr()
    found = run(shlex.split(line)[1:])
    captured = capsys.readouterr()
    assert found == code, captured.err
    _, _, after = captured.out.partition("\nnext:\n")
    return [command.strip() for command in after.splitlines()]


def test_from_a_corpus_to_training(here: Path, capsys: Captured) -> None:
    split = "apr corpus split in.jsonl -o data --val-fraction 0.2 --content-field text"
    (dedup,) = follow(split, capsys)
    (decontaminate,) = follow(dedup, capsys)
    train_tokenizer, encode = follow(decontaminate, capsys)
    assert "tokenize train" in train_tokenizer
    assert "HumanEval" not in decontaminate
    follow(train_tokenizer, capsys)
    encode += " --encoder reference --num-workers 1"
    (same,) = follow(f"{encode} --estimate-sample-docs 5 --estimate-only", capsys)
    assert same == encode
    verify, encode_held_out, pretrain = follow(same, capsys)
    (pretrain_alone,) = follow(verify, capsys)
    assert pretrain_alone.startswith("apr pretrain --dataset shards/train --tokenizer tok ")
    verify, pretrain_again = follow(encode_held_out, capsys)
    assert pretrain_again == pretrain
    assert "--dataset shards/train --val-shard shards/held-out" in pretrain
    assert follow(verify, capsys) == [pretrain]
    # A toy corpus is too small to train on, and the certificate of both sides is found.
    follow(pretrain, capsys, code=5)
    assert run([*shlex.split(pretrain)[1:], "--json"]) == 5
    assert '"id": "preflight.split-certificate", "upstream_id": null, "verdict": "PASS"' in (
        capsys.readouterr().out
    )
    again = f"{encode} --overwrite"
    assert follow(again, capsys)[1:] == [pretrain]


def test_a_tokenizer_of_a_cleaned_corpus_leads_to_the_cleaned_shards(
    here: Path, capsys: Captured
) -> None:
    follow("apr corpus split in.jsonl -o data --val-fraction 0.2 --content-field text", capsys)
    train_tokenizer = "apr tokenize train --corpus data/train -o tok --overwrite"
    (encode,) = follow(train_tokenizer, capsys)
    assert encode.endswith("--corpus data/train --tokenizer tok -o shards/train")
    (decontaminate,) = follow(
        "apr corpus dedup data/train --held-out data/held-out --no-near "
        "--certificate data/certificate.json -o data/duplicates.jsonl",
        capsys,
    )
    (encode,) = follow(train_tokenizer, capsys)
    assert "--remove data/duplicates.jsonl --certificate data/duplicates.cert" in encode
    (certified,) = follow(decontaminate, capsys)
    (encode,) = follow(train_tokenizer, capsys)
    assert "--remove data/duplicates.jsonl --remove data/" in encode
    assert sorted(shlex.split(encode)) == sorted(shlex.split(certified))
    # The README's order: the held-out side knows the certificate of the split alone.
    follow(f"{encode} --encoder reference", capsys)
    held_out = "apr tokenize encode-corpus --corpus data/held-out --tokenizer tok -o shards/val"
    _, pretrain = follow(f"{held_out} --encoder reference", capsys)
    assert "--dataset shards/train --val-shard shards/val --tokenizer tok" in pretrain
    assert follow("apr tokenize verify shards/train --tokenizer tok", capsys) == [pretrain]
    (from_record,) = follow("apr tokenize verify shards/val", capsys)
    assert "--dataset shards/train --val-shard shards/val" in from_record


def test_what_is_there_already_is_not_named_as_an_output(here: Path, capsys: Captured) -> None:
    follow("apr corpus split in.jsonl -o data --val-fraction 0.2 --content-field text", capsys)
    dedup = (
        "apr corpus dedup data/train --held-out data/held-out --no-near --overwrite "
        "--certificate data/certificate.json -o data/duplicates.jsonl"
    )
    for _ in range(2):
        (decontaminate,) = follow(dedup, capsys)
        certified = follow(decontaminate, capsys)[-1]
    assert decontaminate.endswith(" -o data/contaminated.jsonl --overwrite")
    assert "--remove data/contaminated.jsonl" in certified
    for _ in range(2):
        (encode,) = follow("apr tokenize train --corpus data/train -o tok --overwrite", capsys)
        assert "--certificate data/contaminated.certificate.json" in encode
        follow(f"{encode} --encoder reference", capsys)
    (here / "runs" / "first").mkdir(parents=True)
    (pretrain,) = follow("apr tokenize verify shards/train --tokenizer tok", capsys)
    assert "--run-dir runs/first-2 --dry-run" in pretrain


def test_shards_of_another_tokenizer_are_no_other_side(here: Path, capsys: Captured) -> None:
    follow("apr corpus split in.jsonl -o data --val-fraction 0.2 --content-field text", capsys)
    follow("apr tokenize train --corpus data/train -o tok", capsys)
    follow("apr tokenize train --corpus data/train --vocab-size 270 -o small", capsys)
    encode = "apr tokenize encode-corpus --encoder reference --corpus"
    follow(f"{encode} data/held-out --tokenizer tok -o val", capsys)
    _, held_out, pretrain = follow(f"{encode} data/train --tokenizer small -o train", capsys)
    assert "--corpus data/held-out" in held_out
    assert held_out.endswith("--tokenizer small -o held-out")
    assert "--dataset train --val-shard held-out --tokenizer small" in pretrain
    _, pretrain = follow(f"{encode} data/train --tokenizer tok -o train-2", capsys)
    assert "--dataset train-2 --val-shard val --tokenizer tok" in pretrain


@pytest.mark.parametrize("has_tokenizer", [True, False])
def test_a_tokenizer_that_is_there_is_not_trained_again(
    here: Path, capsys: Captured, has_tokenizer: bool
) -> None:
    if has_tokenizer:
        follow("apr tokenize train --corpus in.jsonl --content-field text -o tok", capsys)
    dedup = "apr corpus dedup in.jsonl -o list.jsonl --content-field text --no-near"
    commands = follow(dedup, capsys)
    assert len(commands) == (1 if has_tokenizer else 2)
    for command in commands:
        follow(command, capsys)


def test_without_a_certificate_documents_are_set_aside(here: Path, capsys: Captured) -> None:
    follow("apr tokenize train --corpus in.jsonl --content-field text -o tok", capsys)
    encode = "apr tokenize encode-corpus --corpus in.jsonl --tokenizer tok --content-field text"
    _, pretrain = follow(f"{encode} -o shards --encoder reference", capsys)
    assert "--dataset shards --tokenizer tok" in pretrain


def test_the_held_out_side_alone_is_no_training_data(here: Path, capsys: Captured) -> None:
    split = "apr corpus split in.jsonl -o data --val-fraction 0.2 --content-field text"
    follow(split, capsys)
    follow("apr tokenize train --corpus data/train -o tok", capsys)
    encode = "apr tokenize encode-corpus --tokenizer tok --encoder reference --corpus"
    (verify,) = follow(f"{encode} data/held-out -o val", capsys)
    assert "tokenize verify val" in verify
    (explain,) = follow(verify, capsys)
    assert explain.startswith("apr tokenize explain val --token 0")
    # Under other names than split's, the two sides find each other by their certificate.
    _, pretrain = follow(f"{encode} data/train -o data-t", capsys)
    assert "--dataset data-t --val-shard val" in pretrain


def test_a_held_out_side_is_encoded_as_the_training_side_was(here: Path, capsys: Captured) -> None:
    split = "apr corpus split in.jsonl -o data --val-fraction 0.2 --content-field text"
    follow(split, capsys)
    follow("apr tokenize train --corpus data/train -o tok", capsys)
    encode = "apr tokenize encode-corpus --tokenizer tok --encoder reference --eos-policy between"
    _, held_out, pretrain = follow(f"{encode} --corpus data/train -o shards", capsys)
    assert "--eos-policy between" in held_out
    assert "--dataset shards --val-shard shards-held-out" in pretrain
    follow(held_out, capsys)
