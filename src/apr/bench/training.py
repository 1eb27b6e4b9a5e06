"""apr's own side: the step of `apr pretrain`, with the choices a long run would make here."""

import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from apr.bench.made_up_shards import write_made_up_shards
from apr.bench.parts import Parts, sum_parts
from apr.bench.profiling import named_kernels, profile_steps
from apr.bench.reference import Workload
from apr.bench.side import (
    Side,
    measured_side,
    memory_refusals,
    time_steps,
    wait_for,
    watch_weights,
)
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.progress import Progress, Report, silent
from apr.train.acceleration import Acceleration, choose_acceleration
from apr.train.allocator import keep_freed_memory
from apr.train.batches import TokenRows
from apr.train.gates import judge
from apr.train.gradients_gate import check_gradients
from apr.train.mixture import BatchOrder, Mixture
from apr.train.optimizer import build_optimizer
from apr.train.repeatable import repeatable
from apr.train.snapshot import SnapshotMemory, take_snapshot
from apr.train.step import train_step
from apr.train.train_state import TrainState

# Small, so that random weights stay random; not zero, so that the optimizer has work to do.
_LEARNING_RATE = 1e-4
_MOST_TOKENS = 1 << 22
_PROFILED_STEPS = 3


class Training:
    """A fresh model, its optimizer and its batches; `step` takes one update."""

    def __init__(self, work: Workload, acceleration: Acceleration, shards: Path) -> None:
        config, shape = work.config, work.architecture
        num_tokens = min(
            _MOST_TOKENS, (work.num_warmup_steps + work.num_steps) * config.batch_tokens
        )
        reader = write_made_up_shards(
            shards, vocab_size=shape.vocab_size, num_tokens=max(num_tokens, config.batch_tokens) + 1
        )
        rows = TokenRows(reader, 0, reader.num_tokens, config.seq_length)
        self.work = work
        self.acceleration = acceleration
        self.order = BatchOrder(Mixture((rows,), (Fraction(1),)), config.batch_size, config.seed)
        self.model = Transformer(shape)
        initialize(self.model, seed=config.seed)
        acceleration.apply_to(self.model)
        self.model.model.recomputes_blocks = bool(config.activation_checkpointing)
        self.model.to(acceleration.device)
        self.summed_loss = acceleration.loss_function()
        self.optimizer = build_optimizer(self.model, config)
        self.state = TrainState()
        self.data_wait_s: list[float] = []

    def step(self) -> float:
        """One update; its loss in nats."""
        config, started_s = self.work.config, time.perf_counter()
        self.state.step += 1
        micro_batches = self.order.batch(self.state.step).split(config.num_micro_batches)
        self.data_wait_s.append(time.perf_counter() - started_s)
        result = train_step(
            self.model,
            self.optimizer,
            micro_batches,
            step=self.state.step,
            learning_rate=_LEARNING_RATE,
            max_grad_norm=config.max_grad_norm,
            document_mask=config.document_mask,
            summed_loss=self.summed_loss,
        )
        self.state.tokens_seen += result.num_tokens
        return result.loss_nats

    def judge_gradients(self) -> dict[str, Any]:
        """The verdict of preflight.gradients on the kernels that `step` uses."""
        batch = self.order.batch(1).split(self.work.config.num_micro_batches)[0]
        gate = judge(
            "preflight.gradients",
            lambda: check_gradients(
                self.model,
                batch,
                accelerated_loss=self.summed_loss,
                document_mask=self.work.config.document_mask,
            ),
        )
        return gate.as_record()

    def copy_s(self) -> float:
        """Seconds that a copy for a checkpoint takes, into memory that is there already."""
        memory, times_s = SnapshotMemory(), list[float]()
        for _ in range(2):
            started_s = time.perf_counter()
            take_snapshot(self.model, self.optimizer, self.state, memory=memory).settle()
            times_s.append(time.perf_counter() - started_s)
        memory.release()
        return times_s[-1]

    def parts(self, *, progress: Report = silent) -> Parts:
        """Where the time of a step goes, by a profile; compiles once more where kernels are."""
        device = self.acceleration.device
        with named_kernels():
            progress(Progress("profiling apr", 0, _PROFILED_STEPS, "steps"))
            self.summed_loss = self.acceleration.loss_function()
            for _ in range(2):
                self._waited_step()
            before = len(self.data_wait_s)
            operations, elapsed_s = profile_steps(
                self._waited_step, device, num_steps=_PROFILED_STEPS
            )
        return sum_parts(
            operations,
            self.work.architecture,
            sequence_length=self.work.config.seq_length,
            micro_batch_tokens=self.work.micro_batch_size * self.work.config.seq_length,
            num_steps=_PROFILED_STEPS,
            elapsed_s=elapsed_s,
            data_wait_s=sum(self.data_wait_s[before:]),
        )

    def _waited_step(self) -> None:
        self.step()
        wait_for(self.acceleration.device)


@contextmanager
def training(work: Workload) -> Generator[Training]:
    """The training of a workload, in a scratch directory that is gone afterwards.

    Refuses: config.device-unavailable, config.no-compiler.
    """
    keep_freed_memory()
    with (
        repeatable(work.config.device, seed=work.config.seed),
        tempfile.TemporaryDirectory(prefix="apr-bench-") as scratch,
    ):
        acceleration = choose_acceleration(work.config, work.architecture)
        yield Training(work, acceleration, Path(scratch) / "shards")


def measure_apr(work: Workload, *, thorough: bool, progress: Report = silent) -> Side:
    """Time apr's steps; `thorough` also judges the kernels, and says where the time goes.

    Refuses: config.device-unavailable, config.no-compiler, bench.out-of-memory.
    """
    with memory_refusals("apr"), training(work) as run:
        device = run.acceleration.device
        moved = watch_weights(run.model)
        timed = time_steps(run.step, work, device, name="apr", progress=progress)
        environment = run.acceleration.environment()
        side = measured_side(
            timed,
            run.model,
            moved,
            device,
            run.acceleration.compute_dtype,
            settings={
                key: environment[key]
                for key in ("precision", "compiled", "attention", "threads", "device", "torch")
            },
            data_wait_s=tuple(run.data_wait_s[work.num_warmup_steps :]),
        )
        side = replace(side, what="the step of apr pretrain", copy_s=run.copy_s())
        if not thorough:
            return side
        gradients = run.judge_gradients()
        return replace(side, gradients=gradients, parts=run.parts(progress=progress))
