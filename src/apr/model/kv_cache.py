"""Keys and values of the positions a sequence has already been through."""

import torch
from torch import Tensor

from apr.architecture import Architecture


class KeyValueCache:
    """Room for `capacity` positions of one batch; `length` of them are filled.

    The model advances `length` once per call, after the last layer has appended.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device | None = None,
        batch_size: int = 1,
    ) -> None:
        self.length = 0
        shape = (
            architecture.num_hidden_layers,
            batch_size,
            architecture.num_key_value_heads,
            capacity,
            architecture.head_dim,
        )
        self._keys = torch.empty(shape, dtype=dtype, device=device)
        self._values = torch.empty(shape, dtype=dtype, device=device)

    def append(self, layer: int, k_BKTE: Tensor, v_BKTE: Tensor) -> tuple[Tensor, Tensor]:
        """Store new positions of one layer; return all positions up to and including them."""
        stop = self.length + k_BKTE.shape[2]
        assert stop <= self._keys.shape[3], "the cache is full"
        self._keys[layer, :, :, self.length : stop] = k_BKTE
        self._values[layer, :, :, self.length : stop] = v_BKTE
        return self._keys[layer, :, :, :stop], self._values[layer, :, :, :stop]
