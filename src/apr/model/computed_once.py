"""Keep a compiler from computing a small tensor again in every kernel that reads it."""

import torch
from torch import Tensor


@torch.library.custom_op("apr::computed_once", mutates_args=())
def computed_once(tensor: Tensor) -> Tensor:
    """A copy, which a compiler cannot look through; no gradient flows back from it.

    What is made of elementwise operations is otherwise made anew in each kernel that reads it:
    the cosine of a position once per head, layer and row.
    """
    return tensor.clone()


@computed_once.register_fake
def _(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor)
