"""What a person gave, as the configuration of a run with nothing left open, or refused."""

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from apr.errors import DamagedFile, UsageRefusal
from apr.files import read_bytes
from apr.train import flags
from apr.train.config import TrainConfig
from apr.train.consistency import require_consistent
from apr.train.gates import require_waivable

_WSD_DECAY_FRACTION = 0.2
_CONFIG_LIMIT_BYTES = 1 << 20


def resolve_config(
    options: dict[str, Any],
    *,
    config_path: Path | None = None,
    assumed: dict[str, Any] | None = None,
) -> TrainConfig:
    """Merge a TOML file with overrides, fill in what follows, and refuse what cannot be.

    `options` holds the fields that were given explicitly; `assumed` those that neither has to give.

    Refuses: config.invalid, config.not-toml, config.init-missing, config.init-shape,
    config.batch-not-divisible, config.warmup-longer-than-run, config.eval-longer-than-run,
    config.muon-finetune, config.without-effect, config.waiver, config.device,
    config.mixture-weights, config.mixture-without-val.
    """
    given = (assumed or {}) | (_read_toml(config_path) if config_path else {}) | options
    try:
        config = TrainConfig.model_validate(given)
    except ValidationError as err:
        raise _invalid(err) from err
    require_waivable(config.waive)
    config = _fill_defaults(config)
    require_consistent(config)
    return config


def _invalid(err: ValidationError) -> UsageRefusal:
    """The first problem, but all that is missing at once, and what is unknown before it."""
    problems = err.errors()
    whole = [(each["type"], str(each["loc"][0])) for each in problems if len(each["loc"]) == 1]
    unknown = [field for kind, field in whole if kind == "extra_forbidden"]
    missing = [field for kind, field in whole if kind == "missing"]
    if unknown:
        return _unknown_key(unknown[0])
    if missing:
        needed = ", ".join(map(flags.flag_of, missing))
        return UsageRefusal(
            "config.invalid",
            needed,
            found="nothing",
            expected="what every run needs",
            fix=f"give {needed}, or {', '.join(missing)} in the file of --config",
        )
    problem = problems[0]
    return UsageRefusal(
        "config.invalid",
        ".".join(str(part) for part in problem["loc"]) or "configuration",
        found=repr(problem["input"]),
        expected=problem["msg"],
        fix="apr pretrain --help lists every option",
    )


def _unknown_key(key: str) -> UsageRefusal:
    fields = list(TrainConfig.model_fields)
    spelled = key.lstrip("-").replace("-", "_")
    close = [flags.FIELD_OF_FLAG.get(spelled, spelled)]
    if close[0] not in fields:
        close = get_close_matches(spelled, fields, n=1)
    return UsageRefusal(
        "config.invalid",
        key,
        found="a key that no option has",
        expected="a field of a run's configuration",
        fix=f"did you mean {close[0]}?" if close else "choose one of " + ", ".join(fields),
    )


def _fill_defaults(config: TrainConfig) -> TrainConfig:
    mode = config.mode or ("finetune" if config.init else "from-scratch")
    defaults = flags.BY_MODE[mode]
    filled: dict[str, Any] = {"mode": mode}
    if config.arch is None and config.init is None:
        filled["arch"] = flags.PRESET
    if config.decay_fraction is None and config.schedule == "wsd":
        filled["decay_fraction"] = _WSD_DECAY_FRACTION
    if config.learning_rate is None:
        filled["learning_rate"] = defaults.learning_rate
    if config.warmup_steps is None:
        # A run too short for its mode's warm-up spends half of itself on it.
        filled["warmup_steps"] = int(min(defaults.warmup_steps, config.num_steps // 2))
    if "eval_every" not in config.model_fields_set:
        filled["eval_every"] = min(config.eval_every, config.num_steps)
    if config.checkpoint_every is None:
        filled["checkpoint_every"] = filled.get("eval_every", config.eval_every)
    if config.target_val_loss is None and config.stop_at_target:
        filled["target_val_loss"] = defaults.target_val_loss
    return config.model_copy(update=filled)


def _read_toml(path: Path) -> dict[str, Any]:
    data = read_bytes(
        path, limit_bytes=_CONFIG_LIMIT_BYTES, id="config.not-toml", what="a TOML run file"
    )
    try:
        return tomllib.loads(data.decode("utf-8"))
    except ValueError as err:
        raise DamagedFile(
            "config.not-toml",
            path,
            found=str(err),
            expected="a TOML run file",
            fix="correct the line named above",
        ) from err
