"""What may be said with `--device`; whether it is there is for `train.acceleration` to see."""

import re

from apr.errors import UsageRefusal

_DEVICE = re.compile(r"cpu|auto|cuda(:([0-9]|1[0-5]))?")


def names_a_device_here(name: str) -> bool:
    """Whether a name is one that a device of this machine can have."""
    return _DEVICE.fullmatch(name) is not None


def require_device(name: str) -> None:
    """Refuse what names no device.

    Refuses: config.device.
    """
    if not names_a_device_here(name):
        raise UsageRefusal(
            "config.device",
            "--device",
            found=repr(name),
            expected="cpu, auto, cuda, or cuda:0 to cuda:15",
            fix="choose one of these",
        )
