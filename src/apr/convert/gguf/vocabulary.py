"""From the tokenizer that a GGUF file describes to one that apr uses, where that can be exact.

A GGUF names how text is cut (`tokenizer.ggml.pre`) without saying it. For the names of
`pre_tokenizers` the tokenizer.json is built again; for every other one there is none, and a note
says so. A file may also carry the tokenizer.json itself (`tokenizer.huggingface.json`, as apr
writes it): then that is used, once it is known to say what the other fields say.
"""

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from apr.convert.gguf import pre_tokenizers
from apr.convert.gguf.metadata import Metadata
from apr.convert.gguf.pre_tokenizers import PreTokenizer
from apr.errors import DamagedFile
from apr.tokenizer.definition import SIZE_LIMIT_BYTES
from apr.tokenizer.tokenizer import Tokenizer

MODEL = "tokenizer.ggml.model"
PRE = "tokenizer.ggml.pre"
TOKENS = "tokenizer.ggml.tokens"
TOKEN_TYPES = "tokenizer.ggml.token_type"
MERGES = "tokenizer.ggml.merges"
SCORES = "tokenizer.ggml.scores"
ADD_BOS = "tokenizer.ggml.add_bos_token"
ADD_EOS = "tokenizer.ggml.add_eos_token"
ADD_SPACE_PREFIX = "tokenizer.ggml.add_space_prefix"
CHAT_TEMPLATE = "tokenizer.chat_template"
HF_JSON = "tokenizer.huggingface.json"
SEPARATOR = "apr.eos_token"
"""What stands between documents, where that was declared: as in a container. GGUF's own
eos_token_id ends a text, which in a chat is the end of a turn."""

BYTE_LEVEL_BPE = "gpt2"
SENTENCE_PIECE = "llama"

_GIVE_ONE = "give --tokenizer"
_WRITE_AGAIN = "convert the model again with a current llama.cpp"


