"""F24: the logged configuration is not the applied one.

Every field of a run is changed, and something that is measured or read back must follow: the steps
of a real tiny run, its record, the resolved plan, or a refusal. The echo of the field itself, in
the record's `config`, does not count.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.faults.test_f28_non_finite_steps import train
from tests.run_data import RunData

from apr.architecture import preset
from apr.corpus.reading.jsonl import write_rows
from apr.errors import Refusal
from apr.jobs.pretrain import pretrain
from apr.shards.encode import encode_corpus
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.config import TrainConfig
from apr.train.inputs import open_inputs
from apr.train.loss import summed_loss
from apr.train.prepare import prepare
from apr.train.repeatable import repeatable
from apr.train.step import accumulate
from apr.train.train_state import TrainState

Options = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What a run left behind, without the configuration that it was told."""

    record: dict[str, Any] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: tuple[str, ...] = ()
    refused: str | None = None

    def of_steps(self, key: str) -> list[Any]:
        return [line[key] for line in self.lines if line["kind"] == "step"]

    def of_validations(self, key: str) -> list[Any]:
        return [line[key] for line in self.lines if line["kind"] == "val"]


Seen = Callable[[Run], Any]


@dataclass(frozen=True)
class Change:
    """Options, what to look at, and what must be there; without `value`, anything else than before.

    `beside` are options of both runs.
    """

    options: Options
    seen: Seen
    value: Any = None
    beside: Options = field(default_factory=dict)

    @property
    def of_run(self) -> Options:
        """All options of the changed run."""
        return self.beside | self.options


class Runs:
    """Runs by their options, each made once."""

    def __init__(self, run_data: RunData, sources: tuple[Path, Path], root: Path) -> None:
        self.run_data = run_data
        self.sources = sources
        self.root = root
        self.made: dict[str, Run] = {}
        self.few = root / "few"
        held_out = (run_data.root / "val.jsonl").read_text().splitlines()[:3]
        write_rows(
            root / "few.jsonl", [(json.loads(row)["content"][:1200], "") for row in held_out]
        )
        encode_corpus(
            [root / "few.jsonl"],
            tokenizer=Tokenizer.load(run_data.tokenizer),
            encoder="reference",
            output=self.few,
        )

    def of(self, options: Options) -> Run:
        key = repr(sorted(options.items()))
        if key not in self.made:
            self.made[key] = self._make(self.root / f"run-{len(self.made)}", options)
        return self.made[key]

    def config(self, run_dir: Path, given: Options) -> TrainConfig:
        """A run of which nothing takes long: few steps, and a held-out set of a page."""
        options = {"val_shard": self.few, "num_steps": 4, "eval_every": 4, "seq_length": 64} | given
        options["waive"] = WAIVED | options.get("waive", {})
        return self.run_data.config(run_dir, **options)

    def _make(self, run_dir: Path, options: Options) -> Run:
        given: Options = {
            name: value(self) if callable(value) else value for name, value in options.items()
        }
        run_dir = given.pop("run_dir", run_dir)
        try:
            pretrain(self.config(run_dir, given))
        except Refusal as refusal:
            return Run(refused=refusal.id)
        record = json.loads((run_dir / "run.json").read_text())
        del record["config"]
        lines = [json.loads(line) for line in (run_dir / "steps.jsonl").read_text().splitlines()]
        kept = tuple(path.name for path in sorted((run_dir / "checkpoints").iterdir()))
        return Run(record, lines, kept)


