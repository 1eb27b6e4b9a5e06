"""`apr plan`: what a run would take and be worth, before it starts; nothing is written.

Every number is computed from the exact shape, read from a manifest or a record, stated by the
caller, or measured here and now. What is none of these is null with a reason beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apr.architecture import Architecture, preset
from apr.container.contents import require_contents
from apr.container.reader import Container
from apr.errors import UsageRefusal
from apr.jobs.costs import Data, costs_of
from apr.jobs.expectations import budget, expected_losses
from apr.jobs.planned_device import PlannedDevice, planned_device
from apr.shards.manifest import Manifest, read_manifest
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.config import TrainConfig, resolve_config, within_positions
from apr.train.copies import count_copies, documents_of_directory
from apr.train.division import divided
from apr.train.init_file import tokens_seen
from apr.train.inputs import require_positions
from apr.train.rate import Rate, rate_of_run
from apr.train.run_record import RunRecord
from apr.train.token_budget import effective_tokens

_MEASURING_S = 20.0
# A plan can do without these; `resolve_config` cannot.
_UNKNOWN = {"dataset": Path("DATASET"), "tokenizer": Path("TOKENIZER"), "run_dir": Path("RUN")}
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
    datasets: tuple[Path, ...]
    init: Path | None
    on: PlannedDevice
    facts: dict[str, Any]

    def known_config(self) -> dict[str, Any]:
        """The configuration as far as it was given: null for paths that were not."""
        fields = self.config.model_dump(mode="json")
        for name, stand_in in _UNKNOWN.items():
            if fields[name] in (str(stand_in), [{"path": str(stand_in), "weight": None}]):
                fields[name] = None
        return fields


def plan(
    options: dict[str, Any],
    *,
    config_path: Path | None = None,
    datasets: Sequence[Path] = (),
    tokens: int | None = None,
    init: Path | None = None,
    speed: Speed = Speed(),
    rates_path: Path | None = None,
) -> RunPlan:
    """What a run takes and what may be expected of it, from its shape and its plan alone.

    `options` are fields of the configuration, as `resolve_config` takes them, and none is demanded;
    `device` may also name a card that is not here. `tokens` stands for a number of steps, rounded
    up. The shape is that of a preset, or of the model in the container `init`, whose tensors are
    not read. `rates_path` holds rates that were measured on the device.

    Refuses: config.vocab-size-unknown, config.sequence-too-long, device.unknown, device.not-here,
    and what `resolve_config`, a manifest, a tokenizer, a container, a run record or a file of rates
    refuses.
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
    config = _config(options | ({"init": init} if init else {}), config_path, tokens)
    init = config.init
    configured = tuple(source.path for source in config.dataset)
    if not datasets and configured != (_UNKNOWN["dataset"],):
        datasets = configured
    manifests = [read_manifest(directory)[0] for directory in datasets]
    tokenizer = (
        None if config.tokenizer == _UNKNOWN["tokenizer"] else Tokenizer.load(config.tokenizer)
    )
    architecture = _architecture(config, init, manifests, tokenizer)
    config = within_positions(config, architecture if init else None)
    require_positions(config, architecture)
    data = _data(datasets, manifests) if datasets else None
    num_documents = data.num_documents if data else 0
    resolved = divided(config, architecture, num_documents=num_documents, device=on.memory)
    rate, roofline = _rate_beside_the_roofline(resolved, architecture, speed, on)
    facts = costs_of(
        resolved,
        architecture,
        data=data,
        tokenizer_bytes=len(tokenizer.json_bytes) if tokenizer else 0,
        rate=rate,
        seen_tokens=_seen_tokens(init),
        device_memory=on.memory,
    )
    planned = config.planned_tokens
    worth = effective_tokens(planned, data.unique_tokens) if data else float(planned)
    facts |= roofline | {
        "source": str(init) if init else f"preset {config.arch}",
        "expected_loss": expected_losses(architecture, worth, is_continued=init is not None),
        "token_budget": budget(config, architecture, data, seen_tokens=_seen_tokens(init)),
    }
    return RunPlan(config, tuple(datasets), init, on, facts)


def _config(options: dict[str, Any], config_path: Path | None, tokens: int | None) -> TrainConfig:
    def resolved(**changes: Any) -> TrainConfig:
        return resolve_config(options | changes, config_path=config_path, assumed=dict(_UNKNOWN))

    if tokens is None:
        return resolved()
    # A step is of at least one token, so that nothing of a possible run is refused too early.
    batch_tokens = resolved(num_steps=tokens).batch_tokens
    return resolved(num_steps=-(-tokens // batch_tokens))


def _architecture(
    config: TrainConfig, init: Path | None, manifests: list[Manifest], tokenizer: Tokenizer | None
) -> Architecture:
    if init is not None:
        with Container.open(init) as container:
            return require_contents(container)
    known = [manifest.vocab_size for manifest in manifests]
    known += [tokenizer.vocab_size] if tokenizer else []

    def shape(entries: int) -> Architecture:
        assert config.arch is not None, "a configuration without an initial model has a preset"
        return preset(config.arch, tokenizer_vocab_size=entries, vocab_size=config.vocab_size)

    if not known and shape(1) != shape(2):
        raise UsageRefusal(
            "config.vocab-size-unknown",
            f"--arch {config.arch}",
            found="neither a tokenizer nor shards nor a size",
            expected="the number of token ids, which this preset takes from the tokenizer",
            fix="give --vocab-size N, --tokenizer or --dataset",
        )
    return shape(max(known, default=1))


def _seen_tokens(init: Path | None) -> int | None:
    if init is None:
        return 0
    with Container.open(init) as container:
        return tokens_seen(container.metadata)


def _data(datasets: Sequence[Path], manifests: list[Manifest]) -> Data:
    return Data(
        count_copies(list(map(documents_of_directory, datasets, manifests))),
        num_documents=sum(manifest.total_documents for manifest in manifests),
    )


def _rate_beside_the_roofline(
    config: TrainConfig, architecture: Architecture, speed: Speed, on: PlannedDevice
) -> tuple[Rate, dict[str, Any]]:
    """The throughput to compute hours with, the roofline's own where no other is known."""
    rate, found = _rate(config, architecture, speed), on.predict(config, architecture)
    if isinstance(found, str):
        return rate, {"roofline": None, "roofline_reason": found}
    facts = found.as_facts(rate)
    return (found.rate() if speed == Speed() else rate), {"roofline": facts}


def _rate(config: TrainConfig, architecture: Architecture, speed: Speed) -> Rate:
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
    # torch is loaded for this alone.
    from apr.train.measured_rate import measure_rate

    return measure_rate(config, architecture, limit_s=_MEASURING_S)
