"""Options: every one has a consumer, a flag overrides one field, and nonsense is refused."""

import ast
from pathlib import Path
from typing import Any

import pytest

from apr.cli import pretrain as pretrain_cli
from apr.errors import Refusal
from apr.train.config import TrainConfig, absolute_paths, resolve_config

SOURCES = Path(__file__).resolve().parents[3] / "src" / "apr"
REQUIRED: dict[str, Any] = {"dataset": Path("d"), "tokenizer": Path("t"), "run_dir": Path("r")}
NOT_FIELDS = {
    "config_path",
    "resume",
    "dry_run",
    "force_under_provisioned",
    "waive",
    "json",
    "quiet",
}


def test_defaults_by_mode_are_upstreams() -> None:
    config = resolve_config(REQUIRED | {"num_steps": 5000})
    assert (config.learning_rate, config.warmup_steps, config.target_val_loss) == (3e-4, 1000, 3.0)
    assert config.arch == "llama-370m"
    assert (config.batch_size, config.seq_length, config.seed) == (16, 1024, 42)


def test_an_initial_model_makes_it_finetuning_unless_told_otherwise() -> None:
    init = {"init": Path("base.apr"), "num_steps": 5000}
    config = resolve_config(REQUIRED | init)
    assert (config.learning_rate, config.warmup_steps, config.target_val_loss) == (5e-5, 100, 2.2)
    assert (config.mode, config.arch) == ("finetune", None)
    config = resolve_config(REQUIRED | init | {"mode": "from-scratch"})
    assert (config.learning_rate, config.mode) == (3e-4, "from-scratch")


def test_explicit_values_win_over_the_mode() -> None:
    config = resolve_config(
        REQUIRED | {"learning_rate": 1.0, "warmup_steps": 0, "target_val_loss": 9.0}
    )
    assert (config.learning_rate, config.warmup_steps, config.target_val_loss) == (1.0, 0, 9.0)


def test_f24_every_field_is_read_somewhere() -> None:
    """An option that nobody reads is an option that is accepted and ignored."""
    read: set[str] = set()
    for file in SOURCES.rglob("*.py"):
        if file.name == "config.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                read.add(node.attr)
    # `mode` and `stop_at_target` are consumed by `resolve_config` itself.
    unread = set(TrainConfig.model_fields) - read - {"mode", "stop_at_target"}
    assert len(TrainConfig.model_fields) > 25
    assert unread == set()


def test_f24_every_flag_overrides_one_field() -> None:
    flags = {parameter.name for parameter in pretrain_cli.command.params}
    assert NOT_FIELDS - flags == set()
    renamed = {"lr": "learning_rate"}
    fields = [renamed.get(str(flag), str(flag)) for flag in flags - NOT_FIELDS]
    assert len(fields) == len(set(fields)) > 20
    assert set(fields) <= set(TrainConfig.model_fields)


@pytest.mark.parametrize(
    ("batch_size", "eval_every", "asked", "read"),
    [
        (8, 200, None, 12_800),
        (8, 100, None, 10_000),
        (1024, 100, None, 100_000),
        (8, 100, 50_000, 50_000),
        (1024, 100, 7, 7),
    ],
)
def test_a_periodic_validation_reads_a_sixteenth_of_what_is_trained_on_between(
    batch_size: int, eval_every: int, asked: int | None, read: int
) -> None:
    config = resolve_config(
        REQUIRED
        | {"batch_size": batch_size, "eval_every": eval_every, "eval_tokens": asked}
        | {"seq_length": 128}
    )
    assert config.periodic_eval_tokens == read


def test_a_toml_file_and_its_overrides(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('dataset = "d"\ntokenizer = "t"\nrun_dir = "r"\nseed = 7\nbatch_size = 4\n')
    config = resolve_config({"batch_size": 8}, config_path=path)
    assert (config.seed, config.batch_size) == (7, 8)


@pytest.mark.parametrize(
    ("options", "id"),
    [
        ({"learning_rat": 1.0}, "config.invalid"),
        ({"num_steps": 0}, "config.invalid"),
        ({"num_steps": 2.5}, "config.invalid"),
        ({"learning_rate": float("nan")}, "config.invalid"),
        ({"learning_rate": 0.0}, "config.invalid"),
        ({"target_val_loss": 0.0}, "config.invalid"),
        ({"adam_beta1": 1.0}, "config.invalid"),
        ({"seed": -1}, "config.invalid"),
        ({"precision": "fp8"}, "config.invalid"),
        ({"mode": "finetune"}, "config.init-missing"),
        ({"batch_size": 6, "grad_accum": 4}, "config.batch-not-divisible"),
        ({"num_steps": 10, "warmup_steps": 11}, "config.warmup-longer-than-run"),
        ({"num_steps": 10, "eval_every": 11}, "config.eval-longer-than-run"),
        ({"init": Path("b.apr"), "arch": "tiny"}, "config.init-shape"),
        ({"init": Path("b.apr"), "vocab_size": 512}, "config.init-shape"),
        ({"decay_fraction": 0.1}, "config.without-effect"),
        ({"stop_at_target": False, "target_val_loss": 2.0}, "config.without-effect"),
        ({"waive": {"preflight.nothing": "because"}}, "config.waiver"),
        ({"waive": {"preflight.id-range": " "}}, "config.waiver"),
        ({"waive": {"preflight.init-tensors": "because"}}, "config.waiver"),
        ({"device": "cuda:16"}, "config.device"),
        ({"device": "tpu"}, "config.device"),
        ({"device": "cpu:0"}, "config.device"),
    ],
)
def test_f24_impossible_options_are_refused(options: dict[str, Any], id: str) -> None:
    with pytest.raises(Refusal) as refused:
        resolve_config(REQUIRED | {"num_steps": 100} | options)
    assert refused.value.id == id


@pytest.mark.parametrize("device", ["cpu", "auto", "cuda", "cuda:0", "cuda:15"])
def test_devices_of_the_grammar_are_accepted(device: str) -> None:
    assert resolve_config(REQUIRED | {"device": device}).device == device


@pytest.mark.parametrize("text", ["seed = ", "\x00", "a = 1\na = 2\n"])
def test_a_broken_toml_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(Refusal) as refused:
        resolve_config({}, config_path=path)
    assert (refused.value.id, refused.value.exit_code) == ("config.not-toml", 4)


def test_a_missing_required_path_is_named() -> None:
    with pytest.raises(Refusal) as refused:
        resolve_config({"dataset": Path("d"), "tokenizer": Path("t")})
    assert refused.value.id == "config.invalid"
    assert refused.value.where == "run_dir"


def test_recorded_paths_do_not_depend_on_the_working_directory() -> None:
    config = absolute_paths(resolve_config(REQUIRED))
    paths = (config.dataset[0].path, config.tokenizer, config.run_dir)
    assert all(path.is_absolute() for path in paths)
