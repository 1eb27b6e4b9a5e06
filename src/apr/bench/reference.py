"""The training that is measured: the model, the batch, and how much of it."""

from dataclasses import dataclass, replace
from pathlib import Path

from apr.architecture import Architecture, preset
from apr.train.config import TrainConfig
from apr.train.division import divided
from apr.train.resolved_config import resolve_config

# Small enough for two cores, and of the proportions that larger models have.
REFERENCE = Architecture(
    model_type="llama",
    vocab_size=8192,
    hidden_size=256,
    intermediate_size=704,
    num_hidden_layers=6,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=32,
    max_position_embeddings=2048,
    rope_theta=10_000.0,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
)
_NOWHERE = Path("unused")
# A preset that takes its vocabulary from a tokenizer gets that of `apr demo`.
_VOCAB_SIZE = 4096
# Long enough that every choice is that of a run worth waiting for.
_LONG_RUN_STEPS = 100_000


@dataclass(frozen=True)
class Workload:
    """What every side of a comparison trains, and how many steps of it are timed."""

    architecture: Architecture
    config: TrainConfig
    """The choices of `apr pretrain` for a long run; no side reads its paths."""
    num_steps: int
    num_warmup_steps: int

    @property
    def micro_batch_size(self) -> int:
        """Sequences of one forward pass."""
        return self.config.batch_size // self.config.num_micro_batches

    def on(self, device: str) -> "Workload":
        """The same on a device whose name has no `auto` left in it."""
        return replace(self, config=self.config.model_copy(update={"device": device}))


def workload(
    options: dict[str, object],
    *,
    on_cpu: bool,
    num_steps: int,
    num_warmup_steps: int,
) -> Workload:
    """The workload of these options of `apr pretrain`, with defaults that suit the device.

    Without an `arch` it is the reference model at 16 x 256 on a CPU, and qwen2-0.5b at 16 x 2048
    elsewhere.

    Refuses: config.unknown-preset, and as `resolve_config`.
    """
    named = options.get("arch") or (None if on_cpu else "qwen2-0.5b")
    config = resolve_config(
        {field: value for field, value in options.items() if value is not None},
        assumed={
            "dataset": _NOWHERE,
            "tokenizer": _NOWHERE,
            "run_dir": _NOWHERE,
            "num_steps": _LONG_RUN_STEPS,
            "batch_size": 16,
            "seq_length": 256 if on_cpu else 2048,
        },
    )
    if named is None:
        architecture = replace(REFERENCE, vocab_size=config.vocab_size or REFERENCE.vocab_size)
    else:
        architecture = preset(
            str(named), tokenizer_vocab_size=_VOCAB_SIZE, vocab_size=config.vocab_size
        )
    return Workload(architecture, divided(config, architecture), num_steps, num_warmup_steps)
