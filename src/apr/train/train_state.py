"""How far a run has come: what a resume needs beside weights, moments and the random state."""

from dataclasses import dataclass, field
from typing import Literal

from apr.train.guards import GuardState

Ending = Literal["target_met", "budget_exhausted", "early_stop", "interrupted"]


@dataclass
class TrainState:
    """Everything a resume needs beside weights, moments and RNG.

    The data cursor is `step`: batches are a function of it. `ended` is the word of a run that
    needs no further step. `start_loss_nats` is the periodic set's loss before step 1.
    """

    step: int = 0
    tokens_seen: int = 0
    tokens_by_source: list[int] = field(default_factory=list[int])
    """Of `tokens_seen`, those of each source."""
    best_step: int | None = None
    best_loss_nats: float | None = None
    improved_loss_nats: float | None = None
    stale_validations: int = 0
    start_loss_nats: float | None = None
    guard: GuardState = field(default_factory=GuardState)
    ended: Ending | None = None
    train_s: float = 0.0
    data_s: float = 0.0
    validation_s: float = 0.0
    checkpoint_s: float = 0.0
    """What checkpoints held up the training."""
    checkpoint_write_s: float = 0.0
    """What writing them took in the background, beside the training."""

    def __post_init__(self) -> None:
        """Take the guard's state as JSON has it, too."""
        if isinstance(self.guard, dict):
            self.guard = GuardState(**self.guard)

    @property
    def elapsed_s(self) -> float:
        """Time spent on the run so far, over all its sittings."""
        return self.train_s + self.validation_s + self.checkpoint_s
