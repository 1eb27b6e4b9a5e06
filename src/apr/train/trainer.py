"""The loop: steps, periodic validation, checkpoints, and the word the run ends with.

Everything that decides a step is in `TrainState`, the weights and the optimizer; a run that is
stopped at any point and resumed goes through the same states as one that was not.
"""

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from apr.progress import Progress, Report
from apr.train.batches import Batch
from apr.train.checkpoint_writer import CheckpointWriter
from apr.train.guards import require_finite_weights
from apr.train.origin import Origin
from apr.train.prefetch import Batches
from apr.train.prepare import PreparedRun
from apr.train.run_record import StepLog
from apr.train.same_run import EVERY_STEPS, require_same_run
from apr.train.schedule import learning_rate_at
from apr.train.skipped_step import skipped_step_dir
from apr.train.skipping import keep_skipped
from apr.train.step import StepNotApplied, StepResult, train_step
from apr.train.train_state import Ending, TrainState
from apr.train.validation import ValidationResult
from apr.train.validation_verdict import judge_validation


@dataclass(frozen=True)
class Trainer:
    """One run under way."""

    run: PreparedRun
    run_dir: Path
    optimizer: torch.optim.Optimizer
    origin: Origin
    log: StepLog
    checkpoints: CheckpointWriter
    batches: Batches
    """This rank's part of each batch."""
    progress: Report
    notify: Callable[[str], None]

    def train(
        self,
        state: TrainState,
        *,
        should_stop: Callable[[], bool],
        should_save: Callable[[], bool],
    ) -> Ending:
        """Go on from `state` until target, patience, budget or a request to stop.

        Refuses: train.non-finite, train.gradient-spike, train.non-finite-weights, train.diverged,
        train.non-finite-validation, files.io-failed.
        Writes: steps.jsonl, checkpoints/ and skipped/ in the run directory.
        """
        config = self.run.config
        # Before there were mixtures a run had one source, and its checkpoints no such list.
        if not state.tokens_by_source:
            num_sources = len(self.run.inputs.train)
            state.tokens_by_source = [state.tokens_seen] if num_sources == 1 else [0] * num_sources
        if state.step == 0:
            state.start_loss_nats = self._validate(state).loss_nats
        ranks = self.run.ranks
        require_same_run(self.run, self.optimizer, state)
        while state.ended is None:
            stop, save = ranks.any(should_stop(), should_save())
            if stop:
                self._checkpoint(state)
                self.checkpoints.wait(state)
                return "interrupted"
            if save:
                self._checkpoint(state)
                self.notify(f"step {state.step} is being saved: {self.run_dir}/checkpoints")
            self._one_step(state)
            self.checkpoints.poll(state)
            if state.step % EVERY_STEPS == 0:
                require_same_run(self.run, self.optimizer, state)
            is_due = state.step % (config.checkpoint_every or config.eval_every) == 0
            if state.step == config.num_steps or state.step % config.eval_every == 0:
                judge_validation(self.run, state, self._validate(state), progress=self.progress)
                is_due |= state.best_step == state.step
            # The verdict is saved with the step: a run killed while it ends must end the same way.
            if is_due or state.ended:
                self._checkpoint(state)
        self.checkpoints.wait(state)
        # What the first rank has written, the others read at the end of the run.
        ranks.wait()
        return state.ended

    def _one_step(self, state: TrainState) -> None:
        config, started_s = self.run.config, time.monotonic()
        state.step += 1
        batch = self.batches.batch(state.step)
        micro_batches = batch.split(config.num_micro_batches)
        data_s = time.monotonic() - started_s
        try:
            result = self._applied(micro_batches, state)
        except StepNotApplied as refusal:
            self._skip(state, refusal)
            result = None
        state.data_s += data_s
        state.train_s += time.monotonic() - started_s
        if result is not None:
            self._log_step(state, result)

    def _applied(self, micro_batches: Sequence[Batch], state: TrainState) -> StepResult:
        config = self.run.config
        result = train_step(
            self.run.model,
            self.optimizer,
            micro_batches,
            step=state.step,
            learning_rate=learning_rate_at(state.step, config),
            max_grad_norm=config.max_grad_norm,
            largest_grad_norm=state.guard.largest_grad_norm(
                spike_factor=config.spike_factor, max_grad_norm=config.max_grad_norm
            ),
            document_mask=config.document_mask,
            summed_loss=self.run.shared_loss or self.run.summed_loss,
            exchange=self.run.exchange,
        )
        state.tokens_seen += result.num_tokens
        state.tokens_by_source = self._added_by_source(state, micro_batches)
        state.guard.applied(result.grad_norm)
        return result

    def _log_step(self, state: TrainState, result: StepResult) -> None:
        self.log.append(
            "step",
            step=state.step,
            loss_nats=result.loss_nats,
            grad_norm=result.grad_norm,
            lr_applied=result.lr_applied,
            tokens=result.num_tokens,
            elapsed_s=round(state.elapsed_s, 4),
        )
        best = "" if state.best_loss_nats is None else f"  held-out {state.best_loss_nats:.3f}"
        self.progress(
            Progress(
                "training",
                state.tokens_seen,
                self.run.config.planned_tokens,
                "tokens",
                f"step {state.step} of {self.run.config.num_steps}  "
                f"loss {result.loss_nats:.3f}{best}",
            )
        )

    def _skip(self, state: TrainState, refusal: StepNotApplied) -> None:
        """Keep the batch of a step that was not applied, and go on or give up."""
        config = self.run.config
        require_finite_weights(self.run.model, step=state.step, ranks=self.run.ranks)
        state.guard.skipped(state.step)
        directory = skipped_step_dir(self.run_dir, state.step)
        keep_skipped(directory, self.run, state, refusal, self.origin)
        self.log.append("skip", step=state.step, id=refusal.id, found=refusal.found)
        num_skipped = state.guard.num_skipped_lately(state.step)
        replay = f"apr selftest --replay {shlex.quote(str(directory))}"
        if num_skipped > config.max_skipped_steps:
            refusal.found += f"; {num_skipped} of the last hundred steps were not applied"
            refusal.expected += f"; at most {config.max_skipped_steps} such steps"
            refusal.fix = f"compute it again: {replay}; {refusal.fix}"
            raise refusal
        self.notify(f"step {state.step} was not applied: {refusal.found}; see {replay}")

    def _added_by_source(self, state: TrainState, micro_batches: Sequence[Batch]) -> list[int]:
        """The tokens of every source after these batches, which were trained on."""
        num_sources = len(self.run.inputs.train)
        counts = [batch.counted_tokens_by_source(num_sources) for batch in micro_batches]
        added = self.run.ranks.total(np.array(counts, np.int64).sum(axis=0))
        by_source = [
            seen + int(new) for seen, new in zip(state.tokens_by_source, added, strict=True)
        ]
        assert sum(by_source) == state.tokens_seen, "tokens by source are not the tokens seen"
        return by_source

    def _validate(self, state: TrainState) -> ValidationResult:
        started_s = time.monotonic()
        result = self.run.validate(
            self.run.periodic_set, activity="validating", progress=self.progress
        )
        state.validation_s += time.monotonic() - started_s
        self.log.append(
            "val",
            step=state.step,
            loss_nats=result.loss_nats,
            bits_per_byte=result.bits_per_byte,
            num_tokens=result.num_tokens,
            set_sha256=result.set_sha256,
            **result.standard_error_facts(),
        )
        return result

    def _checkpoint(self, state: TrainState) -> None:
        # Before the first update there is no optimizer state, and nothing to lose.
        if state.step == 0:
            return
        require_same_run(self.run, self.optimizer, state)
        self.checkpoints.save(
            state,
            provenance=self.origin.chain(
                self.run.inputs, "checkpoint", step=state.step, tokens_seen=state.tokens_seen
            ),
        )
