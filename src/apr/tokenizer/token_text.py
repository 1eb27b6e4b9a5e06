"""The text of single tokens, as bytes: a character may be split over several of them.

A byte-level piece spells each byte as one printable character, so its bytes can be read off
without decoding its neighbours. Other tokenizers are asked for the text of each id alone.
"""

import numpy as np
from numpy.typing import NDArray

from apr.tokenizer.conservation import bytes_per_id
from apr.tokenizer.definition import Definition
from apr.tokenizer.tokenizer import Tokenizer


class TokenText:
    """Spells ids as the bytes of text they stand for; control tokens spell their own name.

    `is_exact` says whether bytes of neighbours simply join; where they do not, a token's text
    alone may differ from its part of the whole, by a leading space for instance.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._pieces = piece_bytes(tokenizer.definition)
        self.is_exact = self._pieces is not None
        self._newlines = (
            np.array([piece.count(b"\n") for piece in self._pieces], np.int64)
            if self._pieces is not None
            else None
        )

    def token(self, token_id: int) -> bytes:
        """The bytes of one id.

        Refuses: tokenizer.id-range.
        """
        return self.text(np.array([token_id], np.uint32))

    def text(self, token_ids: NDArray[np.uint32]) -> bytes:
        """The bytes of several ids in a row.

        Refuses: tokenizer.id-range.
        """
        if self._pieces is None or not self._are_known(token_ids):
            return self._tokenizer.decode(token_ids).encode("utf-8")
        return b"".join([self._pieces[id] for id in token_ids.tolist()])

    def count_newlines(self, token_ids: NDArray[np.uint32]) -> int:
        """Line ends in the text of several ids in a row.

        Refuses: tokenizer.id-range.
        """
        if self._newlines is None or not self._are_known(token_ids):
            return self._tokenizer.decode(token_ids).count("\n")
        return int(self._newlines[token_ids].sum())

    def _are_known(self, token_ids: NDArray[np.uint32]) -> bool:
        """Whether every id has a piece; decoding refuses those that have none."""
        return int(token_ids.max(initial=0)) < self._tokenizer.vocab_size


def piece_bytes(definition: Definition) -> list[bytes] | None:
    """The bytes that each id spells; None for a tokenizer whose pieces are not spelled by byte.

    Source: the byte alphabet of GPT-2, in which printable bytes stand for themselves.
    """
    sizes = bytes_per_id(definition)
    if sizes is None:
        return None
    values = _byte_values()
    pieces = [b""] * len(definition.vocabulary)
    for piece, id in definition.vocab.items():
        if values.keys() >= set(piece):
            pieces[id] = bytes(values[character] for character in piece)
        if len(pieces[id]) != sizes[id] and sizes[id]:
            return None
    for token in definition.added_tokens:
        pieces[token.id] = token.content.encode("utf-8")
    return pieces


def _byte_values() -> dict[str, int]:
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    values = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    return values | {chr(0x100 + place): byte for place, byte in enumerate(others)}
