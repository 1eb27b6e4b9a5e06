"""Learn a byte-level BPE from text.

The way text is cut before merging is Qwen2's: on the standard library, at 4,096 entries, it
spells 3.51 bytes per token where GPT-2's spells 3.41. Letting a merge cross a line end together
with the indentation that follows gives 3.75, but no other program knows that pattern by name,
so a model trained on it could not be exported to formats that carry only a name.

The separator is added after the merges are learned: it gets the last id, and no merge spells it.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Literal

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as LibraryTokenizer

from apr.errors import Refusal, UsageRefusal
from apr.progress import Progress, Report, silent
from apr.tokenizer.definition import read_definition
from apr.tokenizer.directory import Declaration, Training
from apr.tokenizer.tokenizer import Tokenizer

Normalization = Literal["none", "nfc"]

MIN_VOCAB_SIZE = 257  # all bytes and the separator
_MAX_VOCAB_SIZE = 1 << 20
_MAX_MIN_FREQUENCY = 1 << 32

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The trainer's time grows with the square of a word's length (a megabyte of letters takes
# minutes), so what is longer than any useful piece is cut.
_LONG_WORD = 256
_LONG_RUN = re.compile(rf"\S{{{_LONG_WORD}}}|\s{{{_LONG_WORD}}}")
_LONG_SPACE = re.compile(rf"\s{{{_LONG_WORD}}}")


def train_bpe(
    texts: Iterable[str],
    *,
    vocab_size: int,
    min_frequency: int = 2,
    eos_token: str = "<|endoftext|>",
    normalization: Normalization = "nfc",
    expected_bytes: int | None = None,
    progress: Report = silent,
) -> Tokenizer:
    """Learn a tokenizer; the same texts give the same bytes of tokenizer.json.

    A small corpus may not have enough pairs that occur `min_frequency` times; the vocabulary
    is then smaller than `vocab_size`. `expected_bytes` of text make an ETA possible.

    Refuses: tokenizer.vocab-size, tokenizer.min-frequency, tokenizer.eos-ordinary,
    tokenizer.no-text, tokenizer.lone-surrogate.
    """
    _require_sizes(vocab_size, min_frequency)
    learner = LibraryTokenizer(models.BPE())
    if normalization == "nfc":
        learner.normalizer = normalizers.NFC()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner.decoder = decoders.ByteLevel()
    _require_control_text(learner, eos_token)
    feed = _Feed(texts, expected_bytes, progress)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=min_frequency,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(feed.pieces(), trainer)
    feed.require_text()
    learner.add_special_tokens([AddedToken(eos_token, special=True, normalized=False)])
    training = Training(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        normalization=normalization,
        num_documents=feed.num_documents,
        text_bytes=feed.text_bytes,
    )
    json_bytes = learner.to_str(pretty=True).encode("utf-8") + b"\n"
    where = "the tokenizer just learned"
    return Tokenizer(
        read_definition(json_bytes, where=where),
        json_bytes=json_bytes,
        declaration=Declaration(eos_token=eos_token, training=training),
        where=where,
    )


class _Feed:
    """The texts on their way to the trainer, checked, counted and cut."""

    def __init__(self, texts: Iterable[str], expected_bytes: int | None, progress: Report) -> None:
        self.num_documents = 0
        self.text_bytes = 0
        self._texts = texts
        self._expected_bytes = expected_bytes
        self._progress = progress

    def pieces(self) -> Iterator[str]:
        for text in self._texts:
            self.text_bytes += _size_bytes(text, self.num_documents)
            self.num_documents += 1
            # A guess that is passed is no total: each text would be the last one.
            if self._expected_bytes and self.text_bytes > self._expected_bytes:
                self._expected_bytes = None
            total_bytes = self._expected_bytes
            self._progress(Progress("reading text", self.text_bytes, total_bytes, "bytes"))
            yield from _cut(text)
        self._progress(Progress("learning merges", 0, None, "merges"))

    def require_text(self) -> None:
        if self.text_bytes:
            return
        raise Refusal(
            "tokenizer.no-text",
            "the texts to learn from",
            found=f"{self.num_documents} texts, 0 bytes",
            expected="some text",
            fix="name a corpus that holds text",
        )


def _cut(text: str) -> Iterator[str]:
    # Nearly no text has such a run, and splitting finds that out six times faster.
    longest = max(map(len, text.split()), default=0)
    if longest < _LONG_WORD and not _LONG_SPACE.search(text):
        yield text
        return
    start = 0
    for run in _LONG_RUN.finditer(text):
        yield text[start : run.end()]
        start = run.end()
    yield text[start:]


def _size_bytes(text: str, document_number: int) -> int:
    try:
        return len(text.encode("utf-8"))
    except UnicodeEncodeError as err:
        raise Refusal(
            "tokenizer.lone-surrogate",
            f"text {document_number}",
            found=f"a lone surrogate at character {err.start}",
            expected="text that has a UTF-8 form",
            fix="repair the encoding of the document",
        ) from err


def _require_sizes(vocab_size: int, min_frequency: int) -> None:
    if not MIN_VOCAB_SIZE <= vocab_size <= _MAX_VOCAB_SIZE:
        raise UsageRefusal(
            "tokenizer.vocab-size",
            "--vocab-size",
            found=vocab_size,
            expected=f"{MIN_VOCAB_SIZE} (every byte and the separator) to {_MAX_VOCAB_SIZE}",
            fix="ask for a usual size, for example 4096 for a small corpus",
        )
    if not 1 <= min_frequency <= _MAX_MIN_FREQUENCY:
        raise UsageRefusal(
            "tokenizer.min-frequency",
            "--min-frequency",
            found=min_frequency,
            expected=f"1 to {_MAX_MIN_FREQUENCY}",
            fix="leave it out for the usual 2",
        )


def _require_control_text(learner: LibraryTokenizer, eos_token: str) -> None:
    """Refuse a separator that merges could spell: text would then end documents."""
    try:
        words = learner.pre_tokenizer.pre_tokenize_str(eos_token) if eos_token.strip() else []
    except (TypeError, ValueError):
        words = []  # a lone surrogate
    if len(words) > 1:
        return
    raise UsageRefusal(
        "tokenizer.eos-ordinary",
        "--eos-token",
        found=f"{eos_token!r}, which reads as ordinary text",
        expected="a text of several kinds of characters, such as <|endoftext|>",
        fix="leave --eos-token out, or choose another",
    )
