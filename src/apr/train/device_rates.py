"""Rates that were measured on a device: a small closed file that replaces assumptions.

`benchmarks/gpu.py` writes it, `apr plan --device NAME --rates FILE` reads it. What could not be
measured is null with a reason, and keeps its assumption.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from apr.architecture import Architecture
from apr.errors import DamagedFile, UsageRefusal
from apr.files import read_json
from apr.train.devices import DEVICES, Device, Rates

SCHEMA = "apr-device-rates-v1"
_LIMIT_BYTES = 1 << 16
# Rates of a card that is shipped with apr lie here as NAME.json. None was measured yet.
SHIPPED = Path(__file__).parent / "measured"

_Rate = Annotated[float, Field(gt=0, le=1e18)]
_Text = Annotated[str, Field(min_length=1, max_length=200)]
_Size = Annotated[int, Field(gt=0, lt=1 << 40)]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class MeasuredShape(_Closed):
    """The shape whose products and attention were timed; another shape has other rates."""

    hidden_size: _Size
    intermediate_size: _Size
    num_attention_heads: _Size
    num_key_value_heads: _Size
    head_dim: _Size
    vocab_size: _Size
    sequence_length: _Size
    micro_batch_tokens: _Size


class MeasuredRates(_Closed):
    """As `apr.train.devices.Rates`; None where `missing` says why."""

    body_flops_per_s: _Rate | None
    head_flops_per_s: _Rate | None
    attention_forward_flops_per_s: _Rate | None
    attention_backward_flops_per_s: _Rate | None
    elementwise_bytes_per_s: _Rate | None
    copy_bytes_per_s: _Rate | None


class DeviceRates(_Closed):
    """One device, measured once."""

    schema_name: Annotated[Literal["apr-device-rates-v1"], Field(alias="schema")]
    device: _Text
    """A name that `--device` takes, or `cpu`."""
    device_name: _Text
    """What torch calls it."""
    measured_at: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    software: Annotated[dict[_Text, _Text], Field(max_length=20)]
    """Versions the rates hold for."""
    shape: MeasuredShape
    matmul_ceiling_flops_per_s: _Rate
    """The best of all matrix products that were timed, a large square one among them."""
    rates: MeasuredRates
    missing: dict[_Text, _Text]
    """Why a rate is null, by its name."""

    @model_validator(mode="after")
    def _account_for_every_rate(self) -> "DeviceRates":
        unmeasured = {name for name, rate in self.rates if rate is None}
        if unmeasured != set(self.missing):
            raise ValueError(f"null rates {sorted(unmeasured)}, reasons {sorted(self.missing)}")
        if len(unmeasured) == len(Rates._fields):
            raise ValueError("no rate was measured")
        return self

    def measured(self, name: str) -> float | None:
        """One rate, by its name."""
        return getattr(self.rates, name)

    def word(self, name: str, architecture: Architecture, *, sequence_length: int) -> str:
        """Whether a rate holds for a shape, or was taken from another one."""
        ours = {name: getattr(architecture, name, None) for name, _ in self.shape}
        ours |= {"sequence_length": sequence_length}
        decisive = _DECISIVE.get(name.partition("_")[0], ())
        if all(getattr(self.shape, field) == ours[field] for field in decisive):
            return "measured"
        return "measured at another shape"


# What a rate depends on so much that it should be measured again. Traffic hardly does.
_DECISIVE = {
    "body": ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads"),
    "head": ("hidden_size", "vocab_size"),
    "attention": ("head_dim", "sequence_length"),
}


def read_device_rates(path: Path, *, device: str) -> DeviceRates:
    """Rates of `device`, a card's name or `cpu`, out of a file.

    Refuses: files.not-found, files.io-failed, rates.damaged, rates.other-device, rates.impossible.
    """
    data = read_json(path, limit_bytes=_LIMIT_BYTES, id="rates.damaged", what=f"{SCHEMA} in JSON")
    try:
        found = DeviceRates.model_validate(data)
    except ValidationError as err:
        problem = err.errors()[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise DamagedFile(
            "rates.damaged",
            f"{path}, {field}" if field else path,
            found=f"{problem['msg']}: {str(problem['input'])[:80]!r}",
            expected=f"{SCHEMA}, as benchmarks/gpu.py writes it",
            fix="measure again, or copy the file again",
        ) from err
    if found.device != device:
        raise UsageRefusal(
            "rates.other-device",
            path,
            found=f"rates of {found.device} ({found.device_name})",
            expected=f"rates of {device}",
            fix=f"name the device that was measured: --device {found.device}",
        )
    _require_possible(found, path)
    return found


def shipped_rates(device: Device, *, directory: Path = SHIPPED) -> DeviceRates | None:
    """What apr itself brings for a card; None where nothing was measured on one."""
    path = directory / f"{device.name}.json"
    return read_device_rates(path, device=device.name) if path.is_file() else None


def _require_possible(found: DeviceRates, path: Path) -> None:
    """No product is faster than the best one, and nothing than the sheet of its card."""
    device = DEVICES.get(found.device)
    if device and found.device_name not in device.reported_names:
        raise _impossible(
            path, "device_name", repr(found.device_name), " or ".join(device.reported_names)
        )
    ceiling = found.matmul_ceiling_flops_per_s
    if device and ceiling > device.sheet_flops_per_s:
        limit = f"at most the sheet's {device.sheet_flops_per_s:.4g}"
        raise _impossible(path, "matmul_ceiling_flops_per_s", f"{ceiling:.4g}", limit)
    for name, rate in found.rates:
        if rate is None:
            continue
        if name.endswith("flops_per_s") and rate > ceiling:
            raise _impossible(
                path, name, f"{rate:.4g}", f"at most the file's own ceiling, {ceiling:.4g}"
            )
        if device and name.endswith("bytes_per_s") and rate > device.sheet_bytes_per_s:
            limit = f"at most the sheet's {device.sheet_bytes_per_s:.4g}"
            raise _impossible(path, name, f"{rate:.4g}", limit)


def _impossible(path: Path, name: str, found: str, expected: str) -> DamagedFile:
    return DamagedFile(
        "rates.impossible",
        f"{path}, {name}",
        found=found,
        expected=expected,
        fix="measure again with benchmarks/gpu.py; a clock or a formula was wrong",
    )
