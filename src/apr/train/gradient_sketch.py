"""What is kept of the gradients of a dealt out model, which are nowhere whole.

Every number of a gradient is added, with a random sign, to one of a thousand sums. These
projections have the angles and the lengths of the gradients to within some 4 %, and of two that
are nearly the same the difference to within 4 % of itself; what is zero or not finite stays so.
Each rank projects what its own rows gave, before the ranks are averaged, so that nothing which is
wrong on one of them can hide among the others.

Source: Charikar, Chen and Farach-Colton 2002, the count sketch, with one row.
"""

import hashlib

import torch
from torch import Tensor

from apr.model.transformer import Transformer
from apr.train.batches import Batch
from apr.train.data_parallel import DealtOut
from apr.train.gradients_gate import Gradients
from apr.train.step import SummedLoss, accumulate_batch

# A prime, so that no column of a matrix has a sum to itself and to its like.
_LENGTH = 1021
_PIECE = _LENGTH << 12


def sketch(name: str, gradient: Tensor) -> Tensor:
    """The projection of one parameter's gradient, fp64; the signs follow from its name."""
    sums = torch.zeros(_LENGTH, dtype=torch.float64, device=gradient.device)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") >> 1
    signs = torch.Generator(gradient.device).manual_seed(seed)
    # Piece by piece: the signs of an embedding would take as much memory as its gradient.
    for piece in gradient.detach().reshape(-1).split(_PIECE):
        turned = torch.randint(
            2, piece.shape, generator=signs, dtype=torch.int8, device=piece.device
        )
        signed = torch.where(turned.bool(), piece, -piece)
        full = signed[: len(signed) // _LENGTH * _LENGTH].view(-1, _LENGTH)
        sums += full.sum(dim=0, dtype=torch.float64)
        rest = signed[full.numel() :]
        sums[: len(rest)] += rest
    return sums


def measure_sketches(
    dealt: DealtOut,
    model: Transformer,
    batch: Batch,
    loss_function: SummedLoss,
    *,
    document_mask: bool,
    num_parts: int = 1,
) -> Gradients:
    """As `gradients_gate.measure_gradients`, of this rank's rows, with projections for tensors.

    Every rank must measure at the same time, as many parts.
    """
    sums: dict[str, Tensor] = {}

    def see(name: str, gradient: Tensor) -> None:
        found = sketch(name, gradient)
        sums[name] = sums[name] + found if name in sums else found

    with dealt.gradients_seen(see):
        loss_nats = accumulate_batch(
            model,
            batch,
            dealt.through(loss_function),
            document_mask=document_mask,
            num_parts=num_parts,
        )
    model.zero_grad(set_to_none=True)
    never = torch.zeros(_LENGTH, dtype=torch.float64, device=model.head_weight.device)
    tensors = {name: sums.get(name, never) for name, _ in model.named_parameters()}
    norms = {name: float(projected.norm()) for name, projected in tensors.items()}
    return Gradients(loss_nats, tensors, norms)
