"""How fast this machine trains a model, by real steps on made-up ids."""

import statistics
import time

import numpy as np
import torch

from apr.architecture import Architecture
from apr.errors import Refusal
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.train.acceleration import Acceleration, choose_acceleration
from apr.train.allocator import keep_freed_memory
from apr.train.batches import Batch
from apr.train.config import TrainConfig
from apr.train.optimizer import build_optimizer
from apr.train.prepare import PreparedRun
from apr.train.rate import Rate
from apr.train.repeatable import repeatable
from apr.train.step import NO_EXCHANGE, GradientExchange, SummedLoss, train_step

_PROBE_WIDTH = 1024
_MOST_STEPS = 5


def measure_rate(config: TrainConfig, architecture: Architecture, *, limit_s: float) -> Rate:
    """Train a fresh model of this shape for a few steps and forget it.

    Kernels are compiled only where the configuration says so, because compiling takes longer than
    measuring. The first step warms up and does not count. What cannot be done within about
    `limit_s`, by the speed of a matrix product, is not tried.

    Refuses: config.device-unavailable, config.no-compiler, config.attention-unavailable.
    """
    chosen = config.model_copy(update={"compile": bool(config.compile)})
    keep_freed_memory()
    with repeatable(config.device, seed=config.seed):
        acceleration = choose_acceleration(chosen, architecture)
        if too_long := _too_long(chosen, architecture, acceleration, limit_s):
            return Rate(None, too_long)
        model = Transformer(architecture)
        initialize(model, seed=config.seed)
        acceleration.apply_to(model)
        model.to(acceleration.device)
        summed_loss = acceleration.loss_function()
        return _rate(_time_steps(model, chosen, summed_loss, limit_s=limit_s), chosen, acceleration)


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
            run.model, config, run.summed_loss, limit_s=limit_s, exchange=run.exchange
        )
    except Refusal as refusal:
        return Rate(None, f"not measured: {refusal.id}: {refusal.found}")
    return _rate(step_s, config, run.acceleration)


def _rate(step_s: list[float], config: TrainConfig, acceleration: Acceleration) -> Rate:
    kernels = "compiled" if acceleration.compiled else "eager"
    return Rate(
        config.batch_tokens / statistics.median(step_s),
        f"measured just now: the median of {len(step_s)} steps on {acceleration.device}, "
        f"{acceleration.precision}, {kernels}; validations and checkpoints come on top",
    )


def _time_steps(
    model: Transformer,
    config: TrainConfig,
    summed_loss: SummedLoss,
    *,
    limit_s: float,
    exchange: GradientExchange = NO_EXCHANGE,
) -> list[float]:
    """Seconds of each step after the first; of the first when there is time for no other."""
    optimizer = build_optimizer(model, config)
    random = np.random.default_rng(config.seed)
    rows = config.batch_size // exchange.ranks.world_size
    shape = (rows, config.seq_length + 1)
    ids = random.integers(model.architecture.vocab_size, size=shape)
    batch = Batch(
        np.ascontiguousarray(ids[:, :-1]),
        np.ascontiguousarray(ids[:, 1:]),
        np.zeros((rows, config.seq_length), np.int64),
        tuple(range(rows)),
    )
    micro_batches = batch.split(config.num_micro_batches)
    times_s: list[float] = []
    started_s = time.perf_counter()
    for step in range(1, _MOST_STEPS + 2):
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
        now_s = time.perf_counter()
        times_s.append(now_s - before_s)
        if any(exchange.ranks.any(now_s - started_s + times_s[-1] > limit_s)):
            break
    return times_s[1:] or times_s


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
