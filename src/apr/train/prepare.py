"""A run put together and judged, before anything of it is written."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from apr.errors import UsageRefusal
from apr.model.transformer import Transformer
from apr.progress import Report, silent
from apr.train.acceleration import Acceleration, choose_acceleration, choose_device
from apr.train.compiling import COMPILING, will_compile
from apr.train.config import TrainConfig
from apr.train.data_parallel import DealtOut
from apr.train.division import divided
from apr.train.gates import Finding, Gate, apply_waivers, judge
from apr.train.gradient_sketch import measure_sketches
from apr.train.gradients_gate import check_gradients
from apr.train.init_loss_gate import check_fresh_loss, check_initial_loss
from apr.train.inputs import Inputs
from apr.train.judged_together import judge_on_ranks
from apr.train.mixture import BatchOrder
from apr.train.preflight import check_files
from apr.train.ranks import ALONE, Ranks
from apr.train.resources_gate import check_resources
from apr.train.start import Weights, dealt_out_model, start_weights, whole_model
from apr.train.step import NO_EXCHANGE, GradientExchange, SummedLoss
from apr.train.units_gathered import ONE_UNIT_BYTES
from apr.train.validation import ValidationResult, ValidationSet, subset, validate, whole_set


@dataclass(frozen=True)
class PreparedRun:
    """A model and all it will be trained with; `config` has nothing left to choose in it."""

    config: TrainConfig
    inputs: Inputs
    acceleration: Acceleration
    model: Transformer
    summed_loss: SummedLoss
    order: BatchOrder
    periodic_set: ValidationSet
    whole_set: ValidationSet
    ranks: Ranks = ALONE
    exchange: GradientExchange = NO_EXCHANGE
    shared_loss: SummedLoss | None = None
    """The loss to train with, where its backward pass has gradients to exchange."""
    dealt: DealtOut | None = None
    """How the model is gathered, where each rank holds a part of it."""

    @property
    def micro_batch_size(self) -> int:
        """Sequences of one forward pass of one rank."""
        return self.config.batch_size // (self.config.num_micro_batches * self.ranks.world_size)

    def environment(self) -> dict[str, Any]:
        """What a result depends on beside configuration and data."""
        return self.acceleration.environment() | {
            "activation_checkpointing": self.model.model.recomputes_blocks,
            "ranks": self.ranks.world_size,
            "data_parallel": self.config.data_parallel if self.ranks.are_many else None,
        }

    def validate(
        self, held_out: ValidationSet, *, activity: str, progress: Report = silent
    ) -> ValidationResult:
        """The loss of the current weights on a held-out set, with this run's settings."""
        result = validate(
            self.model,
            held_out,
            batch_size=self.micro_batch_size,
            document_mask=self.config.document_mask,
            summed_loss=self.summed_loss,
            ranks=self.ranks,
            progress=progress,
            activity=activity,
        )
        self.exchange.settle()
        return result


@dataclass(frozen=True)
class Judgement:
    """Every gate of a run, and the held-out loss before step 1 if it could be measured."""

    gates: list[Gate]
    init: ValidationResult | None


def prepare(
    config: TrainConfig,
    inputs: Inputs,
    *,
    notify: Callable[[str], None],
    weights: Weights | None = None,
    ranks: Ranks = ALONE,
    one_unit_bytes: int = ONE_UNIT_BYTES,
    progress: Report = silent,
) -> PreparedRun:
    """Choose device and precision, fill the model, lay out batches and held-out sets.

    The weights are those of the initial file, or fresh ones; `weights` stands in for both. Under
    `fsdp` each rank keeps its part of every tensor and lets go of the rest before the next; a
    model larger than `one_unit_bytes` is gathered block by block.

    Refuses: config.device-unavailable, config.no-compiler, config.attention-unavailable,
    config.min-delta-unmeasurable, and what loading the initial file refuses.
    """
    config = divided(
        config,
        inputs.architecture,
        num_documents=inputs.num_documents,
        ranks=ranks,
        notify=notify,
    )
    rows = inputs.data.val
    # Recorded as a number: a resumed run that validates at other times reads the same set.
    eval_tokens = min(config.periodic_eval_tokens, rows.num_targets)
    periodic_set = subset(rows, inputs.tokenizer, max_tokens=eval_tokens)
    _require_margin(config, periodic_set)
    if will_compile(config, inputs.architecture):
        notify(COMPILING)
    acceleration = _chosen_together(config, inputs, ranks)
    for notice in acceleration.notices:
        notify(notice)
    if weights is None:
        weights = start_weights(inputs, seed=config.seed, progress=progress)
    recomputes_blocks, dealt = bool(config.activation_checkpointing), None
    if ranks.are_many and config.data_parallel == "fsdp":
        model, dealt = dealt_out_model(
            inputs.architecture,
            acceleration,
            weights,
            ranks,
            recomputes_blocks=recomputes_blocks,
            one_unit_bytes=one_unit_bytes,
        )
    else:
        model = whole_model(
            inputs.architecture, acceleration, weights, recomputes_blocks=recomputes_blocks
        )
    return PreparedRun(
        config=config.model_copy(
            update={
                "device": str(acceleration.device),
                "precision": acceleration.precision,
                "compile": acceleration.compiled,
                "attention": acceleration.attention,
                "eval_tokens": eval_tokens,
            }
        ),
        inputs=inputs,
        acceleration=acceleration,
        model=model,
        summed_loss=dealt.through(dealt.own_loss) if dealt else acceleration.loss_function(),
        order=BatchOrder(inputs.data.train, config.batch_size, config.seed),
        periodic_set=periodic_set,
        whole_set=whole_set(rows, inputs.tokenizer),
        ranks=ranks,
        exchange=dealt.exchange if dealt else NO_EXCHANGE,
        dealt=dealt,
    )


