"""A second forward pass, in numpy, for a proof that two files hold one model.

It shares no code with `model.transformer` and reads a source's own numbers (`ReferenceConfig`) and
its tensors as they are stored, before anything was renamed, permuted or rounded. It is written to
be read beside the papers, and is slow.

Sources: Vaswani et al. 2017 (attention), Su et al. 2021 equation 15 (rotary), Zhang and Sennrich
2019 equation 4 (RMS norm), Shazeer 2020 section 2 (SwiGLU), Ainslie et al. 2023 (query groups).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apr.convert.source import ReferenceConfig
from apr.convert.weights import Values, Weights

Operation = tuple[str, Values]


@dataclass(frozen=True)
class Reference:
    """A model as its source describes it."""

    config: ReferenceConfig
    weights: Weights

    def embed(self, ids_BT: NDArray[np.intp]) -> Values:
        """The residual stream before the first layer."""
        rows = self.weights.rows("model.embed_tokens.weight", ids_BT.ravel())
        return rows.reshape(*ids_BT.shape, -1)

    def layer(self, number: int, x_BTD: Values) -> Iterator[Operation]:
        """One layer, operation by operation; the last one is the residual stream after it."""
        prefix = f"model.layers.{number}."
        normed = self._norm(x_BTD, f"{prefix}input_layernorm.weight")
        yield "input norm", normed
        q = self._heads(normed, f"{prefix}self_attn.q_")
        yield "queries", self._shown(q)
        k = self._heads(normed, f"{prefix}self_attn.k_")
        yield "keys", self._shown(k)
        v = self._heads(normed, f"{prefix}self_attn.v_")
        yield "values", v
        cos_TP, sin_TP = self._angles(x_BTD.shape[1])
        q, k = self._turn(q, cos_TP, sin_TP), self._turn(k, cos_TP, sin_TP)
        yield "queries after rotary", self._shown(q)
        yield "keys after rotary", self._shown(k)
        mixed = self._attend(q, k, v)
        yield "attention", mixed
        joined = mixed.transpose(0, 2, 1, 3).reshape(*x_BTD.shape[:2], -1)
        projected = self._map(joined, f"{prefix}self_attn.o_proj.weight")
        yield "attention output", projected
        x_BTD = x_BTD + projected
        normed = self._norm(x_BTD, f"{prefix}post_attention_layernorm.weight")
        yield "norm after attention", normed
        gate = self._map(normed, f"{prefix}mlp.gate_proj.weight")
        up = self._map(normed, f"{prefix}mlp.up_proj.weight")
        hidden = _silu(gate) * up
        yield "feed-forward inside", hidden
        down = self._map(hidden, f"{prefix}mlp.down_proj.weight")
        yield "feed-forward", down
        yield "residual stream", x_BTD + down

    def final_norm(self, x_BTD: Values) -> Values:
        """The residual stream as the output head sees it."""
        return self._norm(x_BTD, "model.norm.weight")

    @property
    def head_name(self) -> str:
        """The tensor that makes logits: a head of its own, else the embedding."""
        own = "lm_head.weight"
        return own if own in self.weights else "model.embed_tokens.weight"

    def in_halves(self, rows: Values) -> Values:
        """A query or key projection with its rows in split-half order, whatever the source's."""
        by_head = rows.reshape(-1, self.config.head_dim, *rows.shape[1:])
        return np.moveaxis(self._shown(np.moveaxis(by_head, 1, -1)), -1, 1).reshape(rows.shape)

    def _norm(self, x: Values, name: str) -> Values:
        mean_square = np.mean(np.square(x), axis=-1, keepdims=True)
        normed = x / np.sqrt(mean_square + np.float32(self.config.rms_norm_eps))
        return (normed * self.weights.whole(name)).astype(np.float32, copy=False)

    def _map(self, x: Values, name: str) -> Values:
        return np.matmul(x, self.weights.whole(name).T)

    def _heads(self, x_BTD: Values, prefix: str) -> Values:
        y = self._map(x_BTD, f"{prefix}proj.weight")
        if f"{prefix}proj.bias" in self.weights:
            y = y + self.weights.whole(f"{prefix}proj.bias")
        y = y.reshape(*y.shape[:2], -1, self.config.head_dim)
        if f"{prefix}norm.weight" in self.weights:
            y = self._norm(y, f"{prefix}norm.weight")
        return y.transpose(0, 2, 1, 3)

    def _angles(self, num_positions: int) -> tuple[Values, Values]:
        pairs = np.arange(self.config.head_dim // 2, dtype=np.float64)
        per_position = self.config.rope_theta ** (-2.0 * pairs / self.config.head_dim)
        if self.config.rope_factors is not None:
            per_position = per_position / np.asarray(self.config.rope_factors, np.float64)
        elif self.config.rope_scaling is not None:
            per_position = _stretched(per_position, dict(self.config.rope_scaling))
        angles_TP = np.arange(num_positions, dtype=np.float64)[:, None] * per_position
        return np.cos(angles_TP).astype(np.float32), np.sin(angles_TP).astype(np.float32)

    def _turn(self, x: Values, cos_TP: Values, sin_TP: Values) -> Values:
        first, second = self._pairs(x)
        turned = np.empty_like(x)
        at_first, at_second = self._pairs(turned)
        at_first[...] = first * cos_TP - second * sin_TP
        at_second[...] = second * cos_TP + first * sin_TP
        return turned

    def _pairs(self, x: Values) -> tuple[Values, Values]:
        """Views of the two elements of every pair."""
        if self.config.rotary_pairs == "adjacent":
            return x[..., 0::2], x[..., 1::2]
        half = self.config.head_dim // 2
        return x[..., :half], x[..., half:]

    def _shown(self, x: Values) -> Values:
        """Heads in split-half order, whatever the source's, for comparing."""
        return np.concatenate(self._pairs(x), axis=-1)

    def _attend(self, q: Values, k: Values, v: Values) -> Values:
        mixed = np.empty_like(q)
        num_heads, num_positions = q.shape[1:3]
        group = num_heads // k.shape[1]
        unseen = np.triu(np.full((num_positions, num_positions), -np.inf, np.float32), 1)
        for head in range(num_heads):
            keys, values = k[:, head // group], v[:, head // group]
            scores = q[:, head] @ keys.transpose(0, 2, 1) / np.sqrt(np.float32(q.shape[3]))
            scores = scores + unseen
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            mixed[:, head] = weights / weights.sum(-1, keepdims=True) @ values
        return mixed


def _silu(x: Values) -> Values:
    # Beyond 80 the exponential leaves fp32, and the result no longer depends on it.
    return (x / (1.0 + np.exp(-np.clip(x, -80.0, 80.0)))).astype(np.float32)


def _stretched(per_position: NDArray[np.float64], scaling: dict[str, float]) -> NDArray[np.float64]:
    """Llama 3's frequencies, wave by wave, as its description says it."""
    result = per_position.copy()
    original, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    for pair, frequency in enumerate(per_position):
        wavelength = 2.0 * np.pi / frequency
        if wavelength > original / low:
            result[pair] = frequency / factor
        elif wavelength > original / high:
            share = (original / wavelength - low) / (high - low)
            result[pair] = (1.0 - share) * frequency / factor + share * frequency
    return result
