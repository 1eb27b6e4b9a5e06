"""Llama 3's rotary scaling, which a GGUF file holds as divisors instead of as four numbers.

`rope_freqs.weight` has one divisor per pair: 1 for fast waves, `factor` for slow ones, something
between for the rest. Which four numbers made it cannot be read off in general, so it is compared
with what the numbers that are known make: those that apr writes beside the tensor, and those of
the published models. Divisors that none of them makes are refused.

Source: `LlamaModel.generate_extra_tensors` in llama.cpp's convert_hf_to_gguf.
"""

from dataclasses import fields
from math import pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apr.architecture import RopeScaling
from apr.convert.gguf import values
from apr.convert.gguf.values import Field
from apr.errors import Refusal

# Llama 3.1 and 3.3; Llama 3.2.
_PUBLISHED = tuple(
    RopeScaling(
        factor=factor,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )
    for factor in (8.0, 32.0)
)
# Converters compute in single precision, where a power of theta is off by some 1e-6.
_TOLERANCE = 1e-5
_OWN_KEYS = {field.name: f"apr.rope_scaling.{field.name}" for field in fields(RopeScaling)}


def divisors(scaling: RopeScaling, *, rope_theta: float, head_dim: int) -> NDArray[np.float32]:
    """What each frequency of a head is divided by, one number per pair.

    Numbers that no model has give infinities or NaN, which are no file's divisors.
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return _divisors(scaling, rope_theta, head_dim)


def _divisors(scaling: RopeScaling, rope_theta: float, head_dim: int) -> NDArray[np.float32]:
    frequencies = rope_theta ** -(np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    turns = scaling.original_max_position_embeddings * frequencies / (2 * pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    # 1 where a wave turns often enough within the original context, 0 where it turns too rarely.
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - kept) / scaling.factor + kept)).astype("<f4")


def scaling_fields(scaling: RopeScaling) -> list[Field]:
    """The four numbers, for apr alone: other readers go by the tensor."""
    return [
        values.uint32(key, value) if isinstance(value, int) else values.float64(key, float(value))
        for name, key in _OWN_KEYS.items()
        for value in [getattr(scaling, name)]
    ]


def find_scaling(
    found: NDArray[np.float32],
    file_fields: dict[str, Field],
    *,
    rope_theta: float,
    head_dim: int,
    where: str,
) -> RopeScaling:
    """The scaling whose divisors these are.

    Refuses: gguf.rope-scaling-unknown.
    """
    for scaling in (*_own(file_fields), *_PUBLISHED):
        expected = divisors(scaling, rope_theta=rope_theta, head_dim=head_dim)
        if found.shape == expected.shape and np.allclose(found, expected, rtol=_TOLERANCE, atol=0):
            return scaling
    raise Refusal(
        "gguf.rope-scaling-unknown",
        where,
        found=f"divisors of the frequencies from {found.min()} to {found.max()}",
        expected="those of Llama 3.1 (factor 8) or Llama 3.2 (factor 32), or numbers beside them",
        fix="import the model from its Hugging Face directory, whose config.json has the numbers",
    )


def _own(file_fields: dict[str, Field]) -> list[RopeScaling]:
    numbers: dict[str, Any] = {
        name: file_fields[key].value for name, key in _OWN_KEYS.items() if key in file_fields
    }
    if len(numbers) < len(_OWN_KEYS):
        return []
    try:
        return [RopeScaling(**numbers)]
    except Refusal:
        return []  # no scaling, so nothing that could have made the tensor
