"""What a tokenizer.json says, read strictly and checked before any library sees it.

The library is lenient where it should not be: it renumbers added tokens, lets two pieces share
an id, and ends in a panic on some tables. What is read here is what the file says.
"""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import prod
from typing import Any, NoReturn

import orjson

from apr.errors import DamagedFile, Refusal
from apr.files import parse_json
from apr.tokenizer.fingerprint import fingerprint

SIZE_LIMIT_BYTES = 64 << 20

# A component nested deeper, or one that makes more than this of one character, is no tokenizer's.
_MAX_DEPTH = 16
_MAX_GROWTH = 64


@dataclass(frozen=True)
class AddedToken:
    """A token that is matched as a whole before the model sees the text."""

    id: int
    content: str
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


@dataclass(frozen=True)
class Definition:
    """One BPE tokenizer, read and checked."""

    vocab: dict[str, int]
    """Pieces of the model; added tokens are in here only where the file has them twice."""
    merges: list[str]
    """In order, each as `left right`; no piece has a space."""
    added_tokens: tuple[AddedToken, ...]
    vocabulary: list[str]
    """Every piece by id, added tokens included."""
    unk_token: str | None
    normalizer: dict[str, Any] | None
    pre_tokenizer: dict[str, Any] | None
    settings: dict[str, Any]
    """The model's other fields, as the file has them."""
    known_fingerprint: str | None = field(default=None, compare=False)
    """The fingerprint, where it was computed from the same bytes before."""

    @cached_property
    def ids(self) -> dict[str, int]:
        """The id of every piece, added tokens included."""
        return {piece: id for id, piece in enumerate(self.vocabulary)}

    @property
    def byte_fallback(self) -> bool:
        """Whether the model spells a character it has no piece for byte by byte."""
        return bool(self.settings.get("byte_fallback"))

    @property
    def ignore_merges(self) -> bool:
        """Whether a word that is a piece is taken whole, whatever the merges would make of it."""
        return bool(self.settings.get("ignore_merges"))

    @property
    def has_affixes(self) -> bool:
        """Whether pieces carry a mark of where in a word they stand, which is no text."""
        affixes = ("continuing_subword_prefix", "end_of_word_suffix")
        return any(self.settings.get(name) for name in affixes)

    @cached_property
    def fingerprint(self) -> str:
        """Hex sha256 of everything that decides ids."""
        return self.known_fingerprint or fingerprint(
            normalizer=self.normalizer,
            pre_tokenizer=self.pre_tokenizer,
            settings=self.settings,
            vocab=self.vocab,
            merges=[merge.split(" ") for merge in self.merges],
            added_tokens=[asdict(token) for token in self.added_tokens],
        )


def read_definition(
    data: bytes, *, where: str, is_checked: bool = False, known_fingerprint: str | None = None
) -> Definition:
    """Read the bytes of a tokenizer.json; `is_checked` says that this was done before.

    What takes long, of every merge and id, is then not done again. A change to what is refused
    here, or in `require_same_ids`, raises `apr.tokenizer.checks.VERSION`.

    Refuses: tokenizer.damaged, tokenizer.not-bpe, tokenizer.dropout, tokenizer.vocab-gap,
    tokenizer.merge-has-space.
    """
    document = orjson.loads(data) if is_checked else _parse(data, where)
    model = document.get("model")
    if not isinstance(model, dict):
        _damaged(where, "no model", "an object `model`")
    _require_bpe(model, where)
    _require_no_dropout(model, where)
    _require_texts(model, where)
    vocab = _read_vocab(model, where)
    merges = _join_merges(model["merges"]) if is_checked else _read_merges(model, vocab, where)
    added_tokens = _read_added_tokens(document, where)
    vocabulary = _by_id(vocab, added_tokens, where)
    normalizer = _component(document, "normalizer", where)
    pre_tokenizer = _component(document, "pre_tokenizer", where)
    _component(document, "decoder", where)
    return Definition(
        vocab=vocab,
        merges=merges,
        added_tokens=added_tokens,
        vocabulary=vocabulary,
        unk_token=model.get("unk_token"),
        normalizer=normalizer,
        pre_tokenizer=pre_tokenizer,
        settings={name: model[name] for name in model.keys() - {"vocab", "merges"}},
        known_fingerprint=known_fingerprint,
    )


def _parse(data: bytes, where: str) -> dict[str, Any]:
    try:
        document = parse_json(data)
    except ValueError as err:
        _damaged(where, str(err), "strict JSON", cause=err)
    if not isinstance(document, dict):
        _damaged(where, type(document).__name__, "a JSON object")
    return document


def _require_bpe(model: dict[str, Any], where: str) -> None:
    kind = model.get("type") or _kind_without_type(model)
    if kind == "BPE":
        return
    raise Refusal(
        "tokenizer.not-bpe",
        where,
        found=kind,
        expected="BPE",
        fix="use a model whose tokenizer is BPE, or train one: apr tokenize train",
        upstream_id="FALSIFY-TOK-IMPORT-HF-005",
    )


def _kind_without_type(model: dict[str, Any]) -> str:
    """What a file means that does not say it; GPT-2's of 2020 is one."""
    if "merges" in model:
        return "BPE"
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    if "max_input_chars_per_word" in model:
        return "WordPiece"
    return "WordLevel" if "unk_token" in model else "a model without type and merges"


