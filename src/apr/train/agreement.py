"""Whether ranks agree: 64 bits of each thing that must be equal on all of them."""

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from apr.errors import Refusal
from apr.train.ranks import Ranks

_FIX = (
    "continue from the last checkpoint with --resume; if it happens again, look at the memory and "
    "the driver of these ranks' machine"
)
_COLUMNS = 1024
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# Odd, so that no change of a sum is multiplied away modulo 2**64.
_FACTOR = 0x9E3779B97F4A7C15
_BITS = (1 << 64) - 1
_SIGNED_FACTOR = _FACTOR - (1 << 64)


def digest_of_tensors(tensors: Iterable[Tensor]) -> int:
    """64 bits of the exact bits of tensors and of where each stands.

    Any one element that changes, by however little, changes the result; two that trade places in a
    tensor do, unless they are whole rows of 1024 apart and in one column.
    """
    # Read at the end: a device that is asked for each tensor has nothing queued meanwhile.
    sums = [_sum_of_bits(tensor) for tensor in tensors]
    result = 0
    for found in torch.stack(sums).tolist() if sums else []:
        result = ((result + found) * _FACTOR) & _BITS
    return result


def digest_of_text(text: str) -> int:
    """64 bits of a text, for what is no tensor."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def require_agreement(
    ranks: Ranks, step: int, digests: Mapping[str, int], *, fix: str = _FIX
) -> None:
    """Refuse to go on when something that must be equal on all ranks is not.

    Refuses: ranks.differ.
    """
    # Halves, because a signed word holds no 64 bits without a sign.
    halves = [half for digest in digests.values() for half in (digest >> 32, digest & 0xFFFFFFFF)]
    table = ranks.gathered(halves)
    for at, name in enumerate(digests):
        of_ranks = [tuple(row[2 * at : 2 * at + 2]) for row in table]
        others = [str(rank) for rank, each in enumerate(of_ranks) if each != of_ranks[0]]
        if others:
            raise Refusal(
                "ranks.differ",
                f"step {step}, {name}",
                found=f"another value on rank {', '.join(others)} than on rank 0",
                expected=f"the same bits on all {ranks.world_size} ranks",
                fix=fix,
            )


def _sum_of_bits(tensor: Tensor) -> Tensor:
    """One 64-bit number, where the tensor is."""
    words = tensor.detach().contiguous().view(-1).view(_WORDS[tensor.element_size()])
    whole = words.numel() // _COLUMNS * _COLUMNS
    total = torch.zeros((), dtype=torch.int64, device=words.device)
    # Sums wrap around in 64 bits, which is as good as any other remainder.
    if whole:
        columns = words[:whole].view(-1, _COLUMNS).sum(dim=0, dtype=torch.int64)
        total = (columns * _places(_COLUMNS, words.device)).sum()
    if rest := words.numel() - whole:
        of_rest = (words[whole:].to(torch.int64) * _places(rest, words.device)).sum()
        total = total * _SIGNED_FACTOR + of_rest
    return total + tensor.numel()


def _places(number: int, device: torch.device) -> Tensor:
    return 2 * torch.arange(number, dtype=torch.int64, device=device) + 1
