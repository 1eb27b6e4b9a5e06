"""F40: figures of a run that cannot be true: times, counts, units."""

import json
import math
import time
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.run_data import RunData

from apr.container.reader import Container
from apr.errors import Refusal
from apr.jobs.pretrain import pretrain
from apr.jobs.reopen import require_same_loss


@pytest.fixture(scope="module")
def finished(run_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    pretrain(run_data.config(run_dir))
    return run_dir


def record_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "run.json").read_text())


def steps_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "steps.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0])
def test_a_clock_that_is_set_while_a_run_is_timed(
    run_data: RunData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    """Durations come from a clock that nobody can set."""
    readings = count(1)
    began_s = time.monotonic()
    monkeypatch.setattr(time, "time", lambda: 1e9 + jump_s * next(readings))
    record = pretrain(run_data.config(tmp_path / "run"))
    whole_s = time.monotonic() - began_s
    lines = steps_of(tmp_path / "run")
    elapsed_s = [line["elapsed_s"] for line in lines if line["kind"] == "step"]
    assert len(elapsed_s) == 8
    assert all(before <= after for before, after in pairwise([0.0, *elapsed_s, whole_s]))
    throughput = record["throughput"]
    assert throughput["tokens_per_s"] >= throughput["tokens_per_s_end_to_end"]
    assert throughput["tokens_per_s_end_to_end"] >= record["tokens_seen"] / whole_s
    assert 0.0 <= throughput["data_wait_fraction"] <= 1.0
    assert 0.0 <= throughput["checkpoint_fraction"] <= 1.0


def test_parameters_are_counted_in_the_file_that_is_shipped(finished: Path) -> None:
    shape = record_of(finished)["architecture"]
    with Container.open(finished / "model.apr") as container:
        counted = sum(math.prod(tensor.shape) for tensor in container.tensors.values())
    assert shape["tie_word_embeddings"], "a tied model is where a formula counts twice"
    assert shape["num_parameters"] == counted
    assert counted + shape["vocab_size"] * shape["hidden_size"] != shape["num_parameters"]


def test_a_loss_in_bits_is_not_taken_for_one_in_nats(finished: Path, run_data: RunData) -> None:
    val = record_of(finished)["val"]
    config = run_data.config(finished)
    bits = val["best_loss_nats"] / math.log(2)
    assert val["bits_per_byte"] == pytest.approx(bits * val["num_tokens"] / val["text_bytes"])
    with pytest.raises(Refusal) as refused:
        require_same_loss(
            finished / "model.apr", config, recorded_nats=bits, set_sha256=val["set_sha256"]
        )
    assert refused.value.id == "model.loss-differs"


def test_a_share_of_the_peak_is_measured_or_null_with_a_reason(finished: Path) -> None:
    throughput = record_of(finished)["throughput"]
    assert (throughput["mfu"] is None) == bool(throughput["mfu_reason"])
    assert throughput["mfu"] is None or 0.0 < throughput["mfu"] <= 1.0


def test_tokens_seen_are_those_that_were_trained_on(finished: Path) -> None:
    record = record_of(finished)
    lines = steps_of(finished)
    assert record["tokens_seen"] == sum(x["tokens"] for x in lines if x["kind"] == "step") > 0
    assert record["tokens_seen"] < record["unique_tokens"]
    assert record["epochs_over_data"] == pytest.approx(
        record["tokens_seen"] / record["unique_tokens"], rel=1e-2
    )


def test_nothing_is_predicted_of_a_device_without_known_rates(finished: Path) -> None:
    record = record_of(finished)
    assert record["environment"]["device"] == "cpu"
    assert "predicted" not in record
