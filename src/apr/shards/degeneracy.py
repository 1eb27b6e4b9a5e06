"""Whether data looks like text at all: a few numbers, each in a band that was fixed beforehand.

A corpus that is one repeated line, unknown tokens or encrypted noise trains without complaint, and
the first two to a record loss. The bands are wide: they were set from source code, prose, minified
scripts, CJK text, tables of numbers and hash lists, with vocabularies of 257 to 151,665 entries,
so that none of these leaves them (docs/log.md has the values).
"""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from apr.corpus.identity import DOCUMENT_HASH_BYTES
from apr.shards.manifest import Manifest
from apr.shards.reader import ShardReader
from apr.tokenizer.token_text import TokenText
from apr.tokenizer.tokenizer import Tokenizer

# Two windows fit into the 32 KiB that the compressor looks back, so that repetition from one
# document to the next shows as well as repetition inside one.
_NUM_WINDOWS = 64
_WINDOW_TOKENS = 4096
# Below this a compressed text is mostly the compressor's own tables.
_MIN_COMPRESSED_BYTES = 4096


@dataclass(frozen=True)
class Measured:
    """One number, the band it has to lie in, and what it would mean if it did not."""

    name: str
    value: float
    low: float
    high: float
    meaning: str

    @property
    def is_inside(self) -> bool:
        """Whether the value is what text has; NaN is not."""
        return self.low <= self.value <= self.high

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4g}"

    @property
    def band(self) -> str:
        """The band as a person reads it."""
        return f"{self.name} from {self.low:.4g} to {self.high:.4g}"


def judge_statistics(manifest: Manifest) -> list[Measured]:
    """The statistics of a manifest, each with its band."""
    statistics = manifest.statistics
    num_tokens = max(1, manifest.total_tokens - manifest.eos_token_count)
    return [
        Measured(
            "bytes_per_token",
            statistics.bytes_per_token,
            # A byte-level piece is a byte at least; text spelled in hexadecimal digits has half of
            # one. Code and prose have 1 to 6 by vocabulary, whole repeated phrases more.
            low=0.9,
            high=12.0,
            meaning="ids that are not text, or a vocabulary learned by heart",
        ),
        Measured(
            "unigram_entropy_bits",
            statistics.unigram_entropy_bits,
            # Tables of digits have 2.8 bits, one repeated token none; n tokens cannot have more
            # than log2(n), so a handful of them is asked for less.
            low=min(2.0, 0.4 * math.log2(num_tokens)),
            high=_most_bits_per_byte(manifest.vocab_size) * statistics.bytes_per_token,
            meaning="nearly always the same token, or noise without any regularity",
        ),
        Measured(
            "unk_rate",
            statistics.unk_rate,
            low=0.0,
            high=0.01,
            meaning="text that the tokenizer cannot spell",
        ),
        Measured(
            "longest_run",
            statistics.longest_run,
            low=1,
            # Rulers and banners repeat a token a hundred times; bytes of zero fill whole rows.
            high=max(512, min(num_tokens // 100, 1 << 16)),
            meaning="padding or zeros taken for text",
        ),
    ]


def judge_documents(reader: ShardReader, tokenizer: Tokenizer) -> list[Measured]:
    """How often the documents repeat themselves and each other, or never do.

    Base64 shrinks 1.3 times, lists of hashes 1.7, text and code 2 to 9, and one line repeated 200
    times or more. Copies of long documents lie too far apart for that and are counted.

    Refuses: tokenizer.id-range.
    """
    text_bytes, compressed_bytes = _compressed(_windows(reader, TokenText(tokenizer)))
    return [
        Measured(
            "compression_ratio",
            text_bytes / compressed_bytes,
            low=1.5 if text_bytes >= _MIN_COMPRESSED_BYTES else 0.0,
            high=40.0,
            meaning="noise such as base64, or the same text again and again",
        ),
        Measured(
            "share_in_distinct_documents",
            _share_in_distinct_documents(reader),
            # Half of what stands in public repositories are copies; nine tenths are a mistake.
            low=0.1,
            high=1.0,
            meaning="the same documents again and again",
        ),
    ]


def _compressed(texts: Iterator[bytes]) -> tuple[int, int]:
    """Bytes before and after compression as one stream."""
    compressor = zlib.compressobj()
    text_bytes, compressed_bytes = 0, 0
    for text in texts:
        text_bytes += len(text)
        compressed_bytes += len(compressor.compress(text))
    return text_bytes, compressed_bytes + len(compressor.flush())


def _share_in_distinct_documents(reader: ShardReader) -> float:
    """Share of tokens that would be left if every document stood there once."""
    hashes = np.ascontiguousarray(reader.document_hashes).view(f"V{DOCUMENT_HASH_BYTES}").ravel()
    _, first_places = np.unique(hashes, return_index=True)
    lengths = np.diff(reader.document_ends.astype(np.int64), prepend=0)
    return float(lengths[first_places].sum() / lengths.sum())


def describe_outside(manifest: Manifest) -> list[str]:
    """What to tell a person about statistics outside their bands, one sentence each."""
    return [
        f"{measured}, where text has {measured.band}: {measured.meaning}"
        for measured in judge_statistics(manifest)
        if not measured.is_inside
    ]


def _most_bits_per_byte(vocab_size: int) -> float:
    """Entropy of tokens over the bytes they stand for, above which there is no text.

    Base64 has 6. Where most tokens are single bytes, two alphabets in one corpus can have that too,
    and only what is nearly uniform over all bytes is noise beyond doubt.
    """
    return 6.5 if vocab_size < 1024 else 5.9


def _windows(reader: ShardReader, texts: TokenText) -> Iterator[bytes]:
    """The text of stretches spread evenly over the data, without separators."""
    stride = max(_WINDOW_TOKENS, reader.num_tokens // _NUM_WINDOWS)
    for start in range(0, reader.num_tokens, stride):
        ids = reader.read(start, min(start + _WINDOW_TOKENS, reader.num_tokens))
        eos_token_id = reader.manifest.eos_token_id
        yield texts.text(ids if eos_token_id is None else ids[ids != eos_token_id])
