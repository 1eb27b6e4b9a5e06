"""The throughput that `--measure` and a dry run give: of the run's own kernels, warm.

Compiling is left to the compiler's front end: code for the graphs is not made here.
"""

import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.run_data import RunData
from torch._dynamo.testing import CompileCounterWithBackend

from apr.architecture import preset
from apr.progress import Progress
from apr.train.compiling import COMPILING
from apr.train.config import TrainConfig
from apr.train.inputs import open_inputs
from apr.train.measured_rate import measure_prepared, measure_rate
from apr.train.prepare import PreparedRun, prepare
from apr.train.resolved_config import resolve_config

# The compiler's front end looks into what comes into a block, and torch is told to raise then.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")

SHAPE = preset("tiny", tokenizer_vocab_size=64)


def a_run(**changes: Any) -> TrainConfig:
    options: dict[str, Any] = {
        "dataset": Path("none"),
        "tokenizer": Path("none"),
        "run_dir": Path("none"),
        "arch": "tiny",
        "batch_size": 2,
        "seq_length": 16,
        "grad_accum": 1,
        "device": "cpu",
        "precision": "fp32",
    }
    return resolve_config(options | changes)


@pytest.mark.parametrize(
    ("changes", "is_compiled"),
    [
        ({"num_steps": 1 << 40}, True),
        ({"num_steps": 10}, False),
        ({"num_steps": 10, "compile": True}, True),
        ({"num_steps": 1 << 40, "compile": False}, False),
    ],
    ids=["long", "short", "short, asked for", "long, not wanted"],
)
def test_kernels_are_those_of_the_run(
    counter: CompileCounterWithBackend, changes: dict[str, Any], is_compiled: bool
) -> None:
    said: list[str] = []
    reported: list[Progress] = []
    rate = measure_rate(
        a_run(**changes), SHAPE, limit_s=60.0, notify=said.append, progress=reported.append
    )
    assert f", fp32, {'compiled' if is_compiled else 'eager'}; " in rate.source
    assert (COMPILING in said) is is_compiled
    assert bool(counter.frame_count) is is_compiled
    assert ("compiling, " in rate.source) is is_compiled
    assert [each.done for each in reported] == list(range(1, len(reported) + 1))
    assert len(reported) > 1


class SlowFirst:
    """A loss that takes its time when it is first computed, as one that is being compiled."""

    def __init__(self, run: PreparedRun, *, first_s: float) -> None:
        self._summed_loss, self._first_s = run.summed_loss, first_s
        self.num_calls = 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not self.num_calls:
            time.sleep(self._first_s)
        self.num_calls += 1
        return self._summed_loss(*arguments, **named)


@pytest.mark.parametrize("is_compiled", [True, False])
def test_compiling_is_no_part_of_a_step(
    run_data: RunData, tmp_path: Path, is_compiled: bool
) -> None:
    """A first step beyond the limit says nothing of the others where it compiles, else all."""
    config = run_data.config(tmp_path / "run", grad_accum=1)
    run = prepare(config, open_inputs(config), notify=lambda _text: None)
    loss = SlowFirst(run, first_s=0.5)
    planted = replace(
        run,
        summed_loss=loss,
        acceleration=replace(run.acceleration, compiled=is_compiled),
    )
    found = re.search(r"the median of (\d+) step", measure_prepared(planted, limit_s=0.4).source)
    assert found
    num_timed = int(found[1])
    assert num_timed == (loss.num_calls - 1 if is_compiled else loss.num_calls)
    assert (loss.num_calls > 1) is is_compiled


def num_kept(config: TrainConfig) -> int:
    """Tensors that forward passes keep while a rate is measured."""
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        measure_rate(config, SHAPE, limit_s=60.0)
    return len(kept)


def test_what_a_run_computes_twice_is_computed_twice() -> None:
    twice, once = (
        num_kept(a_run(num_steps=10, activation_checkpointing=recomputed))
        for recomputed in (True, False)
    )
    assert 0 < twice < once
