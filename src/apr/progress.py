"""How long work tells its caller where it is; the library itself never prints."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One report of work under way; rate and ETA follow from `done`, `total` and the clock."""

    activity: str
    done: int
    total: int | None
    unit: str
    detail: str = ""


Report = Callable[[Progress], None]


def silent(_progress: Progress) -> None:
    """The report of a caller who does not want one."""