def _require_no_dropout(model: dict[str, Any], where: str) -> None:
    if model.get("dropout") in (None, 0):
        return
    raise Refusal(
        "tokenizer.dropout",
        where,
        found=f"dropout {model['dropout']}: the same text gets different ids each time",
        expected="no dropout",
        fix='set "dropout" to null in tokenizer.json',
    )


def _require_texts(model: dict[str, Any], where: str) -> None:
    for name in ("unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        if not isinstance(model.get(name), str | None):
            _damaged(where, f"model.{name} is {model[name]!r}", "a string or null")


def _read_vocab(model: dict[str, Any], where: str) -> dict[str, int]:
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not vocab:
        _damaged(where, "no vocabulary", "an object `model.vocab` of piece to id")
    for piece, id in vocab.items():
        if type(id) is not int:
            _damaged(where, f"id {id!r} of piece {piece!r}", "an integer")
    return vocab


def _read_merges(model: dict[str, Any], vocab: dict[str, int], where: str) -> list[str]:
    merges = model.get("merges")
    if not isinstance(merges, list):
        _damaged(where, "no merges", "a list `model.merges`")
    prefix = model.get("continuing_subword_prefix") or ""
    for rank, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not _is_pair(pair):
            _damaged(where, f"merge {rank} is {merge!r}", "two pieces")
        left, right = pair
        merged = left + right.removeprefix(prefix)
        if left not in vocab or right not in vocab or merged not in vocab:
            _damaged(where, f"merge {rank} is {merge!r}", "pieces of the vocabulary")
        if " " in left or " " in right:
            _refuse_space(where, rank, left, right)
    return _join_merges(merges)


def _join_merges(merges: list[str | list[str]]) -> list[str]:
    return [each if isinstance(each, str) else " ".join(each) for each in merges]


def _is_pair(pair: Any) -> bool:
    # Written out: a loop over the two sides takes three times as long.
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and isinstance(pair[0], str)
        and isinstance(pair[1], str)
    )


def _refuse_space(where: str, rank: int, left: str, right: str) -> NoReturn:
    raise Refusal(
        "tokenizer.merge-has-space",
        where,
        found=f"merge {rank} joins {left!r} and {right!r}",
        expected="pieces without a space, so that `left right` has one reading",
        fix="use a byte-level tokenizer",
    )


def _read_added_tokens(document: dict[str, Any], where: str) -> tuple[AddedToken, ...]:
    entries = document.get("added_tokens") or []
    if not isinstance(entries, list):
        _damaged(where, "added_tokens is no list", "a list of objects")
    return tuple(_read_added_token(entry, where) for entry in entries)


def _read_added_token(entry: Any, where: str) -> AddedToken:
    if (
        not isinstance(entry, dict)
        or type(entry.get("id")) is not int
        or not isinstance(entry.get("content"), str)
    ):
        _damaged(where, f"added token {entry!r}", "an object with id and content")
    flags = {
        name: bool(entry.get(name, False))
        for name in ("single_word", "lstrip", "rstrip", "normalized", "special")
    }
    return AddedToken(id=entry["id"], content=entry["content"], **flags)


def _by_id(vocab: dict[str, int], added_tokens: tuple[AddedToken, ...], where: str) -> list[str]:
    pieces: dict[int, str] = {}
    named = [*vocab.items(), *((token.content, token.id) for token in added_tokens)]
    for piece, id in named:
        if pieces.setdefault(id, piece) != piece:
            _damaged(where, f"id {id} for {pieces[id]!r} and for {piece!r}", "one piece per id")
    if min(pieces) < 0:
        _damaged(where, f"id {min(pieces)}", "ids from 0")
    if max(pieces) != len(pieces) - 1:
        missing = next(id for id in range(len(pieces)) if id not in pieces)
        raise Refusal(
            "tokenizer.vocab-gap",
            where,
            found=f"{len(pieces)} pieces, largest id {max(pieces)}, no piece for id {missing}",
            expected="ids without a gap",
            fix="add the missing pieces to tokenizer.json, or use the original file",
        )
    return [pieces[id] for id in range(len(pieces))]


def _component(document: dict[str, Any], name: str, where: str) -> dict[str, Any] | None:
    value = document.get(name)
    if value is not None and not isinstance(value, dict):
        _damaged(where, f"{name} is {type(value).__name__}", "an object or null")
    growth = _growth(value, depth=0)
    if growth > _MAX_GROWTH:
        # Replacing one character by many, again and again, fills any memory with a short text.
        _damaged(where, f"a {name} that makes up to {growth:.3g} characters of one", "a tokenizer")
    return value


def _growth(component: Any, *, depth: int) -> float:
    """An upper bound of the characters that a component makes of one."""
    if depth > _MAX_DEPTH:
        return float("inf")
    if isinstance(component, list):
        return prod(_growth(part, depth=depth + 1) for part in component)
    if not isinstance(component, dict):
        return 1.0
    inserted = [component.get(name) for name in ("content", "prepend")]
    own = max(len(text) if isinstance(text, str) else 1 for text in inserted)
    return max(1, own) * prod(_growth(part, depth=depth + 1) for part in component.values())


def _damaged(where: str, found: str, expected: str, *, cause: Exception | None = None) -> NoReturn:
    raise DamagedFile(
        "tokenizer.damaged",
        where,
        found=found,
        expected=expected,
        fix="fetch tokenizer.json again from where it came",
    ) from cause
