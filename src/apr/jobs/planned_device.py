"""The device that a plan is for: one of this machine, or a card that is only known by its rates."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apr.architecture import Architecture
from apr.errors import UsageRefusal
from apr.train.config import TrainConfig
from apr.train.device_memory import DeviceMemory
from apr.train.device_option import names_a_device_here
from apr.train.device_rates import DeviceRates, read_device_rates, shipped_rates
from apr.train.devices import DEVICES, Device, device_named
from apr.train.predicted_rate import PredictedRate, predict_rate

_NO_RATES = (
    f"no rates are known of this device: name a card ({', '.join(DEVICES)}), or give --rates FILE"
)


@dataclass(frozen=True)
class PlannedDevice:
    """`card` is None for a device of this machine, `rates` where none were measured."""

    name: str
    card: Device | None
    rates: DeviceRates | None

    @property
    def memory(self) -> DeviceMemory | None:
        """What a card holds that is not here; None for a device that can be asked."""
        if self.card is None:
            return None
        source = f"all memory of one {self.card.name}"
        return DeviceMemory(self.card.memory_bytes, source, on_cpu=False)

    def predict(self, config: TrainConfig, architecture: Architecture) -> PredictedRate | str:
        """The roofline of a run on it, or why there is none."""
        if self.card is None and self.rates is None:
            return _NO_RATES
        if self.card and config.precision == "fp32":
            return "the rates of a card are those of bf16, and --precision fp32 was asked for"
        return predict_rate(
            architecture,
            device=self.card,
            measured=self.rates,
            sequence_length=config.seq_length,
            micro_batch_tokens=config.batch_tokens // config.num_micro_batches,
            batch_tokens=config.batch_tokens,
        )


def planned_device(
    options: dict[str, Any], rates_path: Path | None
) -> tuple[PlannedDevice, dict[str, Any]]:
    """The device that `options` name, and the options as a configuration takes them.

    A card stands for the CUDA device of the machine that will run, which computes in bf16.

    Refuses: device.unknown, rates.without-device, and what `read_device_rates` refuses.
    """
    name = str(options.get("device", "auto"))
    if name != "cpu" and names_a_device_here(name):
        if rates_path is not None:
            raise UsageRefusal(
                "rates.without-device",
                "--rates",
                found=f"--device {name}",
                expected="--device cpu, or the name of a card: rates hold for one kind of device",
                fix=f"add --device NAME: one of cpu, {', '.join(DEVICES)}",
            )
        return PlannedDevice(name, None, None), options
    card = None if name == "cpu" else device_named(name)
    if rates_path is not None:
        rates = read_device_rates(rates_path, device=name)
    else:
        rates = shipped_rates(card) if card else None
    if card is None:
        return PlannedDevice(name, None, rates), options
    options = options | {"device": "cuda"}
    if options.get("precision", "auto") == "auto":
        options["precision"] = "bf16"
    return PlannedDevice(name, card, rates), options