def _chosen_together(config: TrainConfig, inputs: Inputs, ranks: Ranks) -> Acceleration:
    """The choices of the first rank for all: a probe by the clock may end otherwise elsewhere."""
    if not ranks.are_many:
        return choose_acceleration(config, inputs.architecture)
    chosen: dict[str, Any] = {}
    if ranks.is_first:
        acceleration = choose_acceleration(config, inputs.architecture)
        chosen = {"precision": acceleration.precision, "compile": acceleration.compiled}
    chosen = ranks.same_as_first(chosen)
    return choose_acceleration(config.model_copy(update=chosen), inputs.architecture)


def affordable_set(run: PreparedRun, *, limit_s: float) -> ValidationSet:
    """The whole held-out set, or as much of it as can be validated in about `limit_s`."""
    probe = subset(run.whole_set.rows, run.inputs.tokenizer, max_tokens=run.config.batch_tokens)
    # The first validation may compile; the second is what all others take.
    run.validate(probe, activity="timing a validation")
    started_s = time.perf_counter()
    run.validate(probe, activity="timing a validation")
    elapsed_s = time.perf_counter() - started_s
    affordable = run.ranks.same_as_first(int(limit_s / elapsed_s * probe.num_tokens))
    if affordable >= run.whole_set.num_tokens:
        return run.whole_set
    return subset(run.whole_set.rows, run.inputs.tokenizer, max_tokens=affordable)


def _require_margin(config: TrainConfig, periodic_set: ValidationSet) -> None:
    num_rows = len(periodic_set.row_indices)
    if config.min_delta > 0 and num_rows < 2:
        raise UsageRefusal(
            "config.min-delta-unmeasurable",
            "--min-delta",
            found=f"{config.min_delta:g} standard errors of a held-out set of {num_rows} rows",
            expected="at least two rows, which have a standard error",
            fix="hold out more text, shorten --seq-length, or leave --min-delta at 0",
        )


def judge_files(config: TrainConfig, inputs: Inputs, ranks: Ranks = ALONE) -> list[Gate]:
    """The gates that need no model, waivers applied.

    Refuses: config.device-unavailable.
    """
    device = str(choose_device(config.device))
    gates = check_files(config, inputs) + check_resources(
        config, inputs, device=device, ranks=ranks
    )
    return apply_waivers(gates, config.waive)


def judge_model(
    run: PreparedRun, *, held_out: ValidationSet | None = None, progress: Report = silent
) -> Judgement:
    """The gates that run the model before step 1, waivers applied.

    `held_out` stands in for the whole held-out set.
    """
    measured: list[ValidationResult] = []
    init = run.inputs.init

    def init_loss() -> Finding:
        measured.append(
            run.validate(
                held_out or run.whole_set,
                activity=f"validating the {'initial' if init else 'fresh'} model",
                progress=progress,
            )
        )
        if init is None:
            return check_fresh_loss(run.model, measured[0])
        if run.dealt is None:
            return check_initial_loss(run.model, init, measured[0])
        found = check_initial_loss(run.model, init, measured[0], through=run.dealt.through)
        run.exchange.settle()
        return found

    gradients = judge_gradients(run)
    gates = [_judge_together("preflight.init-loss", init_loss, run), gradients]
    return Judgement(apply_waivers(gates, run.config.waive), measured[0] if measured else None)


def judge_gradients(run: PreparedRun) -> Gate:
    """The gate on the gradient of the current weights, on the first batch of the run.

    Each rank judges what its own rows give.
    """
    dealt, accelerated_loss, measure = run.dealt, run.summed_loss, None
    if dealt is not None:
        accelerated_loss, measure = dealt.own_loss, partial(measure_sketches, dealt)

    def gradients() -> Finding:
        batch = run.order.batch(1, part=run.ranks.rank, num_parts=run.ranks.world_size)
        return check_gradients(
            run.model,
            batch.split(run.config.num_micro_batches)[0],
            accelerated_loss=accelerated_loss,
            document_mask=run.config.document_mask,
            measure=measure,
        )

    return _judge_together("preflight.gradients", gradients, run)


def _judge_together(id: str, check: Callable[[], Finding], run: PreparedRun) -> Gate:
    # What no rank computes alone, none can go on with alone.
    return judge(id, check) if run.dealt is None else judge_on_ranks(id, check, run.ranks)
