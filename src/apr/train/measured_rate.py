"""How fast this machine trains a model, by real steps on made-up ids."""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from apr.architecture import Architecture
from apr.errors import Refusal
from apr.model.init import fresh_weights
from apr.model.transformer import Transformer
from apr.progress import Progress, Report, silent
from apr.train.acceleration import Acceleration, choose_acceleration
from apr.train.allocator import keep_freed_memory
from apr.train.batches import Batch
from apr.train.compiling import COMPILING, will_compile
from apr.train.config import TrainConfig
from apr.train.optimizer import build_optimizer
from apr.train.prepare import PreparedRun
from apr.train.ranks import Ranks
from apr.train.rate import Rate
from apr.train.repeatable import repeatable
from apr.train.start import whole_model
from apr.train.step import NO_EXCHANGE, GradientExchange, SummedLoss, train_step

_PROBE_WIDTH = 1024
_MOST_STEPS = 5


def measure_rate(
    config: TrainConfig,
    architecture: Architecture,
    *,
    limit_s: float,
    notify: Callable[[str], None] = lambda _text: None,
    progress: Report = silent,
) -> Rate:
    """Train a fresh model of this shape for a few steps, as the run would, and forget it.

    Precision, kernels and attention are those that the run would choose. The first step warms up,
    which compiles kernels where the run is long enough for it, and does not count. What cannot be
    done within about `limit_s` afterwards, by the speed of a matrix product, is not tried.

    Refuses: config.device-unavailable, config.no-compiler, config.attention-unavailable.
    """
    keep_freed_memory()
    with repeatable(config.device, seed=config.seed, deterministic=config.deterministic):
        if will_compile(config, architecture):
            notify(COMPILING)
        acceleration = choose_acceleration(config, architecture)
        for notice in acceleration.notices:
            notify(notice)
        if too_long := _too_long(config, architecture, acceleration, limit_s):
            return Rate(None, too_long)
        model = whole_model(
            architecture,
            acceleration,
            fresh_weights(architecture, seed=config.seed),
            recomputes_blocks=bool(config.activation_checkpointing),
        )
        step_s = _time_steps(
            model,
            config,
            acceleration.loss_function(),
            limit_s=limit_s,
            compiled=acceleration.compiled,
            progress=progress,
        )
        return _rate(step_s, config, acceleration)


def measure_prepared(run: PreparedRun, *, limit_s: float) -> Rate:
    """Take a few steps of a run that is ready to start, at a learning rate of zero.

    What the gradient gate has compiled is used as it is.
    """
    config, architecture = run.config, run.inputs.architecture
    too_long = _too_long(config, architecture, run.acceleration, limit_s)
    if any(run.exchange.ranks.any(too_long is not None)):
        return Rate(None, too_long or "not measured: another rank would take too long")
    try:
        step_s = _time_steps(
            run.model,
            config,
            run.summed_loss,
            limit_s=limit_s,
            compiled=run.acceleration.compiled,
            exchange=run.exchange,
        )
    except Refusal as refusal:
        return Rate(None, f"not measured: {refusal.id}: {refusal.found}")
    return _rate(step_s, config, run.acceleration)


def _rate(step_s: list[float], config: TrainConfig, acceleration: Acceleration) -> Rate:
    kernels = "compiled" if acceleration.compiled else "eager"
    beside = "compiling, validations" if acceleration.compiled else "validations"
    steps = f"{len(step_s)} steps" if len(step_s) > 1 else "1 step"
    return Rate(
        config.batch_tokens / statistics.median(step_s),
        f"measured just now: the median of {steps} on {acceleration.device}, "
        f"{acceleration.precision}, {kernels}; {beside} and checkpoints come on top",
    )


def _time_steps(
    model: Transformer,
    config: TrainConfig,
    summed_loss: SummedLoss,
    *,
    limit_s: float,
    compiled: bool,
    exchange: GradientExchange = NO_EXCHANGE,
    progress: Report = silent,
) -> list[float]:
    """Seconds of each step after the first, as many as `limit_s` allows, at least one.

    Only where the first took longer than that without compiling anything, it has to do.
    """
    optimizer = build_optimizer(model, config)
    micro_batches = _made_up(model, config, exchange.ranks).split(config.num_micro_batches)

    def step_s(step: int) -> float:
        before_s = time.perf_counter()
        # Reading the loss waits for a CUDA device to finish.
        train_step(
            model,
            optimizer,
            micro_batches,
            step=step,
            learning_rate=0.0,
            max_grad_norm=config.max_grad_norm,
            document_mask=config.document_mask,
            summed_loss=summed_loss,
            exchange=exchange,
        )
        elapsed_s = time.perf_counter() - before_s
        progress(Progress("measuring", step, _MOST_STEPS + 1, "steps"))
        return elapsed_s

    first_s = step_s(1)
    if any(exchange.ranks.any(first_s > limit_s and not compiled)):
        return [first_s]
    times_s: list[float] = []
    for step in range(2, _MOST_STEPS + 2):
        times_s.append(step_s(step))
        if any(exchange.ranks.any(sum(times_s) + times_s[-1] > limit_s)):
            break
    return times_s


def _made_up(model: Transformer, config: TrainConfig, ranks: Ranks) -> Batch:
    """What one rank would read of a batch: ids at random, each row one document."""
    random = np.random.default_rng(config.seed)
    rows = config.batch_size // ranks.world_size
    ids = random.integers(model.architecture.vocab_size, size=(rows, config.seq_length + 1))
    return Batch(
        np.ascontiguousarray(ids[:, :-1]),
        np.ascontiguousarray(ids[:, 1:]),
        np.zeros((rows, config.seq_length), np.int64),
        tuple(range(rows)),
    )


def _too_long(
    config: TrainConfig, architecture: Architecture, acceleration: Acceleration, limit_s: float
) -> str | None:
    """Why no step is tried: two would not fit at the speed of one square matrix product."""
    square = torch.ones(
        _PROBE_WIDTH,
        _PROBE_WIDTH,
        dtype=acceleration.compute_dtype,
        device=acceleration.device,
    )
    times_s: list[float] = []
    for _ in range(3):
        started_s = time.perf_counter()
        float((square @ square)[0, 0])
        times_s.append(time.perf_counter() - started_s)
    rate = 2 * _PROBE_WIDTH**3 / min(times_s)
    flops = architecture.training_flops_per_token(config.seq_length, convention="causal")
    expected_s = flops * config.batch_tokens / rate
    if expected_s <= limit_s / 2:
        return None
    return f"not measured: one step would take about {expected_s:.0f} s"
