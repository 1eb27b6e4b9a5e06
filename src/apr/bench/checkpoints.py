"""What a checkpoint costs the training beside it, by whatever it costs it.

The same steps are taken without a checkpoint, with one written beside them as `apr pretrain` does,
with one that is waited for, and, as a peer, with weights and moments put into one safetensors file.
The difference to the neighbour without one is the cost. On a busy machine that is noise; `at most`
counts every second of stalling and of writing as lost.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

import apr
from apr.bench.reference import Workload
from apr.bench.rounds import STEPS_PER_CHECKPOINT
from apr.bench.side import memory_refusals, num_parameters, wait_for
from apr.bench.training import Training, training
from apr.progress import Progress, Report, silent
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.train import train_bpe
from apr.train.checkpoint import checkpoint_dir
from apr.train.checkpoint_writer import CheckpointWriter
from apr.train.optimizer import state_tensors

NONE, BESIDE, WAITED, PLAIN = "none", "beside", "waited for", "plain"
PEERS = {PLAIN: "one safetensors file of weights and moments, waited for, not read back"}


@dataclass(frozen=True)
class Segment:
    """Some steps and at most one checkpoint."""

    elapsed_s: float
    stall_s: float
    """Of them, those in which no step was taken for the checkpoint's sake."""
    background_s: float
    written_bytes: int


@dataclass(frozen=True)
class CheckpointRounds:
    """Every way of saving once per round."""

    num_parameters: int
    device_name: str
    num_steps: int
    rounds: list[dict[str, Segment]]


def measure_checkpoints(
    work: Workload,
    *,
    ways: Sequence[str],
    num_rounds: int,
    directory: Path | None,
    progress: Report = silent,
) -> CheckpointRounds:
    """Take the steps of a workload with every way of saving, in turn, in this process.

    Refuses: bench.out-of-memory, files.io-failed, and as `training`.
    Writes: a scratch directory below `directory`, gone afterwards.
    """
    with (
        memory_refusals("apr bench checkpoint"),
        tempfile.TemporaryDirectory(prefix="apr-bench-", dir=directory) as scratch,
        training(work) as run,
        CheckpointWriter(
            Path(scratch),
            run.model,
            run.optimizer,
            tokenizer=small_tokenizer(),
            keep=2,
            before_writing=lambda: None,
        ) as writer,
    ):
        saver = _Saver(run, writer, Path(scratch), work.num_steps)
        saver.take_steps(work.num_warmup_steps)
        # The first checkpoint takes the memory that later ones use again.
        saver.segment(BESIDE)
        rounds: list[dict[str, Segment]] = []
        for number in range(num_rounds):
            progress(Progress("saving and training", number, num_rounds, "rounds"))
            # Every way follows every other.
            first = number % len(ways)
            rounds.append({way: saver.segment(way) for way in [*ways[first:], *ways[:first]]})
        progress(Progress("saving and training", num_rounds, num_rounds, "rounds"))
        name = run.acceleration.environment()["device_name"]
        return CheckpointRounds(num_parameters(run.model), name, work.num_steps, rounds)


class _Saver:
    """Takes steps and saves."""

    def __init__(
        self, run: Training, writer: CheckpointWriter, directory: Path, num_steps: int
    ) -> None:
        self._run = run
        self._writer = writer
        self._directory = directory
        self._num_steps = num_steps

    def take_steps(self, count: int) -> None:
        for _ in range(count):
            self._run.step()
        wait_for(self._run.acceleration.device)

    def segment(self, way: str) -> Segment:
        """One checkpoint at most, then the steps, until both are done."""
        state = self._run.state
        stall_s, background_s, step = state.checkpoint_s, state.checkpoint_write_s, state.step
        started_s, written_bytes = time.perf_counter(), 0
        if way in (BESIDE, WAITED):
            self._writer.save(state, provenance=[])
        if way == WAITED:
            self._writer.wait(state)
        if way == PLAIN:
            written_bytes = self._save_plain()
            state.checkpoint_s += time.perf_counter() - started_s
        self.take_steps(self._num_steps)
        self._writer.wait(state)
        elapsed_s = time.perf_counter() - started_s
        if way in (BESIDE, WAITED):
            written_bytes = _size_bytes(checkpoint_dir(self._directory, step))
        return Segment(
            elapsed_s,
            state.checkpoint_s - stall_s,
            state.checkpoint_write_s - background_s,
            written_bytes,
        )

    def _save_plain(self) -> int:
        tensors = dict(self._run.model.named_parameters())
        tensors |= state_tensors(self._run.model, self._run.optimizer)
        path = self._directory / "plain.safetensors"
        save_file({name: each.detach().contiguous() for name, each in tensors.items()}, path)
        with path.open("rb") as written:
            os.fsync(written.fileno())
        return path.stat().st_size


def summarize_checkpoints(measured: CheckpointRounds) -> dict[str, Any]:
    """What each way of saving costs, and the share of a run with a checkpoint every 200 steps."""
    rounds = measured.rounds
    step_s = statistics.median(each[NONE].elapsed_s for each in rounds) / measured.num_steps
    return {
        "num_parameters": measured.num_parameters,
        "device_name": measured.device_name,
        "step_s": step_s,
        "steps_per_checkpoint": STEPS_PER_CHECKPOINT,
        "ways": {
            way: _costs(
                way, [each[way] for each in rounds], [each[NONE] for each in rounds], step_s
            )
            for way in rounds[0]
            if way != NONE
        },
    }


def _costs(
    way: str, segments: Sequence[Segment], without: Sequence[Segment], step_s: float
) -> dict[str, Any]:
    costs_s = [
        segment.elapsed_s - bare.elapsed_s for segment, bare in zip(segments, without, strict=True)
    ]
    stall_s = statistics.median(each.stall_s for each in segments)
    background_s = statistics.median(each.background_s for each in segments)
    written_bytes = statistics.median(each.written_bytes for each in segments)
    # At worst no step is taken while a checkpoint is written beside the training.
    worst_s = stall_s + background_s if way == BESIDE else stall_s
    run_s = STEPS_PER_CHECKPOINT * step_s
    return {
        "cost_s": statistics.median(costs_s),
        "costs_s": costs_s,
        "fraction": statistics.median(costs_s) / run_s,
        "fraction_at_most": worst_s / run_s,
        "stall_s": stall_s,
        "stall_fraction": stall_s / run_s,
        "written_s": background_s or stall_s,
        "written_bytes": int(written_bytes),
        "bytes_per_s": written_bytes / (background_s or stall_s),
    }


def _size_bytes(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.iterdir())


def small_tokenizer() -> Tokenizer:
    """Any tokenizer; it is a small part of a checkpoint."""
    sources = sorted((Path(apr.__file__).parent / "train").glob("*.py"))
    return train_bpe((path.read_text(encoding="utf-8") for path in sources), vocab_size=512)
