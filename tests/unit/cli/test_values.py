"""What a value on the command line may not be, and options that would have no effect."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from tests.corpus_files import program, write_jsonl
from tests.tokenizer_files import tokenizer

from apr.cli.main import cli, run

ENCODE = "tokenize encode-corpus --corpus a.jsonl --tokenizer tok"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "a.jsonl", [{"content": program(n), "repo": f"{n}"} for n in range(9)])
    write_jsonl(tmp_path / "b.jsonl", [{"content": program(9)}])
    tokenizer().save(tmp_path / "tok")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("corpus split a.jsonl -o s3://bucket/data", "is a URL"),
        ("corpus dedup a.jsonl -o memory://list.jsonl", "is a URL"),
        ("corpus decontaminate a.jsonl --against b.jsonl -o memory://x", "is a URL"),
        ("tokenize train --corpus a.jsonl -o s3://bucket/tok", "is a URL"),
        (f"{ENCODE} -o s3://bucket/shards", "is a URL"),
        (f"{ENCODE} -o out --remove s3://bucket/list.jsonl", "is a URL"),
        ("tokenize verify s3://bucket/shards", "is a URL"),
        ("tokenize show-batch s3://bucket/run --step 1", "is a URL"),
        ("pretrain --dataset out --tokenizer tok --run-dir s3://bucket/run", "is a URL"),
        ("pretrain --dataset s3://bucket/shards --tokenizer tok --run-dir out", "is a URL"),
        ("pretrain --dataset out --tokenizer s3://b/tok --run-dir out", "is a URL"),
        ("pretrain --dataset out --val-shard s3://b/x --tokenizer tok --run-dir out", "is a URL"),
        ("pretrain --config s3://bucket/run.toml", "is a URL"),
        ("pretrain --resume s3://bucket/run", "is a URL"),
        ("demo -o s3://bucket/demo", "is a URL"),
        ("report s3://bucket/run", "is a URL"),
        ("inspect s3://bucket/model.apr", "is a URL"),
        ("validate s3://bucket/model.apr", "is a URL"),
        ("run s3://bucket/model.apr", "is a URL"),
        ("corpus split EMPTY -o out", "empty name"),
        ("demo -o EMPTY", "empty name"),
        ("corpus split a.jsonl -o out --val-fraction nan", "nan"),
        ("corpus split a.jsonl -o out --val-fraction -1", "-1"),
        ("corpus scan a.jsonl --show -1", "not in the range"),
        ("tokenize train --corpus a.jsonl -o out --vocab-size -1", "-1"),
        ("tokenize train --corpus a.jsonl -o out --min-frequency -1", "-1"),
        (f"{ENCODE} -o out --shard-tokens -1", "-1"),
        (f"{ENCODE} -o out --num-workers -1", "-1"),
        ("pretrain --dataset a --tokenizer tok --run-dir out --lr nan", "nan"),
        ("pretrain --dataset a --tokenizer tok --run-dir out --min-delta nan", "nan"),
        ("pretrain --dataset a --tokenizer tok --run-dir out --target-val-loss -1", "-1"),
        ("pretrain --dataset a --tokenizer tok --run-dir out --seed -1", "-1"),
        ("corpus split a.jsonl -o EMPTY", "empty name"),
        ("tokenize train --corpus EMPTY -o out", "empty name"),
        (f"{ENCODE} --corpus EMPTY -o out", "empty name"),
        ("corpus dedup a.jsonl -o out --jaccard nan", "not in the range"),
        ("corpus decontaminate a.jsonl --against b.jsonl -o out --containment nan", "in the range"),
        ("corpus dedup a.jsonl -o out --show -1", "not in the range"),
        (f"{ENCODE} -o out --max-quarantined -1", "not in the range"),
        (f"{ENCODE} -o out --estimate-only --estimate-sample-docs 0", "not in the range"),
        (f"{ENCODE} -o out --estimate-only --shard-tokens 0", "0"),
        (f"{ENCODE} -o out --estimate-sample-docs 5", "without --estimate-only"),
        ("corpus dedup a.jsonl -o out --no-near --jaccard 0.9", "with --no-near"),
        ("corpus split a.jsonl -o out --group file --group-field repo", "with --group file"),
    ],
)
def test_it_is_a_usage_error_and_nothing_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], line: str, found: str
) -> None:
    before = sorted(os.listdir(here))
    words = ["" if word == "EMPTY" else word for word in line.split()]
    assert run([*words, "--json"]) == 2
    assert found in json.loads(capsys.readouterr().out)["refused"]["found"]
    assert sorted(os.listdir(here)) == before


@pytest.mark.parametrize(
    "line",
    [
        "corpus dedup a.jsonl -o out --no-near",
        "corpus dedup a.jsonl -o out --jaccard 1 --show 0",
        "corpus split a.jsonl -o out --group file --val-fraction 0.5",
        f"{ENCODE} -o out --estimate-only --estimate-sample-docs 1",
    ],
)
def test_the_harmless_twin_is_done(here: Path, line: str) -> None:
    assert run(line.split()) == 0


@pytest.mark.parametrize("text", ["{", '{"type": "service_account"}'])
def test_a_certificate_that_is_none_is_refused_before_any_work(
    here: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    (here / "certificate.json").write_text(text)
    before = sorted(os.listdir(here))
    assert run([*ENCODE.split(), "-o", "out", "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["refused"]["id"] == "corpus.certificate-damaged"
    assert sorted(os.listdir(here)) == before


def test_a_certificate_of_other_documents_beside_the_corpus_is_said_to_be_left_out(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = "corpus split a.jsonl -o data --group file --val-fraction 0.5"
    assert run(split.split()) == 0
    write_jsonl(here / "data" / "train" / "more.jsonl", [{"content": program(77)}])
    encode = "tokenize encode-corpus --tokenizer tok --encoder reference"
    capsys.readouterr()
    assert run([*encode.split(), "--corpus", "data/train", "-o", "out"]) == 0
    assert "data/certificate.json is of other documents, so" in capsys.readouterr().err
    assert run([*encode.split(), "--corpus", "data/held-out", "-o", "val"]) == 0
    said = capsys.readouterr()
    assert "note:" not in said.err
    assert "the held-out side of certificate" in said.out


@pytest.mark.parametrize(
    "line",
    [
        "corpus split a.jsonl --group file -o c.txt/out",
        "corpus dedup a.jsonl -o c.txt/out.jsonl",
        "corpus decontaminate a.jsonl --against b.jsonl -o c.txt/deep/out",
        "tokenize train --corpus a.jsonl -o c.txt/out",
        f"{ENCODE} -o c.txt/out",
    ],
)
def test_a_place_that_takes_no_output_is_refused_before_any_work(
    here: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    (here / "c.txt").write_text("a file, so nothing can lie below it")
    (here / "a.jsonl").write_text("no JSON\n")  # which reading would refuse with exit code 4
    assert run([*line.split(), "--json"]) == 7
    refused = json.loads(capsys.readouterr().out)["refused"]
    assert (refused["id"], refused["where"]) == ("files.io-failed", str(here / "c.txt"))


def test_no_option_takes_a_path_that_it_does_not_look_at() -> None:
    """click's own path type accepts URLs and empty names."""

    def paths_of(command: click.Command) -> Iterator[str]:
        context = click.Context(command)
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                yield from paths_of(inner)
        for parameter in command.params:
            if isinstance(parameter.type, click.Path | click.File):
                yield f"{command.name} {parameter.name}"

    assert list(paths_of(cli)) == []


