"""One encoder against another, text by text, until the first text they do not encode alike.

The candidate is an argument, so that a wrong one can be put in its place and be seen to fail.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from apr.errors import Refusal
from apr.progress import Progress, Report, silent
from apr.tokenizer.encoders import Encoder, FlatIds, first_difference
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.trap_texts import (
    NUM_TEXTS,
    code_point_texts,
    num_code_point_texts,
    trap_texts,
)

_BATCH_TEXTS = 1024
_BATCH_CHARACTERS = 1 << 20
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Difference:
    """The first text that two encoders do not encode alike, and the first token of it."""

    text_index: int
    text: str
    token_index: int | None
    """None when the candidate gave no ids."""
    found: str
    expected: str

    def __str__(self) -> str:
        shown = f"text {self.text_index}, {self.text[:_SHOWN_CHARACTERS]!r}"
        if self.token_index is None:
            return f"{shown}: {self.found}"
        return f"{shown}: token {self.token_index} is {self.found}, not {self.expected}"


@dataclass(frozen=True)
class Comparison:
    """How much was compared, and what came of it."""

    num_texts: int
    """Texts up to the end, or up to the batch with the difference."""
    difference: Difference | None


def prove(candidate: Encoder, tokenizer: Tokenizer, *, progress: Report = silent) -> Comparison:
    """Compare an encoder with the reference on the trap texts and on every code point.

    Both must give the same ids for all of them; the texts are the same in every run.
    """
    texts = chain(trap_texts(tokenizer.definition), code_point_texts())
    total = NUM_TEXTS + num_code_point_texts()
    return compare(candidate, tokenizer.reference, texts, num_expected=total, progress=progress)


def compare(
    candidate: Encoder,
    reference: Encoder,
    texts: Iterable[str],
    *,
    num_expected: int | None = None,
    progress: Report = silent,
) -> Comparison:
    """Compare two encoders on some texts, up to the first difference."""
    activity = f"comparing {candidate.name} with {reference.name}"
    num_texts = 0
    for batch in _batches(texts):
        difference = _difference(candidate, reference, batch, first_index=num_texts)
        num_texts += len(batch)
        progress(Progress(activity, num_texts, num_expected, "texts"))
        if difference is not None:
            return Comparison(num_texts, difference)
    return Comparison(num_texts, None)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    num_characters = 0
    for text in texts:
        batch.append(text)
        num_characters += len(text)
        if len(batch) == _BATCH_TEXTS or num_characters >= _BATCH_CHARACTERS:
            yield batch
            batch, num_characters = [], 0
    if batch:
        yield batch


def _difference(
    candidate: Encoder, reference: Encoder, batch: Sequence[str], *, first_index: int
) -> Difference | None:
    expected = reference.encode_flat(batch)
    try:
        found = candidate.encode_flat(batch)
    except Refusal as refusal:
        return Difference(first_index, batch[0], None, refusal.found, "ids")
    if all(np.array_equal(left, right) for left, right in zip(found, expected, strict=True)):
        return None
    if len(found[1]) != len(expected[1]):
        offsets = f"{len(found[1])} offsets for {len(batch)} texts"
        return Difference(first_index, batch[0], None, offsets, f"{len(expected[1])}")
    for index, text in enumerate(batch):
        left, right = _ids_of(found, index), _ids_of(expected, index)
        at = first_difference(left, right)
        if at is not None:
            shown = (str(ids[at]) if at < len(ids) else "missing" for ids in (left, right))
            return Difference(first_index + index, text, at, *shown)
    raise AssertionError("a batch of texts differs, and each of them is alike")


def _ids_of(flat: FlatIds, index: int) -> NDArray[np.uint32]:
    ids, offsets = flat
    return ids[int(offsets[index]) : int(offsets[index + 1])]
