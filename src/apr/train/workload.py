"""What decides the memory of a run, as one value that estimates are made of."""

from dataclasses import dataclass
from typing import Literal

from apr.architecture import Architecture
from apr.train.hidden_matrices import OptimizerName

Precision = Literal["fp32", "bf16"]

ITEM_BYTES = {"fp32": 4, "bf16": 2}
FP32_BYTES = ITEM_BYTES["fp32"]


@dataclass(frozen=True)
class Workload:
    """What decides the memory of a run."""

    architecture: Architecture
    batch_size: int
    """Sequences per optimizer update."""
    sequence_length: int
    grad_accum: int = 1
    num_shards: int = 1
    """Ranks that weights, gradients and the optimizer's moments are dealt out to."""
    optimizer: OptimizerName = "adamw"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    activation_checkpointing: bool = False
    """Whether a block keeps its input alone, and its backward pass computes the rest again."""
    compiled: bool | None = None
    """None where that is not yet decided."""
    document_mask: bool = True
    attention: str = "plain"
    """The way in which it is computed."""
    num_documents: int = 0
    on_cpu: bool = True
    """Whether model, data and interpreter share one memory."""

    @property
    def micro_batch_tokens(self) -> int:
        """Tokens of one forward pass."""
        return self.batch_size // self.grad_accum * self.sequence_length
