"""What a tokenizer.json says: checked, in one spelling, with a fingerprint of what it does.

The same tokenizer is written in many ways: merges as strings or as pairs, defaults left out,
JSON indented or not. Everything here is read into one spelling first, so that a fingerprint is
equal exactly when the ids are decided by the same rules and tables.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from apr.errors import DamagedFile, Refusal
from apr.files import parse_json, sha256_bytes

SIZE_LIMIT_BYTES = 64 << 20

# What the `tokenizers` library assumes where a model leaves a field out.
_MODEL_DEFAULTS: dict[str, Any] = {
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
}


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
    merges: list[tuple[str, str]]
    added_tokens: tuple[AddedToken, ...]
    vocabulary: list[str]
    """Every piece by id, added tokens included."""
    unk_token: str | None
    normalizer: dict[str, Any] | None
    pre_tokenizer: dict[str, Any] | None
    byte_fallback: bool
    has_affixes: bool
    """Whether pieces carry a mark of where in a word they stand, which is no text."""
    fingerprint: str

    @property
    def ids(self) -> dict[str, int]:
        """The id of every piece, added tokens included."""
        return {piece: id for id, piece in enumerate(self.vocabulary)}


def read_definition(data: bytes, *, where: str) -> Definition:
    """Read the bytes of a tokenizer.json.

    Refuses: tokenizer.damaged, tokenizer.not-bpe, tokenizer.dropout, tokenizer.vocab-gap,
    tokenizer.merge-has-space.
    """
    document = _parse(data, where)
    model = document.get("model")
    if not isinstance(model, dict):
        _damaged(where, "no model", "an object `model`")
    _require_bpe(model, where)
    _require_no_dropout(model, where)
    vocab = _read_vocab(model, where)
    merges = _read_merges(model, vocab, where)
    added_tokens = _read_added_tokens(document, vocab, where)
    vocabulary = _by_id(vocab, added_tokens, where)
    normalizer = _component(document, "normalizer", where)
    pre_tokenizer = _component(document, "pre_tokenizer", where)
    canonical = {
        "normalizer": _canonical_component(normalizer),
        "pre_tokenizer": _canonical_component(pre_tokenizer),
        "model": _canonical_model(model, vocab, merges),
        "added_tokens": [asdict(token) for token in sorted(added_tokens, key=lambda t: t.id)],
    }
    return Definition(
        vocab=vocab,
        merges=merges,
        added_tokens=added_tokens,
        vocabulary=vocabulary,
        unk_token=model.get("unk_token"),
        normalizer=normalizer,
        pre_tokenizer=pre_tokenizer,
        byte_fallback=bool(model.get("byte_fallback")),
        has_affixes=any(
            model.get(name) for name in ("continuing_subword_prefix", "end_of_word_suffix")
        ),
        fingerprint=_fingerprint(canonical),
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
    # The GPT-2 file of 2020 has no type; only BPE has merges.
    kind = model.get("type", "BPE" if "merges" in model else "a model without type and merges")
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


def _read_vocab(model: dict[str, Any], where: str) -> dict[str, int]:
    vocab = model.get("vocab")
    if not isinstance(vocab, dict) or not vocab:
        _damaged(where, "no vocabulary", "an object `model.vocab` of piece to id")
    for piece, id in vocab.items():
        if type(id) is not int:
            _damaged(where, f"id {id!r} of piece {piece!r}", "an integer")
    return vocab


def _read_merges(model: dict[str, Any], vocab: dict[str, int], where: str) -> list[tuple[str, str]]:
    merges = model.get("merges")
    if not isinstance(merges, list):
        _damaged(where, "no merges", "a list `model.merges`")
    prefix = model.get("continuing_subword_prefix") or ""
    pairs: list[tuple[str, str]] = []
    for rank, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not _is_pair(pair):
            _damaged(where, f"merge {rank} is {merge!r}", "two pieces")
        left, right = pair
        if not {left, right, left + right.removeprefix(prefix)} <= vocab.keys():
            _damaged(where, f"merge {rank} is {merge!r}", "pieces of the vocabulary")
        if " " in left or " " in right:
            _refuse_space(where, rank, left, right)
        pairs.append((left, right))
    return pairs


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(side, str) for side in pair)


def _refuse_space(where: str, rank: int, left: str, right: str) -> NoReturn:
    raise Refusal(
        "tokenizer.merge-has-space",
        where,
        found=f"merge {rank} joins {left!r} and {right!r}",
        expected="pieces without a space, so that `left right` has one reading",
        fix="use a byte-level tokenizer",
    )


def _read_added_tokens(
    document: dict[str, Any], vocab: dict[str, int], where: str
) -> tuple[AddedToken, ...]:
    entries = document.get("added_tokens") or []
    if not isinstance(entries, list):
        _damaged(where, "added_tokens is no list", "a list of objects")
    tokens = tuple(_read_added_token(entry, where) for entry in entries)
    for token in tokens:
        if vocab.get(token.content, token.id) != token.id:
            _damaged(
                where,
                f"added token {token.content!r} with id {token.id}",
                f"id {vocab[token.content]}, as in the model's vocabulary",
            )
    return tokens


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
        _damaged(where, f"{name} is {value!r}", "an object or null")
    return value


def _canonical_component(component: Any) -> Any:
    """The component with defaults written out and without what changes offsets only."""
    if isinstance(component, list):
        return [_canonical_component(part) for part in component]
    if not isinstance(component, dict):
        return component
    result = {key: _canonical_component(part) for key, part in component.items()}
    if result.get("type") == "ByteLevel":
        result.pop("trim_offsets", None)
        result.setdefault("use_regex", True)
    return result


def _canonical_model(
    model: dict[str, Any], vocab: dict[str, int], merges: list[tuple[str, str]]
) -> dict[str, Any]:
    settings = {name: model.get(name) or default for name, default in _MODEL_DEFAULTS.items()}
    return settings | {"type": "BPE", "vocab": vocab, "merges": merges}


def _fingerprint(canonical: dict[str, Any]) -> str:
    text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256_bytes(text.encode("ascii"))


def _damaged(where: str, found: str, expected: str, *, cause: Exception | None = None) -> NoReturn:
    raise DamagedFile(
        "tokenizer.damaged",
        where,
        found=found,
        expected=expected,
        fix="fetch tokenizer.json again from where it came",
    ) from cause
