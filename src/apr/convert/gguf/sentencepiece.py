"""A BPE with byte fallback, as scores from which llama.cpp's SentencePiece reader merges the same.

Hugging Face merges the pair whose merge was learned first; llama.cpp merges the pair whose result
has the highest score, whichever pair it is. Both agree where every way to make a piece out of two
pieces is a merge, and the merges that make one piece stand together: then the place of that group
is the piece's score. Where they do not, ids would differ, and the tokenizer is refused.

Source: `llm_tokenizer_spm` in llama.cpp.
"""

import re

from apr.errors import Refusal
from apr.tokenizer.definition import Definition

SPACE = "\u2581"
BYTE_PIECES = frozenset(f"<0x{byte:02X}>" for byte in range(256))

# Below the score of any merge. What no merge makes is never looked up by score.
NEVER_MERGED = -1e9
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>", re.ASCII)

_PREPENDING = {"type": "Prepend", "prepend": SPACE}
_REPLACING = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}


def adds_space_prefix(definition: Definition) -> bool | None:
    """Whether text gets a space in front; None where it is prepared in another way."""
    normalizer = definition.normalizer or {}
    parts = normalizer.get("normalizers") if normalizer.get("type") == "Sequence" else [normalizer]
    if definition.pre_tokenizer is not None:
        return None
    if parts == [_PREPENDING, _REPLACING]:
        return True
    return False if parts == [_REPLACING] else None


def scores(definition: Definition, *, where: str) -> list[float]:
    """One score per id, such that the best merge is always the one learned first.

    Refuses: gguf.merges-not-expressible.
    """
    if not definition.vocab.keys() >= BYTE_PIECES:
        raise _refused(where, "a byte without a piece", "a piece for every byte")
    if definition.ignore_merges or definition.has_affixes:
        raise _refused(where, "words taken whole, or affixes", "pieces made by merges alone")
    group_of = _groups(definition, where)
    _require_every_split(definition, where)
    return [-float(group_of[piece]) if piece in group_of else NEVER_MERGED
            for piece in definition.vocabulary]  # fmt: skip


def _groups(definition: Definition, where: str) -> dict[str, int]:
    """For every piece that merges make, how many pieces were learned before it."""
    group_of: dict[str, int] = {}
    last = ""
    for merge in definition.merges:
        left, right = merge.split(" ")
        if _BYTE_PIECE.fullmatch(left) or _BYTE_PIECE.fullmatch(right):
            raise _refused(where, f"a merge of {left!r} and {right!r}", "no merge of bytes")
        made = left + right
        if made != last and made in group_of:
            found = f"merges that make {made!r} apart from each other"
            raise _refused(where, found, "all merges that make one piece together")
        group_of.setdefault(made, len(group_of))
        last = made
    return group_of


def _require_every_split(definition: Definition, where: str) -> None:
    merges = {*definition.merges}
    for piece in definition.vocabulary:
        for at in range(1, len(piece)):
            pair = piece[:at], piece[at:]
            if (
                " ".join(pair) not in merges
                and pair[0] in definition.ids
                and pair[1] in definition.ids
            ):
                found = f"{piece!r}, also {pair[0]!r} with {pair[1]!r}, which is no merge"
                raise _refused(where, found, "every way to make a piece to be a merge")


def _refused(where: str, found: str, expected: str) -> Refusal:
    return Refusal(
        "gguf.merges-not-expressible",
        where,
        found=found,
        expected=f"{expected}: GGUF has scores of pieces in place of merges",
        fix="export to Hugging Face's format: --format hf",
    )
