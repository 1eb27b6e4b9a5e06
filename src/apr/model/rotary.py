"""Rotary positions: every pair of a head turned by an angle that grows with its position.

Shape letters are those of `apr.model.transformer`; G is half of E here, the pairs of a head.
"""

import math

import torch
from torch import Tensor

from apr.architecture import Architecture
from apr.model.computed_once import computed_once


def rotary_tables(
    architecture: Architecture, start: int, num_positions: int, *, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's rotation, fp32.

    Source: Su et al. 2021, equation 15, in the split-half layout of Hugging Face's Llama.
    """
    frequencies = rotary_frequencies(architecture, device=device)
    positions_T = torch.arange(start, start + num_positions, device=device).float()
    angles_TG = torch.outer(positions_T, frequencies)
    return computed_once(angles_TG.cos()), computed_once(angles_TG.sin())


def rotary_frequencies(architecture: Architecture, *, device: torch.device) -> Tensor:
    """Radians per position of every pair of a head, fp32, stretched where the model says so."""
    exponents = torch.arange(0, architecture.head_dim, 2, device=device).float()
    frequencies = 1.0 / architecture.rope_theta ** (exponents / architecture.head_dim)
    scaling = architecture.rope_scaling
    if scaling is None:
        return frequencies
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return frequencies * (kept + (1.0 - kept) / scaling.factor)


def rotate(x_BHTE: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each (first half, second half) pair of a head by its position's angle."""
    cos_T1G, sin_T1G = (table_TG.unsqueeze(1) for table_TG in rotary)
    # The heads of a position lie side by side, and joining keeps only the order it is shown.
    first, second = x_BHTE.transpose(1, 2).float().chunk(2, dim=-1)
    turned = first * cos_T1G - second * sin_T1G, second * cos_T1G + first * sin_T1G
    return torch.cat(turned, dim=-1).to(x_BHTE.dtype).transpose(1, 2)
