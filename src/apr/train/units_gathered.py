"""Which weights of a dealt out model are gathered at a time, and what a rank holds of them.

Known from the shape alone, so that a plan counts what `train.data_parallel` will do.
"""

from dataclasses import dataclass
from math import prod

from apr.architecture import Architecture

ONE_UNIT_BYTES = 1 << 27
"""Below this a whole model is gathered at once: fewer messages, and little to save."""
_FP32_BYTES = 4


@dataclass(frozen=True)
class Units:
    """What is gathered together, in bytes of fp32 weights."""

    around_bytes: int
    """What stays gathered from the start of a forward pass to the end of the backward one:
    embedding, head and last norm, or all of a small model."""
    block_bytes: int
    """One block, gathered while it computes; 0 where blocks are not gathered on their own."""

    @property
    def forward_bytes(self) -> int:
        """Most that a forward pass holds of gathered weights.

        Those in use, and those on their way: what arrives is copied to where it is used, and the
        one that arrived before it is let go of then.
        """
        return self.around_bytes + max(self.around_bytes, 3 * self.block_bytes)

    @property
    def backward_bytes(self) -> int:
        """Most that a backward pass holds of gathered weights and of whole gradients.

        While a block computes its gradients, the weights of the next arrive and the gradients of
        the one before are exchanged; what is around the blocks waits with both.
        """
        return 2 * self.around_bytes + 5 * self.block_bytes


def units_of(architecture: Architecture, *, one_unit_bytes: int = ONE_UNIT_BYTES) -> Units:
    """The units of a model; block by block where it is larger than `one_unit_bytes`."""
    whole_bytes = _FP32_BYTES * architecture.num_parameters
    if whole_bytes <= one_unit_bytes:
        return Units(whole_bytes, 0)
    of_blocks = _FP32_BYTES * sum(
        prod(shape)
        for name, shape in architecture.parameter_shapes().items()
        if name.startswith("model.layers.")
    )
    return Units(whole_bytes - of_blocks, of_blocks // architecture.num_hidden_layers)
