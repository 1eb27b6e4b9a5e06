"""What a run is said to take of a disk, against the run directory it then writes."""

from pathlib import Path

import pytest
from tests.run_data import VOCAB_SIZE, RunData

from apr.architecture import preset
from apr.jobs.pretrain import pretrain
from apr.train.config import TrainConfig
from apr.train.disk import DiskEstimate, estimate_disk, free_bytes


def estimate(config: TrainConfig, data: RunData) -> DiskEstimate:
    shape = preset(config.arch, tokenizer_vocab_size=VOCAB_SIZE)
    size_bytes = (data.tokenizer / "tokenizer.json").stat().st_size
    return estimate_disk(config, shape, tokenizer_bytes=size_bytes)


def taken(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def test_a_run_directory_is_as_large_as_it_was_said_to_be(
    run_data: RunData, tmp_path: Path
) -> None:
    config = run_data.config(tmp_path / "run", arch="demo", num_steps=4, keep=3)
    said = estimate(config, run_data)
    pretrain(config)
    checkpoints = sorted((config.run_dir / "checkpoints").iterdir())
    assert said.num_held == len(checkpoints) == 2
    for checkpoint in checkpoints:
        assert taken(checkpoint) == pytest.approx(said.checkpoint_bytes, rel=0.01)
    assert taken(config.run_dir) == pytest.approx(said.end_bytes, rel=0.02)


def test_one_more_checkpoint_is_there_while_it_is_written(
    run_data: RunData, tmp_path: Path
) -> None:
    many = estimate(run_data.config(tmp_path, num_steps=100, eval_every=10, keep=2), run_data)
    # Two latest, the best, and the one in writing.
    assert many.num_held == 3
    assert many.peak_bytes == pytest.approx(4 * many.checkpoint_bytes, rel=0.03)
    few = estimate(run_data.config(tmp_path, num_steps=10, eval_every=10, keep=2), run_data)
    assert few.num_held == 1
    assert few.peak_bytes < 1.5 * few.checkpoint_bytes
    more = estimate(run_data.config(tmp_path, num_steps=100, eval_every=10, keep=6), run_data)
    assert more.peak_bytes - many.peak_bytes == pytest.approx(4 * many.checkpoint_bytes, rel=1e-3)


def test_free_space_is_of_the_nearest_place_that_exists(tmp_path: Path) -> None:
    found = free_bytes(tmp_path / "not" / "yet" / "there")
    assert found is not None
    assert found[1] == tmp_path
    assert found[0] > 0
