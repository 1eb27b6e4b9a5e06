"""F38: results that nobody computed: constants, a frozen optimizer, data that ran out, a null."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.run_data import RunData
from tests.unit.train.batch_fixture import random_batch, tiny_model
from tests.unit.train.selftest.planted import config

from apr.errors import Interrupted
from apr.jobs.pretrain import pretrain
from apr.jobs.sitting import Listener
from apr.train.gates import Finding
from apr.train.loss import summed_loss
from apr.train.optimizer import build_optimizer
from apr.train.selftest.parameters import check_parameters_change
from apr.train.selftest.update import check_optimizer
from apr.train.step import StepResult, train_step


def steps_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "steps.jsonl").read_text().splitlines()]


def _constants(*_arguments: Any, **given: Any) -> StepResult:
    return StepResult(1.0, 1.0, given["learning_rate"], 64)


class _Forgetful(torch.optim.AdamW):
    """Applies its updates, and is afterwards what it was before."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        self.state.clear()


def _forgetful(model: Any, settings: Any) -> torch.optim.Optimizer:
    sound = build_optimizer(model, settings)
    return _Forgetful(
        [
            {"params": group["params"], "weight_decay": group["weight_decay"]}
            for group in sound.param_groups
        ],
        lr=0.0,
        betas=(settings.adam_beta1, settings.adam_beta2),
    )


def moved(**planted: Any) -> Finding:
    return check_parameters_change(
        tiny_model(),
        random_batch(),
        config(),
        **{"step": train_step, "summed_loss": summed_loss} | planted,
    )


def updated(**planted: Any) -> Finding:
    return check_optimizer(
        tiny_model(),
        [random_batch(seed=1), random_batch(seed=2)],
        config(),
        **{"step": train_step, "summed_loss": summed_loss} | planted,
    )


@pytest.mark.parametrize("check", [moved, updated])
def test_a_step_that_returns_constants(check: Callable[..., Finding]) -> None:
    assert check(step=_constants).verdict == "FAIL"
    assert check().verdict == "PASS"


def test_an_optimizer_whose_state_does_not_change_over_a_step() -> None:
    assert updated(build=_forgetful).verdict == "FAIL"


def test_data_that_run_out_are_read_again_and_counted(run_data: RunData, tmp_path: Path) -> None:
    waived = ("token-budget", "split-certificate", "val-size")
    record = pretrain(
        run_data.config(
            tmp_path / "run",
            dataset=run_data.val,
            val_shard=None,
            batch_size=8,
            seq_length=32,
            num_steps=60,
            eval_every=60,
            waive={f"preflight.{gate}": "planted" for gate in waived},
        )
    )
    assert 1 < record["epochs_over_data"] < 60 * 8 * 32 / record["unique_tokens"] + 0.1
    steps = steps_of(tmp_path / "run")
    losses = [line["loss_nats"] for line in steps if line["kind"] == "step"]
    assert len(set(losses)) == len(losses) == 60


def nulls_without_reason(record: Any, at: str = "") -> Iterator[str]:
    """Measurements that are null and do not say why, and reasons beside a number."""
    if isinstance(record, list):
        for number, value in enumerate(record):
            yield from nulls_without_reason(value, f"{at}[{number}]")
    if not isinstance(record, dict):
        return
    for key, value in record.items():
        if f"{key}_reason" in record and (value is None) != bool(record[f"{key}_reason"]):
            yield f"{at}.{key}"
        yield from nulls_without_reason(value, f"{at}.{key}")


@pytest.fixture(scope="module")
def records(run_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The records of a run that ended, and of one that was stopped in its middle."""
    root = tmp_path_factory.mktemp("records")
    ended = pretrain(run_data.config(root / "ended", num_steps=4))
    asked = iter(range(4))
    with pytest.raises(Interrupted):
        pretrain(
            run_data.config(root / "stopped", num_steps=8),
            listener=Listener(should_stop=lambda: next(asked, None) is None),
        )
    return [ended, json.loads((root / "stopped" / "run.json").read_text())]


def test_what_was_not_measured_is_null_and_says_why(records: list[dict[str, Any]]) -> None:
    ended, stopped = records
    assert list(nulls_without_reason(ended)) == list(nulls_without_reason(stopped)) == []
    assert stopped["val"]["best_loss_nats"] is None
    assert stopped["val"]["best_loss_nats_reason"] == "the run has not ended"
    assert ended["val"]["best_loss_nats"] is not None


def test_a_placeholder_in_a_record_would_be_seen(records: list[dict[str, Any]]) -> None:
    ended, stopped = records
    filled = stopped | {"val": stopped["val"] | {"best_loss_nats": 1.0}}
    emptied = ended | {"throughput": ended["throughput"] | {"tokens_per_s": None}}
    assert list(nulls_without_reason(filled)) == [".val.best_loss_nats"]
    assert list(nulls_without_reason(emptied)) == [".throughput.tokens_per_s"]