@pytest.fixture(scope="module")
def runs(
    run_data: RunData, sources: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Runs:
    return Runs(run_data, sources, tmp_path_factory.mktemp("applied"))


def losses(run: Run) -> list[float]:
    return run.of_steps("loss_nats")


def rates(run: Run) -> list[float]:
    return run.of_steps("lr_applied")


def outcome(run: Run) -> str | None:
    return run.record.get("outcome", run.refused)


def first_rate(run: Run) -> float:
    return rates(run)[0]


def num_skipped(run: Run) -> int:
    return sum(line["kind"] == "skip" for line in run.lines)


def gate(run: Run, id: str) -> dict[str, Any]:
    (found,) = [gate for gate in run.record["gates"] if gate["id"] == id]
    return found


WAIVED = {f"preflight.{gate}": "few" for gate in ("token-budget", "val-size", "split-certificate")}
# One run for all of these, since each leaves a value that no other option would.
PLAIN: Options = {
    "num_steps": 6,
    "batch_size": 2,
    "seq_length": 32,
    "eval_every": 2,
    "eval_tokens": 320,
    "learning_rate": 1e-3,
    "warmup_steps": 1,
    "schedule": "wsd",
    "decay_fraction": 0.5,
    "keep": 1,
    "sample_prompts": ("def ",),
    "resolution_nats": 1e-6,
    "waive": {"preflight.token-budget": "short"},
    "precision": "bf16",
    "attention": "flash",
}
FALLING = pytest.approx([1e-3] * 3 + [1e-3 + (1e-5 - 1e-3) * fallen / 3 for fallen in (1, 2, 3)])
PATIENT: Options = {"eval_every": 1, "min_delta": 1000.0, "patience": 9}
TARGET: Options = {"learning_rate": 1e-2, "warmup_steps": 0, "eval_every": 1}
DIVERGING: Options = {"learning_rate": 0.1, "warmup_steps": 0, "eval_every": 1}
# Enough steps to know what is usual; then whatever is above the median is called a spike.
SPIKES: Options = {
    "num_steps": 36,
    "eval_every": 36,
    "seq_length": 16,
    "max_grad_norm": 0.01,
    "max_skipped_steps": 36,
}
CALM, TIGHT = {"spike_factor": 1e9}, {"spike_factor": 1.0001}


def finished_model(runs: Runs) -> Path:
    """The model file of the run that all others are compared with."""
    runs.of({})
    return runs.root / "run-0" / "model.apr"


def with_two_ids_swapped(runs: Runs) -> Path:
    """Another tokenizer of the same size."""
    value = json.loads((runs.run_data.tokenizer / "tokenizer.json").read_bytes())
    vocab = value["model"]["vocab"]
    value["model"]["vocab"] = {
        piece: {300: 301, 301: 300}.get(id, id) for piece, id in vocab.items()
    }
    swapped = Tokenizer.from_json_bytes(
        json.dumps(value).encode(), eos_token="<|endoftext|>", where="x"
    )
    swapped.save(runs.root / "swapped")
    return runs.root / "swapped"


FROM_INIT: Options = {"arch": None, "init": finished_model}

CHANGES: dict[str, Change] = {
    "dataset": Change(
        {"dataset": lambda runs: runs.sources[0]}, lambda run: run.record["unique_tokens"]
    ),
    "tokenizer": Change(
        {"tokenizer": with_two_ids_swapped}, outcome, "preflight.tokenizer-fingerprint"
    ),
    "val_shard": Change({"val_shard": None}, lambda run: run.record["val"]["source"], "reserved"),
    "init": Change(FROM_INIT, lambda run: run.record["init_loss_nats"]),
    "mode": Change({"mode": "from-scratch"}, first_rate, 1.5e-4, beside=FROM_INIT),
    "vocab_size": Change(
        {"vocab_size": 640, "waive": {"preflight.vocab-size": "planted"}},
        lambda run: run.record["architecture"]["vocab_size"],
        640,
    ),
    "num_steps": Change(PLAIN, lambda run: len(losses(run)), 6),
    "batch_size": Change(PLAIN, lambda run: run.of_steps("tokens"), [2 * 32] * 6),
    "seq_length": Change(PLAIN, lambda run: run.of_steps("tokens"), [2 * 32] * 6),
    "learning_rate": Change(PLAIN, rates, FALLING),
    "warmup_steps": Change(PLAIN, rates, FALLING),
    "schedule": Change(PLAIN, rates, FALLING),
    "decay_fraction": Change(PLAIN, rates, FALLING),
    "optimizer": Change(
        {"optimizer": "muon"}, lambda run: run.record["optimizer"]["kind"], "MuonBesideAdamW"
    ),
    "weight_decay": Change({"weight_decay": 50.0}, losses),
    "adam_beta1": Change({"adam_beta1": 0.5}, losses),
    "adam_beta2": Change({"adam_beta2": 0.5}, losses),
    "max_grad_norm": Change({"max_grad_norm": 1e-6}, losses),
    "document_mask": Change({"document_mask": False}, lambda run: run.record["init_loss_nats"]),
    "eval_every": Change(PLAIN, lambda run: run.of_validations("step"), [0, 2, 4, 6]),
    "checkpoint_every": Change(
        {"checkpoint_every": 1},
        lambda run: run.checkpoints,
        tuple(f"step-{step:08}" for step in range(1, 5)),
        beside={"keep": 9},
    ),
    "eval_tokens": Change(PLAIN, lambda run: set(run.of_validations("num_tokens"))),
    "target_val_loss": Change(
        {"target_val_loss": 6.2}, outcome, "target_met", beside=TARGET | {"stop_at_target": True}
    ),
    "stop_at_target": Change(
        {"stop_at_target": True, "target_val_loss": 6.2}, outcome, "target_met", beside=TARGET
    ),
    "patience": Change({"patience": 2}, outcome, "early_stop", beside=PATIENT),
    "min_delta": Change(
        {"min_delta": 0.0}, outcome, "budget_exhausted", beside=PATIENT | {"patience": 2}
    ),
    "resolution_nats": Change(PLAIN, lambda run: gate(run, "preflight.val-size")["expected"]),
    "divergence_factor": Change(
        {"divergence_factor": 1.001}, outcome, "train.diverged", beside=DIVERGING
    ),
    # Alone a run has nothing to share, and says so; on ranks: test_ranks.py.
    "data_parallel": Change({"data_parallel": "fsdp"}, outcome, "config.without-effect"),
    "spike_factor": Change(TIGHT, num_skipped, beside=SPIKES | CALM),
    "max_skipped_steps": Change(
        {"max_skipped_steps": 0}, outcome, "train.gradient-spike", beside=SPIKES | TIGHT
    ),
    "keep": Change(PLAIN, lambda run: run.checkpoints, ("step-00000006",)),
    "seed": Change({"seed": 7}, losses),
    "precision": Change(PLAIN, lambda run: run.record["environment"]["precision"], "bf16"),
    "attention": Change(PLAIN, lambda run: run.record["environment"]["attention"], "flash"),
    "sample_prompts": Change(PLAIN, lambda run: [x["prompt"] for x in run.record["samples"]]),
    "waive": Change(
        PLAIN, lambda run: gate(run, "preflight.token-budget")["waiver"], {"reason": "short"}
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_option_changes_what_is_measured(runs: Runs, name: str) -> None:
    change = CHANGES[name]
    assert name in change.options
    before, after = change.seen(runs.of(change.beside)), change.seen(runs.of(change.of_run))
    assert after != before
    if change.value is not None:
        assert after == change.value


def test_no_option_is_left_out() -> None:
    prefix = "test_option_"
    alone = {name.removeprefix(prefix) for name in globals() if name.startswith(prefix)}
    assert {*CHANGES} | alone == {*TrainConfig.model_fields}
    assert {*CHANGES} & alone == set()


def test_the_harmless_twin_changes_nothing(runs: Runs) -> None:
    again = runs.of({"keep": 3})
    assert losses(again) == losses(runs.of({}))
    assert rates(again) == rates(runs.of({}))


def test_option_run_dir(runs: Runs) -> None:
    elsewhere = runs.root / "else" / "where"
    runs.of({"run_dir": elsewhere, "num_steps": 1, "eval_every": 1})
    assert {"run.json", "steps.jsonl", "model.apr"} <= {path.name for path in elsewhere.iterdir()}


def test_option_arch(runs: Runs, tmp_path: Path) -> None:
    counted: list[int] = []
    for arch in ("tiny", "demo"):
        config = runs.config(tmp_path / "run", {"arch": arch})
        run = prepare(config, open_inputs(config, verify=False), notify=lambda _text: None)
        counted.append(sum(parameter.numel() for parameter in run.model.parameters()))
        assert counted[-1] == preset(arch, tokenizer_vocab_size=512).num_parameters
    assert counted[0] < counted[1]


def test_option_compile(runs: Runs, tmp_path: Path) -> None:
    """Compiled kernels that were asked for, and a compiler that is not there."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "apr", "pretrain", "--compile", "--json"),
            *(flag for flag in runs.run_data.flags(tmp_path / "run") if flag != "--no-compile"),
        ],
        env=os.environ | {"CXX": str(tmp_path / "g++"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert json.loads(done.stdout)["refused"]["id"] == "config.no-compiler"
    assert done.returncode == 9
    assert not (tmp_path / "run").exists()
    assert runs.of({}).record["environment"]["compiled"] is False


@pytest.mark.parametrize("grad_accum", [None, 1, 2, 4])
def test_option_grad_accum(runs: Runs, tmp_path: Path, grad_accum: int | None) -> None:
    config = runs.config(
        tmp_path / "run", {"grad_accum": grad_accum, "num_steps": 2, "eval_every": 2}
    )
    shapes: list[tuple[int, ...]] = []

    def loss(model: Any, inputs: torch.Tensor, *rest: Any) -> torch.Tensor:
        shapes.append(tuple(inputs.shape))
        return summed_loss(model, inputs, *rest)

    run = prepare(config, open_inputs(config, verify=False), notify=lambda _text: None)
    train(replace(run, summed_loss=loss), TrainState(), [])
    # Validations take parts of the same size; the steps alone come in groups of `grad_accum`.
    assert set(shapes) == {(4 // (grad_accum or 1), 64)}
    assert run.config.grad_accum == (grad_accum or 1)


@pytest.mark.parametrize("asked", [None, False, True])
def test_option_activation_checkpointing(runs: Runs, tmp_path: Path, asked: bool | None) -> None:
    config = runs.config(
        tmp_path / "run", {"activation_checkpointing": asked, "num_steps": 2, "eval_every": 2}
    )
    run = prepare(config, open_inputs(config, verify=False), notify=lambda _text: None)
    calls: list[bool] = []
    run.model.model.layers[0].register_forward_pre_hook(
        lambda *_: calls.append(torch.is_grad_enabled())
    )
    batch = run.order.batch(1)
    accumulate(run.model, [batch], num_tokens=1, document_mask=True, summed_loss=run.summed_loss)
    # Once, and once more where the backward pass needs it.
    assert calls == [True] * (2 if asked else 1)
    assert run.config.activation_checkpointing is bool(asked)


def test_option_device(runs: Runs) -> None:
    """A device that is asked for computes, or nothing does."""
    on_gpu = runs.of({"device": "cuda"})
    if torch.cuda.is_available():
        assert on_gpu.record["environment"]["device"].startswith("cuda")
    else:
        assert on_gpu.refused == "config.device-unavailable"
    assert runs.of({}).record["environment"]["device"] == "cpu"


@pytest.mark.parametrize("deterministic", [False, True])
def test_option_deterministic(deterministic: bool) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    with repeatable("cuda", seed=0, deterministic=deterministic):
        assert torch.are_deterministic_algorithms_enabled() is (deterministic or before)
    assert torch.are_deterministic_algorithms_enabled() is before
