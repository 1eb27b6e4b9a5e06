"""A run put together and judged, before anything of it is written."""

from collections.abc import Callable
from dataclasses import dataclass

from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.progress import Report, silent
from apr.train.acceleration import Acceleration, choose_acceleration, choose_device
from apr.train.batches import BatchOrder
from apr.train.config import TrainConfig
from apr.train.gates import Finding, Gate, apply_waivers, judge
from apr.train.preflight import Inputs, check_files
from apr.train.probes import check_gradients, check_init_loss
from apr.train.resources_gate import check_resources
from apr.train.step import SummedLoss
from apr.train.validation import ValidationResult, ValidationSet, subset, validate, whole_set


@dataclass(frozen=True)
class PreparedRun:
    """A fresh model and all it will be trained with; `config` has no `auto` left in it."""

    config: TrainConfig
    inputs: Inputs
    acceleration: Acceleration
    model: Transformer
    summed_loss: SummedLoss
    order: BatchOrder
    periodic_set: ValidationSet
    whole_set: ValidationSet

    def validate(
        self, held_out: ValidationSet, *, activity: str, progress: Report = silent
    ) -> ValidationResult:
        """The loss of the current weights on a held-out set, with this run's settings."""
        return validate(
            self.model,
            held_out,
            batch_size=self.config.batch_size // self.config.grad_accum,
            document_mask=self.config.document_mask,
            summed_loss=self.summed_loss,
            progress=progress,
            activity=activity,
        )


@dataclass(frozen=True)
class Judgement:
    """Every gate of a run, and the held-out loss before step 1 if it could be measured."""

    gates: list[Gate]
    init: ValidationResult | None


def prepare(config: TrainConfig, inputs: Inputs, *, notify: Callable[[str], None]) -> PreparedRun:
    """Choose device and precision, initialise the model, lay out batches and held-out sets.

    Refuses: config.device-unavailable, config.no-compiler.
    """
    acceleration = choose_acceleration(config, inputs.architecture)
    for notice in acceleration.notices:
        notify(notice)
    model = Transformer(inputs.architecture)
    initialize(model, seed=config.seed)
    model.compute_dtype = acceleration.compute_dtype
    rows = inputs.data.val
    return PreparedRun(
        config=config.model_copy(
            update={
                "device": str(acceleration.device),
                "precision": acceleration.precision,
                "compile": acceleration.compiled,
            }
        ),
        inputs=inputs,
        acceleration=acceleration,
        model=model.to(acceleration.device),
        summed_loss=acceleration.loss_function(),
        order=BatchOrder(inputs.data.train, config.batch_size, config.seed),
        periodic_set=subset(rows, inputs.tokenizer, max_tokens=config.eval_tokens),
        whole_set=whole_set(rows, inputs.tokenizer),
    )


def judge_files(config: TrainConfig, inputs: Inputs) -> list[Gate]:
    """The gates that need no model, waivers applied.

    Refuses: config.device-unavailable.
    """
    device = str(choose_device(config.device))
    gates = check_files(config, inputs) + check_resources(config, inputs, device=device)
    return apply_waivers(gates, config.waive)


def judge_model(run: PreparedRun, *, progress: Report = silent) -> Judgement:
    """The gates that run the fresh model, waivers applied."""
    measured: list[ValidationResult] = []

    def init_loss() -> Finding:
        measured.append(
            run.validate(run.whole_set, activity="validating the fresh model", progress=progress)
        )
        return check_init_loss(run.model, measured[0])

    gradients = judge(
        "preflight.gradients",
        lambda: check_gradients(
            run.model,
            run.order.batch(1).split(run.config.grad_accum)[0],
            acceleration=run.acceleration,
            accelerated_loss=run.summed_loss,
            document_mask=run.config.document_mask,
        ),
    )
    gates = [judge("preflight.init-loss", init_loss), gradients]
    return Judgement(apply_waivers(gates, run.config.waive), measured[0] if measured else None)
