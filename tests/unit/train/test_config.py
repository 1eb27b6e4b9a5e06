"""Options: every one has a consumer, a flag overrides one field, and nonsense is refused."""

import ast
from pathlib import Path
from typing import Any

import click
import pytest

from apr.architecture import PRESET_NAMES
from apr.cli import pretrain as pretrain_cli
from apr.errors import Refusal
from apr.train.config import TrainConfig, absolute_paths
from apr.train.resolved_config import resolve_config

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
    assert refused.value.where == "--run-dir"


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(Refusal) as refused:
        resolve_config({"num_steps": 5})
    assert refused.value.where == "--dataset, --tokenizer, --run-dir"
    # The twin: with nothing missing another problem is what is said.
    with pytest.raises(Refusal) as refused:
        resolve_config(REQUIRED | {"num_steps": 0})
    assert refused.value.where == "num_steps"


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lr", "did you mean learning_rate?"),
        ("--lr", "did you mean learning_rate?"),
        ("learning_rat", "did you mean learning_rate?"),
        ("num-steps", "did you mean num_steps?"),
        ("xyzzy", "choose one of dataset, tokenizer, run_dir, val_shard, "),
    ],
)
def test_an_unknown_key_is_told_the_one_that_it_resembles(
    tmp_path: Path, key: str, meant: str
) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f"{key!r} = 1\n")
    with pytest.raises(Refusal) as refused:
        resolve_config({}, config_path=path)
    assert (refused.value.id, refused.value.where) == ("config.invalid", key)
    assert refused.value.fix.startswith(meant)


def test_an_unknown_key_inside_a_source_is_not_one_of_the_run() -> None:
    for source, where in (
        ({"path": "d", "weigth": 1}, "dataset.0.weigth"),
        ({"weight": 1.0}, "dataset.0.path"),
    ):
        with pytest.raises(Refusal) as refused:
            resolve_config(REQUIRED | {"dataset": [source]})
        assert refused.value.where == where


@pytest.mark.parametrize(
    "field", ["num_steps", "batch_size", "seq_length", "eval_every", "keep", "seed", "patience"]
)
def test_help_shows_the_default_that_a_run_has(field: str) -> None:
    (option,) = (each for each in pretrain_cli.command.params if each.name == field)
    assert isinstance(option, click.Option)
    default = getattr(TrainConfig.model_validate(REQUIRED), field)
    assert f"[default: {default}" in str(option.help)


@pytest.mark.parametrize(
    ("flag", "field"),
    [
        ("lr", "learning_rate"),
        ("warmup_steps", "warmup_steps"),
        ("target_val_loss", "target_val_loss"),
    ],
)
def test_help_shows_the_default_of_each_mode(flag: str, field: str) -> None:
    (option,) = (each for each in pretrain_cli.command.params if each.name == flag)
    assert isinstance(option, click.Option)
    init = {"init": Path("base.apr")}
    for mode, given in {"from-scratch": {}, "finetune": init}.items():
        config = resolve_config(REQUIRED | {"num_steps": 5000} | given)
        assert f"{getattr(config, field):g} {mode}" in str(option.help)


def test_help_names_every_preset() -> None:
    (option,) = (each for each in pretrain_cli.command.params if each.name == "arch")
    assert isinstance(option, click.Option)
    default = resolve_config(REQUIRED).arch
    assert f"Preset: {', '.join(PRESET_NAMES)}.  [default: {default}]" == option.help


def test_recorded_paths_do_not_depend_on_the_working_directory() -> None:
    config = absolute_paths(resolve_config(REQUIRED))
    paths = (config.dataset[0].path, config.tokenizer, config.run_dir)
    assert all(path.is_absolute() for path in paths)
