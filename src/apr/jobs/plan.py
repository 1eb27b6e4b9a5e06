"""`apr plan`: what a run would take and be worth, before it starts; nothing is written.

Every number is computed from the exact shape, read from a manifest or a record, stated by the
caller, or measured here and now. What is none of these is null with a reason beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apr.architecture import Architecture, preset
from apr.errors import Refusal, UsageRefusal
from apr.jobs.costs import Data, costs_of
from apr.jobs.described_inputs import DescribedInputs, describe_inputs
from apr.jobs.expectations import budget, expected_losses
from apr.jobs.foreseen import foreseen_gates, foreseen_ids, foreseen_refusal
from apr.jobs.planned_device import PlannedDevice, planned_device
from apr.progress import Report, silent
from apr.train.config import TrainConfig, within_positions
from apr.train.copies import count_copies
from apr.train.division import divided
from apr.train.inputs import require_positions
from apr.train.rate import Rate, rate_of_run
from apr.train.resolved_config import resolve_config
from apr.train.run_record import RunRecord
from apr.train.token_budget import effective_tokens

_MEASURING_S = 20.0
_MOST_STEPS = 1 << 40
# A plan can do without these; `resolve_config` cannot. No path of a person has such a name.
_STAND_INS = {
    name: Path(f"<no {name}>") for name in ("dataset", "tokenizer", "run_dir", "val_shard")
}
_Measure = Callable[[TrainConfig, Architecture], Rate]
_UNSTATED = "no throughput was stated: give --tokens-per-s, --like RUN or --measure"


@dataclass(frozen=True)
class Speed:
    """Where the throughput of a plan comes from; at most one of the three."""

    tokens_per_s: float | None = None
    like: Path | None = None
    measure: bool = False


@dataclass(frozen=True)
class RunPlan:
    """A run as it would be; `facts` is what `apr plan --json` prints."""

    config: TrainConfig
    unnamed: tuple[str, ...]
    """Fields that a run needs and that were not given; the configuration has stand-ins there."""
    on: PlannedDevice
    facts: dict[str, Any]
    refusal: Refusal | None
    """What `apr pretrain` would refuse of its inputs; the facts hold all the same."""

    def known_config(self) -> dict[str, Any]:
        """The configuration as far as it was given: null for paths that were not."""
        return self.config.model_dump(mode="json") | dict.fromkeys(self.unnamed)


def plan(
    options: dict[str, Any],
    *,
    config_path: Path | None = None,
    tokens: int | None = None,
    speed: Speed = Speed(),
    rates_path: Path | None = None,
    notify: Callable[[str], None] = lambda _text: None,
    progress: Report = silent,
) -> RunPlan:
    """What a run takes and what may be expected of it, from its shape and its plan alone.

    `options` are fields of the configuration, as `resolve_config` takes them, and none is demanded;
    `device` may also name a card that is not here. `tokens` stands for a number of steps, rounded
    up. The shape is that of a preset, or of the model in the container `init`, of whose tensors
    none is read but a tied head beside its embedding. `rates_path` holds rates that were measured
    on the device; `notify` and `progress` hear of a measurement. What `apr pretrain` would
    refuse is in the answer as far as manifests, indexes, the tokenizer and metadata tell.

    Refuses: config.vocab-size-unknown, config.sequence-too-long, config.mixture-repeated,
    device.unknown, device.not-here, and what `resolve_config`, a manifest, a tokenizer, a
    container, a run record or a file of rates refuses.
    """
    on, options = planned_device(options, rates_path)
    if on.card and speed.measure:
        raise UsageRefusal(
            "device.not-here",
            f"--measure --device {on.card.name}",
            found="the name of a card, which may be another than what is here",
            expected="a device of this machine, since it is what --measure measures",
            fix="--measure --device cuda, or leave --measure out",
        )
    config, unnamed = _config(options, config_path, tokens)
    inputs = describe_inputs(config, unnamed=unnamed)
    init = inputs.init
    architecture = _architecture(config, inputs)
    config = within_positions(config, architecture if init else None)
    require_positions(config, architecture)
    data, tokenizer = _data(inputs), inputs.tokenizer
    resolved = divided(
        config,
        architecture,
        num_documents=data.num_documents if data else 0,
        device=on.memory,
    )

    def measure(config: TrainConfig, architecture: Architecture) -> Rate:
        # torch is loaded for this alone.
        from apr.train.measured_rate import measure_rate

        return measure_rate(
            config, architecture, limit_s=_MEASURING_S, notify=notify, progress=progress
        )

    rate, roofline = _rate_beside_the_roofline(resolved, architecture, speed, on, measure)
    seen_tokens = init.tokens_seen if init else 0
    facts = costs_of(
        resolved,
        architecture,
        data=data,
        tokenizer_bytes=len(tokenizer.json_bytes) if tokenizer else 0,
        rate=rate,
        seen_tokens=seen_tokens,
        device_memory=on.memory,
    )
    planned = config.planned_tokens
    worth = effective_tokens(planned, data.unique_tokens) if data else float(planned)
    facts |= roofline | {
        "source": str(config.init) if init else f"preset {config.arch}",
        "expected_loss": expected_losses(architecture, worth, is_continued=init is not None),
        "token_budget": budget(config, architecture, data, seen_tokens=seen_tokens),
    }
    gates = foreseen_gates(config, inputs, architecture)
    refusal = foreseen_refusal(config, gates, unnamed=unnamed)
    facts |= {
        "gates": [gate.as_record() for gate in gates],
        "would_be_refused_by": foreseen_ids(config, gates, refusal, facts),
    }
    return RunPlan(config, unnamed, on, facts, refusal)


def _config(
    options: dict[str, Any], config_path: Path | None, tokens: int | None
) -> tuple[TrainConfig, tuple[str, ...]]:
    """The configuration, and which of its fields a run needs that nobody gave."""

    def resolved(**changes: Any) -> TrainConfig:
        return resolve_config(options | changes, config_path=config_path, assumed=dict(_STAND_INS))

    config = resolved() if tokens is None else _of_tokens(tokens, resolved)
    given = dict(config) | {"dataset": config.dataset[0].path}
    unnamed = [name for name, stand_in in _STAND_INS.items() if given[name] == stand_in]
    if "val_shard" in unnamed and len(config.dataset) == 1:
        # A run sets documents aside.
        unnamed.remove("val_shard")
        config = config.model_copy(update={"val_shard": None})
    return config, tuple(unnamed)


def _of_tokens(tokens: int, resolved: Callable[..., TrainConfig]) -> TrainConfig:
    """The configuration with as many steps as take so many tokens, rounded up."""
    # A step is of at least one token, so that nothing of a possible run is refused too early.
    batch_tokens = resolved(num_steps=min(tokens, _MOST_STEPS)).batch_tokens
    num_steps = -(-tokens // batch_tokens)
    if num_steps > _MOST_STEPS:
        raise UsageRefusal(
            "config.invalid",
            "--tokens",
            found=f"{tokens}, which are {num_steps} steps of {batch_tokens}",
            expected=f"at most {_MOST_STEPS} steps",
            fix="plan for fewer tokens, or for a larger batch",
        )
    return resolved(num_steps=num_steps)


def _architecture(config: TrainConfig, inputs: DescribedInputs) -> Architecture:
    if inputs.init is not None:
        assert inputs.init.architecture is not None, "a file that is described has a shape"
        return inputs.init.architecture

    def shape(entries: int) -> Architecture:
        assert config.arch is not None, "a configuration without an initial model has a preset"
        return preset(config.arch, tokenizer_vocab_size=entries, vocab_size=config.vocab_size)

    entries = inputs.vocab_size
    if entries is None and shape(1) != shape(2):
        raise UsageRefusal(
            "config.vocab-size-unknown",
            f"--arch {config.arch}",
            found="neither a tokenizer nor shards nor a size",
            expected="the number of token ids, which this preset takes from the tokenizer",
            fix="give --vocab-size N, --tokenizer or --dataset",
        )
    return shape(entries or 1)


def _data(inputs: DescribedInputs) -> Data | None:
    if not inputs.train:
        return None
    return Data(
        count_copies(inputs.train_documents),
        num_documents=sum(each.manifest.total_documents for each in inputs.shards),
    )


def _rate_beside_the_roofline(
    config: TrainConfig,
    architecture: Architecture,
    speed: Speed,
    on: PlannedDevice,
    measure: _Measure,
) -> tuple[Rate, dict[str, Any]]:
    """The throughput to compute hours with, the roofline's own where no other is known."""
    rate, found = _rate(config, architecture, speed, measure), on.predict(config, architecture)
    if isinstance(found, str):
        return rate, {"roofline": None, "roofline_reason": found}
    facts = found.as_facts(rate)
    return (found.rate() if speed == Speed() else rate), {"roofline": facts}


def _rate(config: TrainConfig, architecture: Architecture, speed: Speed, measure: _Measure) -> Rate:
    if speed.tokens_per_s is not None:
        return Rate(speed.tokens_per_s, "stated")
    if speed.like is not None:
        record = RunRecord.load(speed.like)
        return rate_of_run(record, architecture, sequence_length=config.seq_length)
    if not speed.measure:
        return Rate(None, _UNSTATED)
    facts = costs_of(config, architecture, data=None, tokenizer_bytes=0, rate=Rate(None, _UNSTATED))
    if facts["memory"]["verdict"] != "PASS":
        return Rate(None, "not measured: the run does not fit in memory, or that is not known")
    return measure(config, architecture)
