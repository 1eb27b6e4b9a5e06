"""The share of its ceiling that a run reached: of the highest over its sittings, or none at all."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.run_data import RunData

from apr.errors import Interrupted
from apr.jobs.pretrain import pretrain
from apr.jobs.resume import resume
from apr.jobs.sitting import Listener

# So long that a quarter of a second is nothing; it is stopped after two steps.
LONG = {"num_steps": 1 << 20, "eval_every": 1 << 10}


def stopping_listener() -> Listener:
    asked = iter(range(1 << 20))
    return Listener(should_stop=lambda: next(asked) > 2)


def record_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "run.json").read_bytes())


@pytest.fixture(scope="module")
def stopped(run_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("long") / "run"
    with pytest.raises(Interrupted):
        pretrain(run_data.config(run_dir, **LONG), listener=stopping_listener())
    return run_dir


def test_a_long_run_has_a_share_of_its_ceiling(stopped: Path) -> None:
    throughput = record_of(stopped)["throughput"]
    assert throughput["mfu_reason"] is throughput["mfu_causal_reason"] is None
    assert 0.0 < throughput["mfu_causal"] < throughput["mfu"] <= 1.0
    assert throughput["matmul_ceiling"]["precision"] == "fp32"
    assert throughput["matmul_ceiling"]["flops_per_s"] > 1e6


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ({"device_name": "another device"}, "different devices"),
        ({"precision": "bf16"}, "different devices, or in different precisions"),
        ({"flops_per_s": None}, None),
        ({"flops_per_s": 1.0}, None),
        ({"flops_per_s": 1e30}, None),
    ],
)
def test_sittings_share_one_ceiling_or_have_none(
    stopped: Path, planted: dict[str, Any], said: str | None
) -> None:
    record = record_of(stopped)
    healthy = dict(record["throughput"]["matmul_ceiling"])
    record["throughput"]["matmul_ceiling"] |= planted
    (stopped / "run.json").write_text(json.dumps(record))
    with pytest.raises(Interrupted):
        resume(stopped, listener=stopping_listener())
    throughput = record_of(stopped)["throughput"]
    if said is None:
        highest = max(planted["flops_per_s"] or 0.0, 1e6)
        assert throughput["matmul_ceiling"]["flops_per_s"] >= highest
        assert 0.0 < throughput["mfu"] <= 1.0
    else:
        assert throughput["mfu"] is throughput["mfu_causal"] is None
        assert said in throughput["mfu_reason"]
    record = record_of(stopped)
    record["throughput"]["matmul_ceiling"] = healthy
    (stopped / "run.json").write_text(json.dumps(record))


def test_a_short_run_says_why_it_has_none(run_data: RunData, tmp_path: Path) -> None:
    throughput = pretrain(run_data.config(tmp_path / "run", num_steps=2))["throughput"]
    assert throughput["mfu"] is throughput["matmul_ceiling"] is None
    assert "too short" in throughput["mfu_reason"]
    assert "too short" in throughput["matmul_ceiling_reason"]
