"""The loop: steps, periodic validation, checkpoints, and the word the run ends with.

Everything that decides a step is in `TrainState`, the weights and the optimizer; a run that is
stopped at any point and resumed goes through the same states as one that was not.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from apr.progress import Progress, Report
from apr.train.checkpoint import Ending, TrainState
from apr.train.checkpoint_writer import CheckpointWriter
from apr.train.config import TrainConfig
from apr.train.prepare import PreparedRun
from apr.train.run_record import StepLog
from apr.train.schedule import cosine_learning_rate
from apr.train.step import train_step
from apr.train.validation import ValidationResult


@dataclass(frozen=True)
class Trainer:
    """One run under way."""

    run: PreparedRun
    run_dir: Path
    optimizer: torch.optim.Optimizer
    run_record_sha256: str
    log: StepLog
    checkpoints: CheckpointWriter
    progress: Report

    def train(self, state: TrainState, *, should_stop: Callable[[], bool]) -> Ending:
        """Go on from `state` until target, patience, budget or a request to stop.

        Refuses: train.non-finite, train.non-finite-validation, files.io-failed.
        Writes: steps.jsonl and checkpoints/ in the run directory.
        """
        config = self.run.config
        if state.step == 0:
            self._validate(state)
        while state.ended is None:
            if should_stop():
                self._checkpoint(state)
                self.checkpoints.wait(state)
                return "interrupted"
            self._one_step(state)
            self.checkpoints.poll(state)
            is_due = state.step % (config.checkpoint_every or config.eval_every) == 0
            if state.step == config.num_steps or state.step % config.eval_every == 0:
                is_due |= self._validate_and_judge(state)
            # The verdict is saved with the step: a run killed while it ends must end the same way.
            if is_due or state.ended:
                self._checkpoint(state)
        self.checkpoints.wait(state)
        return state.ended

    def provenance(self, what: str, step: int, tokens_seen: int) -> dict[str, Any]:
        """Where weights of this run come from, as a container carries it."""
        return {
            "what": what,
            "run_record_sha256": self.run_record_sha256,
            "train_manifest_sha256": self.run.inputs.train.manifest_sha256,
            "tokenizer_fingerprint": self.run.inputs.tokenizer.fingerprint,
            "step": step,
            "tokens_seen": tokens_seen,
        }

    def _one_step(self, state: TrainState) -> None:
        config, started_s = self.run.config, time.monotonic()
        step = state.step + 1
        micro_batches = self.run.order.batch(step).split(config.grad_accum)
        data_s = time.monotonic() - started_s
        result = train_step(
            self.run.model,
            self.optimizer,
            micro_batches,
            step=step,
            learning_rate=learning_rate_at(step, config),
            max_grad_norm=config.max_grad_norm,
            document_mask=config.document_mask,
            summed_loss=self.run.summed_loss,
        )
        state.step = step
        state.tokens_seen += result.num_tokens
        state.data_s += data_s
        state.train_s += time.monotonic() - started_s
        self.log.append(
            "step",
            step=step,
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
                config.planned_tokens,
                "tokens",
                f"step {step} of {config.num_steps}  loss {result.loss_nats:.3f}{best}",
            )
        )

    def _validate_and_judge(self, state: TrainState) -> bool:
        """Whether the weights are the best so far; whether the run has ended is in the state."""
        periodic, config = self._validate(state), self.run.config
        best = state.best_loss_nats
        is_best = best is None or periodic.loss_nats < best - config.min_delta
        if is_best:
            state.best_step, state.best_loss_nats = state.step, periodic.loss_nats
            state.stale_validations = 0
        else:
            state.stale_validations += 1
        if self._target_reached(periodic):
            state.ended = "target_met"
        elif state.step == config.num_steps:
            state.ended = "budget_exhausted"
        elif state.stale_validations >= config.patience:
            state.ended = "early_stop"
        return is_best

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
        )
        return result

    def _target_reached(self, periodic: ValidationResult) -> bool:
        """A target met on the subset counts only when the whole set agrees."""
        target = self.run.config.target_val_loss
        if target is None or periodic.loss_nats > target:
            return False
        if periodic.set_sha256 == self.run.whole_set.sha256:
            return True
        whole = self.run.validate(
            self.run.whole_set, activity="confirming the target", progress=self.progress
        )
        return whole.loss_nats <= target

    def _checkpoint(self, state: TrainState) -> None:
        # Before the first update there is no optimizer state, and nothing to lose.
        if state.step == 0:
            return
        self.checkpoints.save(
            state, provenance=[self.provenance("checkpoint", state.step, state.tokens_seen)]
        )


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """The rate a run's schedule gives one of its steps."""
    assert config.learning_rate is not None
    assert config.warmup_steps is not None
    return cosine_learning_rate(
        step,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        num_steps=config.num_steps,
    )
