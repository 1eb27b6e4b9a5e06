"""Whether a run will compile its kernels, for those who wait for it."""

from typing import TYPE_CHECKING

from apr.architecture import Architecture
from apr.train.acceleration import is_long

if TYPE_CHECKING:
    from apr.train.config import TrainConfig

COMPILING = "compiling kernels, which takes up to a minute the first time"


def will_compile(config: "TrainConfig", architecture: Architecture) -> bool:
    """Whether kernels are to be compiled, as asked for or, by default, for a long run."""
    return is_long(config, architecture) if config.compile is None else config.compile
