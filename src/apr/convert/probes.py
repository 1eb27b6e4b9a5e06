"""Token ids on which two models are compared: fixed, reproducible, and with every special id."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from apr.tokenizer.tokenizer import Tokenizer

NUM_TOKENS = 512
"""At least so many tokens are compared, in rows as long as the model's context lets them be."""

_NUM_SHOWN = 32
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Probes:
    """Rows of ids, each starting at position 0."""

    ids_BT: NDArray[np.intp]

    @property
    def shown(self) -> NDArray[np.intp]:
        """Positions, of all rows one after the other, whose logits are kept for a peer."""
        return np.linspace(0, self.ids_BT.size - 1, num=_NUM_SHOWN).astype(np.intp)

    @property
    def sha256(self) -> str:
        """Of the ids as little-endian u32, row by row, after the shape."""
        shape = np.asarray(self.ids_BT.shape, "<u4").tobytes()
        return hashlib.sha256(shape + self.ids_BT.astype("<u4").tobytes()).hexdigest()


def find_special_ids(hf_config: Mapping[str, Any], tokenizer: Tokenizer | None) -> list[int]:
    """Every id that a configuration or a tokenizer gives a meaning of its own."""
    ids: list[int] = []
    for name in _SPECIAL_IDS:
        value = hf_config.get(name)
        several = cast(list[Any], value) if isinstance(value, list) else [value]
        ids += [each for each in several if type(each) is int]
    if tokenizer is not None:
        ids += [token.id for token in tokenizer.definition.added_tokens]
        ids.append(tokenizer.vocab_size - 1)
    return ids


def make_probes(
    *, vocab_size: int, max_position_embeddings: int, special_ids: Iterable[int]
) -> Probes:
    """The probes of a model; a function of its vocabulary, context and special ids alone.

    The first and the last row of the embedding are among them, and special ids stand between
    others as they do in text.
    """
    length = min(NUM_TOKENS, max_position_embeddings)
    num_rows = -(-NUM_TOKENS // length)
    stream = hashlib.shake_256(b"apr probes 1").digest(8 * num_rows * length)
    ids = (np.frombuffer(stream, "<u8") % vocab_size).astype(np.intp)
    forced = sorted({0, vocab_size - 1, *(id for id in special_ids if 0 <= id < vocab_size)})
    # Spread over all positions; a tokenizer with more of them than fit shows the first.
    spread = np.linspace(0, len(ids) - 1, num=min(len(forced), len(ids) // 2)).astype(np.intp)
    ids[spread] = forced[: len(spread)]
    return Probes(ids.reshape(num_rows, length))