@pytest.mark.parametrize("field", ["dataset", "tokenizer", "run_dir", "val_shard"])
def test_a_run_file_names_no_url_either(
    here: Path, capsys: pytest.CaptureFixture[str], field: str
) -> None:
    paths = {"dataset": "a", "tokenizer": "tok", "run_dir": "out", field: "s3://bucket/x"}
    (here / "run.toml").write_text("".join(f'{name} = "{path}"\n' for name, path in paths.items()))
    assert run(["pretrain", "--config", "run.toml", "--json"]) == 2
    refused = json.loads(capsys.readouterr().out)["refused"]
    assert (refused["id"], refused["where"]) == ("config.invalid", field)
    assert "only documents are read from a URL" in refused["expected"]


@pytest.mark.parametrize(
    "line", ["run {}", "inspect {}", "validate {}", "lint {}", "export {} --format hf -o out"]
)
def test_a_directory_of_hugging_faces_is_to_be_imported(
    here: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    (here / "hf").mkdir()
    assert run(line.format("hf").split()) == 3
    assert "name the file itself" in capsys.readouterr().err
    (here / "hf" / "config.json").write_text("{}")
    (here / "model.apr").write_text("another")
    assert run(line.format("hf").split()) == 3
    said = capsys.readouterr().err
    assert "refused[container.not-a-file] hf" in said
    assert "fix:      import it first: apr import hf -o model-2.apr" in said


def run_directory(root: Path, *, checkpoints: tuple[int, ...] = ()) -> Path:
    (root / "RUN").mkdir()
    (root / "RUN" / "run.json").write_text("{}")
    for step in checkpoints:
        saved = root / "RUN" / "checkpoints" / f"step-{step:08d}"
        saved.mkdir(parents=True)
        (saved / "model.apr").write_bytes(b"")
    return root / "RUN"


@pytest.mark.parametrize(
    "line", ["run {}", "inspect {}", "validate {}", "lint {}", "export {} --format hf -o out"]
)
@pytest.mark.parametrize("named", ["RUN/model.apr", "RUN"])
def test_a_run_that_has_no_model_yet_is_to_be_gone_on_with(
    here: Path, capsys: pytest.CaptureFixture[str], line: str, named: str
) -> None:
    run_directory(here, checkpoints=(20, 40))
    assert run(line.format(named).split()) == 3
    said = capsys.readouterr().err
    assert "refused[files.not-found] RUN/model.apr" in said
    assert "apr pretrain --resume RUN, or name its newest checkpoint: RUN/check" in said
    assert "step-00000040/model.apr" in said


def test_a_run_without_checkpoint_names_none(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_directory(here)
    assert run(["run", "RUN/model.apr"]) == 3
    said = capsys.readouterr().err
    assert "apr pretrain --resume RUN" in said
    assert "checkpoint" not in said
    # The twin: another name, or a directory that is no run's, is as it was.
    assert run(["run", "RUN/modle.apr"]) == 3
    assert "check the spelling" in capsys.readouterr().err
    assert run(["run", "tok"]) == 3
    assert "refused[container.not-a-file] tok" in capsys.readouterr().err


def test_a_directory_with_a_model_names_the_file(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run_directory(here) / "model.apr").write_bytes(b"")
    assert run(["inspect", "RUN"]) == 3
    assert "name the file itself: RUN/model.apr" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("pretrian", " Did you mean pretrain?"),
        ("train --dataset x", " Did you mean pretrain?"),
        ("tokenize encode", " Did you mean encode-corpus?"),
        ("xyzzy", ""),
    ],
)
def test_a_mistyped_verb_is_told_what_it_resembles(
    capsys: pytest.CaptureFixture[str], line: str, meant: str
) -> None:
    assert run([*line.split(), "--json"]) == 2
    word = next(each for each in reversed(line.split()) if each not in ("x", "--dataset"))
    assert json.loads(capsys.readouterr().out)["refused"]["found"] == (
        f"No such command {word!r}.{meant}"
    )


def test_what_is_missing_is_said_before_anything_heavy_is_loaded() -> None:
    for verb in ("pretrain", "selftest"):
        program = (
            "import sys; from apr.cli.main import run\n"
            f"code = run(['{verb}', '--tokenizer', 'tok'])\n"
            "assert 'torch' not in sys.modules\n"
            "sys.exit(code)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("refused[config.invalid] --dataset, --run-dir\n")
