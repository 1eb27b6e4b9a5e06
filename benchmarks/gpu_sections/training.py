"""The training step itself: tokens/s, peak memory, utilisation, and what was predicted of it."""

import math
import statistics
import time
from typing import Any

import numpy as np
import torch

from apr.train.batches import Batch
from gpu_sections.rates import known_card, measured_rates
from gpu_sections.setting import Setting

_SKIPPED_STEPS = 3
_MOST_TIMED_S = 8.0


def measure(setting: Setting) -> None:
    """Every sequence length and micro-batch, the most wanted first."""
    fastest = "plain" if setting.is_dry_run else "cudnn"
    for number, (length, tokens) in enumerate(setting.sizes.training):
        setting.attempt(
            f"{length} x {tokens // length}",
            lambda at=length, n=tokens: _one(setting, sequence_length=at, micro_batch_tokens=n),
        )
        if number == 0:
            # What it would be if no document were hidden, by the kernels that are fastest then.
            setting.attempt(
                f"{length} x {tokens // length}, {fastest}, whole rows",
                lambda at=length, n=tokens: _one(
                    setting,
                    sequence_length=at,
                    micro_batch_tokens=n,
                    attention=fastest,
                    document_mask=False,
                ),
            )


class TrainingSteps:
    """A fresh model and its optimizer as `apr pretrain` would choose them, one step at a time."""

    def __init__(self, setting: Setting, config: Any) -> None:
        from apr.model.transformer import Transformer
        from apr.train.acceleration import choose_acceleration

        self.acceleration = choose_acceleration(config, setting.architecture)
        with setting.device:
            self.model = Transformer(setting.architecture)
        self.acceleration.apply_to(self.model)
        self._summed_loss, self._config = self.acceleration.loss_function(), config
        self._first_weights: dict[str, torch.Tensor] = {}
        self.restart()

    def restart(self) -> None:
        """Go back to before the first step; what was compiled stays."""
        from apr.model.init import initialize
        from apr.train.optimizer import build_optimizer

        if self._first_weights:
            self.model.load_state_dict(self._first_weights)
        else:
            initialize(self.model, seed=0)
            weights = self.model.state_dict()
            # Not on the device, whose memory is being measured.
            self._first_weights = {
                name: value.to("cpu", copy=True) for name, value in weights.items()
            }
        self.optimizer = build_optimizer(self.model, self._config)
        self._random, self._step = np.random.default_rng(0), 0

    def take(self) -> float:
        """One update on new random ids; its loss, which waits for the device."""
        from apr.train.step import train_step

        config, self._step = self._config, self._step + 1
        shape = (config.batch_size, config.seq_length)
        ids = self._random.integers(
            self.model.architecture.vocab_size, size=(shape[0], shape[1] + 1)
        )
        inputs, targets = (np.ascontiguousarray(part) for part in (ids[:, :-1], ids[:, 1:]))
        batch = Batch(inputs, targets, np.zeros(shape, np.int64), tuple(range(shape[0])))
        return train_step(
            self.model,
            self.optimizer,
            batch.split(config.num_micro_batches),
            step=self._step,
            learning_rate=1e-4,
            max_grad_norm=1.0,
            document_mask=config.document_mask,
            summed_loss=self._summed_loss,
        ).loss_nats


def _one(
    setting: Setting, *, sequence_length: int, micro_batch_tokens: int, **choices: Any
) -> dict[str, Any]:
    torch.compiler.reset()
    if setting.on_cuda:
        torch.cuda.reset_peak_memory_stats()
    config = setting.config(
        sequence_length=sequence_length, micro_batch_tokens=micro_batch_tokens, **choices
    )
    started_s = time.perf_counter()
    steps = TrainingSteps(setting, config)
    losses = [steps.take()]
    first_step_s = time.perf_counter() - started_s
    times_s: list[float] = []
    for number in range(_SKIPPED_STEPS + setting.sizes.steps):
        before_s = time.perf_counter()
        losses.append(steps.take())
        if number >= _SKIPPED_STEPS:
            times_s.append(time.perf_counter() - before_s)
        if sum(times_s) > _MOST_TIMED_S:
            break
    blind_nats = math.log(setting.architecture.vocab_size)
    if not all(0 < loss < 2 * blind_nats for loss in losses):
        return {"missing": f"impossible losses: {min(losses):.3g} to {max(losses):.3g} nats"}
    tokens_per_s = micro_batch_tokens / statistics.median(times_s)
    return {
        "sequence_length": sequence_length,
        "micro_batch_tokens": micro_batch_tokens,
        "document_mask": config.document_mask,
        "tokens_per_s": tokens_per_s,
        "steps": len(times_s),
        "first_step_s": first_step_s,
        "last_loss_nats": losses[-1],
        "environment": steps.acceleration.environment(),
        "notices": steps.acceleration.notices,
        "peak_bytes": torch.cuda.max_memory_allocated() if setting.on_cuda else None,
        **against_the_roofline(setting, tokens_per_s, sequence_length, micro_batch_tokens),
    }


def against_the_roofline(
    setting: Setting, tokens_per_s: float, sequence_length: int, micro_batch_tokens: int
) -> dict[str, Any]:
    """Utilisation of the sheet and of the measured ceiling, and the share of what was predicted."""
    from apr.architecture import CONVENTIONS
    from apr.train.predicted_rate import predict_rate
    from apr.train.rate import Rate

    found = predict_rate(
        setting.architecture,
        device=known_card(setting.device),
        measured=measured_rates(setting),
        sequence_length=sequence_length,
        micro_batch_tokens=micro_batch_tokens,
        batch_tokens=micro_batch_tokens,
    )
    if isinstance(found, str):
        return {"mfu": None, "mfu_reason": found}
    compared = found.compared(Rate(tokens_per_s, "this step"))
    return {
        "mfu": {
            f"{convention}, of {name}": found.share_of(ceiling, tokens_per_s, convention)
            for name, ceiling in (("sheet", found.sheet), ("ceiling", found.measured_ceiling))
            for convention in CONVENTIONS
        },
        "ceiling": found.measured_ceiling.source,
        "predicted_tokens_per_s": found.tokens_per_s(found.central),
        "share_of_predicted": compared["share_of_predicted"],
        "share_of_predicted_reason": compared["share_of_predicted_reason"],
    }
