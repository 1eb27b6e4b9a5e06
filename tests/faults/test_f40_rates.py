"""F40: rates of training that no device can have, or that are not of the work they are called."""

import math
from typing import Any

import pytest
from tests.bench_sides import H200, ceiling, side, tiny_work

from apr.bench.peaks import BF16_FLOPS_PER_S, published_peak
from apr.bench.reference import REFERENCE
from apr.bench.rounds import summarize
from apr.bench.utilization import Utilization, utilization


def judged(tokens_per_s: float, **changes: Any) -> Utilization:
    facts = {"ceiling": ceiling(), "num_parameters": REFERENCE.num_parameters} | changes
    return utilization(tokens_per_s, REFERENCE, sequence_length=256, **facts)


def tokens_per_s_at(flops_per_s: float) -> float:
    """The rate at which the reference model would do so many FLOPs, attention in full."""
    return flops_per_s / REFERENCE.training_flops_per_token(256, convention="conventional")


def test_a_rate_above_the_measured_ceiling_is_marked() -> None:
    use = judged(tokens_per_s_at(1.01e12))
    assert not use.is_valid
    assert use.conventional == pytest.approx(1.01)
    assert "above the measured ceiling of 1e+12" in use.invalid[0]


def test_a_rate_below_the_measured_ceiling_passes() -> None:
    use = judged(tokens_per_s_at(0.99e12))
    assert use.is_valid
    assert use.conventional == pytest.approx(0.99)
    assert use.causal is not None
    assert use.causal < use.conventional


@pytest.mark.parametrize("name", ["NVIDIA H200 NVL", "nvidia h200", "", "AMD Instinct MI300X"])
def test_an_unknown_name_has_no_sheet(name: str) -> None:
    use = judged(1000.0, ceiling=ceiling(device_name=name))
    assert use.sheet_flops_per_s is None
    assert use.conventional_of_sheet is None
    assert use.causal_of_sheet is None
    assert repr(name) in use.sheet_reason


def test_a_known_name_passes_with_its_own_sheet() -> None:
    use = judged(tokens_per_s_at(494.75e12), ceiling=ceiling(780e12, device_name=H200))
    assert use.is_valid
    assert use.conventional_of_sheet == pytest.approx(0.5)
    assert use.conventional == pytest.approx(494.75 / 780)


def test_a_device_counted_as_another_is_marked() -> None:
    """An H200 that is taken for an A100: what it reaches is above that sheet."""
    use = judged(
        tokens_per_s_at(400e12), ceiling=ceiling(780e12, device_name="NVIDIA A100-SXM4-80GB")
    )
    assert [("the sheet" in why) for why in use.invalid] == [True, True]


def test_without_a_ceiling_there_is_no_share() -> None:
    use = judged(1000.0, ceiling=ceiling(None, device_name=H200))
    assert use.conventional is None
    assert use.causal is None
    assert use.reason == "no MFU: measured by nobody"
    assert use.conventional_of_sheet is not None


def test_fp32_has_no_sheet() -> None:
    """A sheet's fp32 figure depends on TF32, which a name does not tell."""
    assert published_peak(H200, "fp32")[0] is None
    assert published_peak(H200, "bf16")[0] == BF16_FLOPS_PER_S[H200]


def test_flops_counted_for_another_model_are_marked() -> None:
    doubled = REFERENCE.num_parameters + REFERENCE.vocab_size * REFERENCE.hidden_size
    assert "parameters were trained" in judged(1000.0, num_parameters=doubled).invalid[0]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"mean_loss_nats": math.log2(4096)}, "a mean loss of 12"),
        ({"mean_loss_nats": 1.0}, "a mean loss of 1 "),
        ({"mean_loss_nats": math.nan}, "a mean loss of nan"),
        ({"weights_moved": False}, "the weights are those of before"),
        ({"num_parameters": 1}, "1 parameters were trained"),
        ({"step_s": (1e-9, 1e-9)}, "above the measured ceiling"),
        ({"gradients": {"verdict": "FAIL", "found": "planted"}}, "preflight.gradients: planted"),
        ({"gradients": {"verdict": "UNKNOWN", "found": "none"}}, "preflight.gradients: none"),
    ],
)
def test_a_side_that_did_other_work_has_no_ratio(fault: dict[str, Any], said: str) -> None:
    """Steps that did nothing, a loss in bits, another model: fast, and worth nothing."""
    work = tiny_work()
    facts = summarize(work, [{"apr": side(work), "peer": side(work, **fault)}])
    assert facts["sides"]["apr"]["valid"]
    assert not facts["sides"]["peer"]["valid"]
    assert not facts["valid"]
    assert said in facts["sides"]["peer"]["invalid"][0]
    assert facts["ratios"]["peer"]["median"] is None
    assert said in facts["ratios"]["peer"]["reason"]


def test_sides_that_did_the_same_work_pass() -> None:
    work = tiny_work()
    slower = side(work, step_s=(1.0, 1.0, 1.2))
    facts = summarize(work, [{"apr": side(work), "peer": slower}] * 3)
    assert facts["valid"]
    assert facts["ratios"]["peer"] == {"median": 2.0, "by_round": [2.0] * 3, "reason": None}
    assert facts["sides"]["apr"]["tokens_per_s"] == work.config.batch_tokens / 0.5
