"""How many bytes of text each token stands for, so that a lost byte shows.

Ids can be perfectly valid and still not spell the text: a pre-tokenizer that removes what it
splits on, a character the model has no piece for. Counting bytes finds both, on every document
and at the speed of an array lookup.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import pre_tokenizers

from apr.tokenizer.definition import Definition

_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>\Z")
_BYTE_CHARACTERS = frozenset(pre_tokenizers.ByteLevel.alphabet())


def bytes_per_id(definition: Definition) -> NDArray[np.unsignedinteger] | None:
    """UTF-8 bytes of normalised text that each id spells, in the smallest type that holds them.

    None for a tokenizer whose pieces or pre-tokenizer add bytes that are not text; it has to be
    checked by decoding. Added tokens spell nothing, as no text yields them. Sum what is looked up
    as uint64: one byte per entry keeps the table in the processor's cache, and overflows.
    """
    if definition.has_affixes:
        return None
    kinds = _pre_tokenizer_kinds(definition.pre_tokenizer)
    sizes = np.zeros(len(definition.vocabulary), dtype=np.int64)
    if "ByteLevel" in kinds and not _adds_prefix_space(definition.pre_tokenizer):
        for piece, id in definition.vocab.items():
            sizes[id] = len(piece) if _BYTE_CHARACTERS.issuperset(piece) else 0
    elif definition.byte_fallback and not kinds:
        for piece, id in definition.vocab.items():
            sizes[id] = 1 if _BYTE_PIECE.match(piece) else len(piece.encode("utf-8"))
    else:
        return None
    for token in definition.added_tokens:
        sizes[token.id] = 0
    return sizes.astype(np.min_scalar_type(sizes.max()))


def _parts(component: dict[str, Any] | None) -> list[dict[str, Any]]:
    if component is None:
        return []
    if component.get("type") == "Sequence":
        return [part for inner in component["pretokenizers"] for part in _parts(inner)]
    return [component]


def _pre_tokenizer_kinds(component: dict[str, Any] | None) -> set[str]:
    return {str(part.get("type")) for part in _parts(component)}


def _adds_prefix_space(component: dict[str, Any] | None) -> bool:
    return any(part.get("add_prefix_space") for part in _parts(component))
