"""F06: parameters that were never initialised, or wrongly.

The faults are planted through `weights`, `prepare`'s own seam for whoever brings them.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.run_data import RunData

from apr.architecture import Architecture
from apr.model.init import declared_std, initialize
from apr.model.transformer import Transformer
from apr.train.gates import Gate
from apr.train.inputs import open_inputs
from apr.train.prepare import judge_model, prepare
from apr.train.start import Weights

NORM = "model.layers.1.post_attention_layernorm.weight"
DOWN, UP = "model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.up_proj.weight"
Bring = Callable[[Architecture], Weights]


def judged(run_data: RunData, run_dir: Path, bring: Bring | None) -> dict[str, Gate]:
    config = run_data.config(run_dir)
    inputs = open_inputs(config, verify=False)
    weights = bring(inputs.architecture) if bring else None
    run = prepare(config, inputs, notify=lambda _text: None, weights=weights)
    return {gate.id: gate for gate in judge_model(run).gates}


def filled_and(spoil: Callable[[Transformer], object]) -> Bring:
    def bring(architecture: Architecture) -> Weights:
        model = Transformer(architecture)
        initialize(model, seed=1)
        with torch.no_grad():
            spoil(model)
        return model.named_parameters()

    return bring


def _norm_left_as_allocated(model: Transformer) -> None:
    # A model is made of NaN until it is filled.
    left = Transformer(model.architecture).get_parameter(NORM)
    assert bool(left.isnan().all())
    model.get_parameter(NORM).copy_(left)


def _plain_instead_of_scaled_by_depth(model: Transformer) -> None:
    plain, scaled = (declared_std(name, model.architecture) for name in (UP, DOWN))
    assert plain is not None
    assert scaled is not None
    model.get_parameter(DOWN).mul_(plain / scaled)


def _zeros_instead_of_ones(model: Transformer) -> None:
    model.get_parameter(NORM).zero_()


def _shifted(model: Transformer) -> None:
    model.get_parameter(UP).add_(0.01)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_norm_left_as_allocated, "nan"),
        (_plain_instead_of_scaled_by_depth, DOWN),
        (_zeros_instead_of_ones, NORM),
        (_shifted, UP),
    ],
)
def test_a_parameter_that_is_not_as_declared_keeps_a_run_from_starting(
    run_data: RunData, tmp_path: Path, spoil: Callable[[Transformer], object], named: str
) -> None:
    gate = judged(run_data, tmp_path / "run", filled_and(spoil))["preflight.init-loss"]
    assert gate.verdict == "FAIL"
    assert named in gate.found


@pytest.mark.parametrize("bring", [None, filled_and(lambda _model: None)])
def test_the_harmless_twin(run_data: RunData, tmp_path: Path, bring: Bring | None) -> None:
    gates = judged(run_data, tmp_path / "run", bring)
    assert {gate.verdict for gate in gates.values()} == {"PASS"}
