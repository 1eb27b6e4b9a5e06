"""preflight.data-degenerate: whether what a run reads is text, and decodes to it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from apr.shards.degeneracy import Measured, judge_documents, judge_statistics
from apr.shards.described import Described
from apr.shards.reader import ShardReader
from apr.shards.verifying.round_trip import RoundTrip, compare_documents, text_problem
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.gates import Finding, worst
from apr.train.sources import short_names

_MAX_DOCUMENTS = 64
_MAX_TOKENS = 1 << 21
_FIX = (
    "look at the text (apr tokenize explain, show-batch) and leave out what is none; if it is "
    "meant to be so, --waive preflight.data-degenerate=REASON"
)


def check_degenerate(readers: list[ShardReader], tokenizer: Tokenizer) -> Finding:
    """Statistics in their bands, text neither noise nor repetition, documents that decode."""
    names = short_names([reader.directory for reader in readers])
    return replace(
        worst(
            [
                _check_one(name, reader, tokenizer)
                for name, reader in zip(names, readers, strict=True)
            ]
        ),
        fix=_FIX,
    )


def check_statistics(shards: Sequence[Described]) -> Finding:
    """The part of it that manifests alone can tell: statistics in their bands."""
    names = short_names([each.directory for each in shards])
    findings = [
        _outside(name, judge_statistics(each.manifest)) or Finding("PASS", f"{name}: inside", "")
        for name, each in zip(names, shards, strict=True)
    ]
    return replace(worst(findings), fix=_FIX)


def _outside(name: str, measured: list[Measured]) -> Finding | None:
    """What lies outside of its band, if anything does."""
    outside = [value for value in measured if not value.is_inside]
    if not outside:
        return None
    found = ", ".join(f"{value} ({value.meaning})" for value in outside)
    return Finding("FAIL", f"{name}: {found}", ", ".join(value.band for value in outside))


def _check_one(name: str, reader: ShardReader, tokenizer: Tokenizer) -> Finding:
    if reader.manifest.tokenizer_fingerprint != tokenizer.fingerprint:
        found = f"{name}: made with another tokenizer, so its text is not known"
        return Finding("UNKNOWN", found, "the tokenizer that made the shards")
    measured = judge_statistics(reader.manifest) + judge_documents(reader, tokenizer)
    if outside := _outside(name, measured):
        return outside
    expected = "decoded documents that have the hash of the original text"
    if reader.manifest.repaired is not None:
        found = f"{name}: a repaired manifest knows no original text"
        return Finding("UNKNOWN", found, expected)
    returned = compare_documents(reader, tokenizer, _sample(reader), encode_again=False)
    problem = text_problem(reader, returned)
    if problem is not None:
        return Finding("FAIL", f"{name}: {problem[0]}", problem[1])
    if not returned.num_same_text:
        return Finding("UNKNOWN", f"{name}: no document could be compared", expected)
    return Finding("PASS", f"{name}: {_describe(measured, returned)}", expected)


def _describe(measured: list[Measured], returned: RoundTrip) -> str:
    values = ", ".join(map(str, measured))
    return f"{values}, {returned.num_same_text} of {returned.num_compared} documents decode"


def _sample(reader: ShardReader) -> NDArray[np.int64]:
    """Documents spread evenly over the data, as many as are decoded in a moment; at least one."""
    count = min(_MAX_DOCUMENTS, reader.num_documents)
    chosen = np.linspace(0, reader.num_documents - 1, count).astype(np.int64)
    lengths = [stop - start for start, stop in map(reader.document_range, chosen.tolist())]
    return chosen[: max(1, int(np.searchsorted(np.cumsum(lengths), _MAX_TOKENS)))]
