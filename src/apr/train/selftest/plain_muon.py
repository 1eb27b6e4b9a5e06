"""Muon as its authors wrote it down, matrix by matrix: what torch's is held against."""

import torch
from torch import Tensor
from torch.nn import Parameter

# Jordan et al. 2024: the polynomial, how often it is applied, and the momentum.
_A, _B, _C, _NUM_ITERATIONS = 3.4445, -4.7750, 2.0315, 5
_MOMENTUM = 0.95
_TINY = 1e-7
# Liu et al. 2025, equation 4: with it the root mean square of an update is that of AdamW's.
SHARE_OF_RATE = 0.2


class PlainMuon:
    """Nesterov momentum, orthogonalized in bf16, scaled to AdamW's length, with decoupled decay.

    Source: Jordan et al. 2024; Liu et al. 2025, equations 3 and 4.
    """

    def __init__(
        self, matrices: list[Parameter], *, learning_rate: float, weight_decay: float
    ) -> None:
        self.matrices = matrices
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.momenta = [torch.zeros_like(matrix) for matrix in matrices]

    @torch.no_grad()
    def step(self) -> None:
        """Update every matrix by its gradient."""
        for matrix, momentum in zip(self.matrices, self.momenta, strict=True):
            gradient = matrix.grad
            assert gradient is not None, "every matrix of a block has a gradient"
            # A mean where the paper has a sum: the length falls out, how bf16 rounds it does not.
            momentum.mul_(_MOMENTUM).add_((1.0 - _MOMENTUM) * gradient)
            direction = orthogonalized((1.0 - _MOMENTUM) * gradient + _MOMENTUM * momentum)
            scale = SHARE_OF_RATE * max(matrix.shape) ** 0.5
            matrix.mul_(1.0 - self.learning_rate * self.weight_decay)
            matrix.sub_(self.learning_rate * scale * direction.float())


def orthogonalized(matrix: Tensor) -> Tensor:
    """The matrix with all its singular values near 1, in bf16.

    Source: Jordan et al. 2024: X <- a X + (b A + c A A) X with A = X X^T, on the shorter side.
    """
    x = matrix.bfloat16()
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    x = x / x.norm().clamp(min=_TINY)
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.T
        # One rounding to bf16 per line, as torch has it: these iterations magnify each of them.
        polynomial = torch.addmm(gram, gram, gram, beta=_B, alpha=_C)
        x = torch.addmm(x, polynomial, x, beta=_A)
    return x.T if is_tall else x
