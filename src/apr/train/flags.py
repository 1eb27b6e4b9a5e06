"""What a flag of a run is where it is not given, and the field that it overrides.

Nothing heavy is imported here, so that help stays fast.
"""

from dataclasses import dataclass

PRESET = "llama-370m"
"""The model's shape where no initial model brings one."""
NUM_STEPS = 1000
BATCH_SIZE = 16
SEQ_LENGTH = 1024
EVAL_EVERY = 100
PATIENCE = 5
KEEP = 2
SEED = 42
TOKENS_PER_S = (1e-3, 1e12)
"""A throughput lies between these: no machine is slower or faster."""


@dataclass(frozen=True)
class ModeDefaults:
    """What the mode of a run decides where nothing was asked for."""

    learning_rate: float
    warmup_steps: int
    """At most half of the run."""
    target_val_loss: float
    """Nats per token; the Rust tools' targets."""


BY_MODE = {
    "from-scratch": ModeDefaults(learning_rate=3e-4, warmup_steps=1000, target_val_loss=3.0),
    "finetune": ModeDefaults(learning_rate=5e-5, warmup_steps=100, target_val_loss=2.2),
}
FIELD_OF_FLAG = {"lr": "learning_rate"}
"""The field that a flag overrides, where the two names differ."""
FLAG_OF_FIELD = {field: flag for flag, field in FIELD_OF_FLAG.items()}


def flag_of(field: str) -> str:
    """The flag of a field of the configuration, as it is typed."""
    return "--" + FLAG_OF_FIELD.get(field, field).replace("_", "-")