class TokenType(IntEnum):
    """What a piece is, as `tokenizer.ggml.token_type` numbers it."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """What a file says of its tokenizer."""

    tokenizer: Tokenizer | None
    notes: tuple[str, ...]


def read_vocabulary(metadata: Metadata, *, vocab_size: int) -> Vocabulary:
    """The tokenizer of a file; None with a note where an exact one cannot be made.

    Refuses: gguf.key-type, gguf.vocab-size-differs, gguf.token-repeated, gguf.merges-missing,
    gguf.tokenizer-disagrees, and what `Tokenizer.from_json_bytes` refuses.
    """
    tokens = metadata.texts(TOKENS)
    if tokens is None:
        return Vocabulary(None, (f"the file has no tokenizer: {_GIVE_ONE}",))
    _require_fitting(metadata, tokens, vocab_size)
    types = metadata.integers(TOKEN_TYPES)
    if types is not None and len(types) != len(tokens):
        raise _differs(metadata, f"{len(types)} token types", f"{len(tokens)}, one per token")
    model, pre = metadata.text(MODEL), metadata.text(PRE)
    if model == BYTE_LEVEL_BPE and not metadata.texts(MERGES):
        raise DamagedFile(
            "gguf.merges-missing",
            metadata.where,
            found=f"no {MERGES}",
            expected="the merges of a BPE tokenizer",
            fix=_WRITE_AGAIN,
        )
    carried = metadata.text(HF_JSON)
    if carried is not None:
        return _carried(metadata, carried, tokens, types)
    if model == SENTENCE_PIECE:
        why = f"scores of pieces do not say which merges were learned: {_GIVE_ONE}"
        return Vocabulary(None, (f"no tokenizer.json is exact for {MODEL} {model!r}, {why}",))
    row = pre_tokenizers.by_name(pre or "")
    if model != BYTE_LEVEL_BPE or row is None:
        why = f"{MODEL} {model!r:.40}, {PRE} {pre!r:.40}"
        return Vocabulary(None, (f"no tokenizer is known that means {why}: {_GIVE_ONE}",))
    if types is None or not {*types} <= {
        TokenType.NORMAL,
        TokenType.CONTROL,
        TokenType.USER_DEFINED,
        TokenType.UNUSED,
    }:
        return Vocabulary(None, (f"{TOKEN_TYPES} does not say what is text: {_GIVE_ONE}",))
    document = _document(metadata, row, tokens, types)
    return Vocabulary(
        _load(metadata, json.dumps(document, ensure_ascii=False)),
        (
            f"tokenizer.json was built again from {PRE} {row.name!r}; normalizer and flags of "
            "added tokens are not in GGUF and are those of Hugging Face's files",
        ),
    )


def _require_fitting(metadata: Metadata, tokens: list[str], vocab_size: int) -> None:
    if len(tokens) != vocab_size:
        found = f"{len(tokens)} tokens"
        raise _differs(metadata, found, f"{vocab_size}, one per row of the embedding")
    if len({*tokens}) == len(tokens):
        return
    ids: dict[str, int] = {}
    for id, token in enumerate(tokens):
        if (first := ids.setdefault(token, id)) != id:
            raise DamagedFile(
                "gguf.token-repeated",
                metadata.where,
                found=f"ids {first} and {id} both for {token!r:.60}",
                expected="every token once",
                fix=_WRITE_AGAIN,
            )


def _differs(metadata: Metadata, found: str, expected: str) -> DamagedFile:
    return DamagedFile(
        "gguf.vocab-size-differs",
        metadata.where,
        found=found,
        expected=expected,
        fix=_WRITE_AGAIN,
    )


def _carried(
    metadata: Metadata, carried: str, tokens: list[str], types: list[int] | None
) -> Vocabulary:
    """The tokenizer.json in the file, once it says what the other fields say."""
    tokenizer = _load(metadata, carried, eos_token=metadata.text(SEPARATOR))
    num_pieces = tokenizer.vocab_size
    same_tokens = len(tokens) >= num_pieces and all(
        piece == token or piece.replace("\u2581", " ") == token
        for piece, token in zip(tokenizer.vocabulary, tokens, strict=False)
    )
    if not same_tokens:
        raise _disagrees(metadata, TOKENS)
    if any(kind != TokenType.UNUSED for kind in (types or [])[num_pieces:]):
        raise _disagrees(metadata, TOKEN_TYPES)
    merges = metadata.texts(MERGES)
    if merges is not None and merges != tokenizer.merges:
        raise _disagrees(metadata, MERGES)
    own, named = pre_tokenizers.of_definition(tokenizer.definition), metadata.text(PRE) or ""
    if metadata.text(MODEL) != BYTE_LEVEL_BPE:
        return Vocabulary(tokenizer, ())
    if own is not None and named not in (own.name, *own.other_names):
        raise _disagrees(metadata, PRE)
    notes = () if own is not None else (f"nothing says whether {PRE} {named!r:.40} is right",)
    return Vocabulary(tokenizer, notes)


def _disagrees(metadata: Metadata, key: str) -> DamagedFile:
    return DamagedFile(
        "gguf.tokenizer-disagrees",
        metadata.where,
        found=f"{key} says something else than {HF_JSON}",
        expected="one tokenizer",
        fix=_WRITE_AGAIN,
    )


def _load(metadata: Metadata, text: str, *, eos_token: str | None = None) -> Tokenizer:
    where = f"{metadata.where}, its tokenizer"
    data = text.encode("utf-8")
    if len(data) > SIZE_LIMIT_BYTES:
        raise DamagedFile(
            "tokenizer.damaged",
            where,
            found=f"{len(data)} bytes of tokenizer.json",
            expected=f"at most {SIZE_LIMIT_BYTES}",
            fix=_WRITE_AGAIN,
        )
    return Tokenizer.from_json_bytes(data, eos_token=eos_token, where=where)


def _document(
    metadata: Metadata, row: PreTokenizer, tokens: list[str], types: list[int]
) -> dict[str, Any]:
    """The tokenizer.json that a byte-level BPE of a known name has."""
    added_types = (TokenType.CONTROL, TokenType.USER_DEFINED)
    num_pieces = len(tokens)
    while num_pieces and types[num_pieces - 1] == TokenType.UNUSED:
        num_pieces -= 1  # rows of the embedding that no token has
    num_model = num_pieces
    while num_model and types[num_model - 1] in added_types:
        num_model -= 1
    model: dict[str, Any] = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
    }
    if row.ignore_merges:
        model["ignore_merges"] = True
    model["vocab"] = {token: id for id, token in enumerate(tokens[:num_model])}
    model["merges"] = metadata.texts(MERGES)
    byte_level: dict[str, Any] = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": id,
                "content": tokens[id],
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": types[id] == TokenType.CONTROL,
            }
            for id in range(num_pieces)
            if types[id] in added_types
        ],
        "normalizer": row.normalizer,
        "pre_tokenizer": row.component(),
        "post_processor": _post_processor(metadata, row, tokens) or byte_level,
        "decoder": byte_level,
        "model": model,
    }


def _post_processor(
    metadata: Metadata, row: PreTokenizer, tokens: list[str]
) -> dict[str, Any] | None:
    """What puts the first token of a prompt there, as Llama 3's tokenizer.json does."""
    bos = metadata.integer("tokenizer.ggml.bos_token_id", -1)
    if not metadata.boolean(ADD_BOS, row.adds_bos) or not 0 <= bos < len(tokens):
        return None
    token = tokens[bos]
    first = {"SpecialToken": {"id": token, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            first,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": token, "type_id": 1}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {token: {"id": token, "ids": [bos], "tokens": [token]}},
    }
