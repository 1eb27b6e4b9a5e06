"""A tokenizer as the fields of a GGUF file: exactly, or not at all.

llama.cpp knows two kinds that apr has: byte-level BPE, whose way to cut text it knows by name
(`pre_tokenizers`), and SentencePiece, for BPE with byte fallback (`sentencepiece`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import pre_tokenizers as library

from apr.convert.gguf import pre_tokenizers, sentencepiece, values, vocabulary
from apr.convert.gguf.source import BOS_KEY, EOS_KEYS, PAD_KEY
from apr.convert.gguf.values import Field
from apr.convert.gguf.vocabulary import TokenType
from apr.errors import Refusal
from apr.files import parse_json
from apr.tokenizer.definition import Definition
from apr.tokenizer.tokenizer import Tokenizer

_OTHER_FORMAT = "export to Hugging Face's format: --format hf"
_BYTE_CHARACTERS = frozenset(library.ByteLevel.alphabet())
_ADDS_NOTHING = ("ByteLevel",)
# llama.cpp goes by the text of these, whatever type the file gives them. Qwen2.5 has them as
# added tokens that are not special.
_CONTROL_BY_TEXT = frozenset(
    {
        "<|fim_prefix|>",
        "<|fim_middle|>",
        "<|fim_suffix|>",
        "<|fim_pad|>",
        "<|fim_repo|>",
        "<|repo_name|>",
        "<|file_sep|>",
    }
)


@dataclass(frozen=True)
class Exported:
    """Fields, and what a person should know of them."""

    fields: tuple[Field, ...]
    notes: tuple[str, ...] = ()


def tokenizer_fields(
    tokenizer: Tokenizer | None,
    hf_config: Mapping[str, Any],
    *,
    vocab_size: int,
    chat_template: str | None = None,
) -> Exported:
    """Every `tokenizer.*` field of a model with so many rows of its embedding.

    Refuses: gguf.tokenizer-missing, gguf.vocab-size-differs, gguf.token-repeated,
    gguf.pre-tokenizer-unknown, gguf.normalizer-unknown, gguf.tokenizer-unsupported,
    gguf.merges-not-expressible, gguf.special-id, tokenizer.eos-undeclared.
    """
    if tokenizer is None:
        raise Refusal(
            "gguf.tokenizer-missing",
            "the model to be exported",
            found="no tokenizer",
            expected="one: a GGUF without a tokenizer makes no text",
            fix="name the tokenizer: --tokenizer DIR",
        )
    is_sentencepiece = tokenizer.definition.byte_fallback
    kind = _sentencepiece(tokenizer, vocab_size) if is_sentencepiece else _byte_level(tokenizer)
    starts, ends = _prompt_ends(tokenizer)
    special = _special_ids(tokenizer, hf_config, starts)
    types = _types(tokenizer.definition, is_sentencepiece=is_sentencepiece)
    tokens, types = _filled(tokenizer, types, vocab_size)
    fields = [
        *kind.fields[:2],  # llama.cpp's order: model and pre, tokens, types, then the rest
        values.texts(vocabulary.TOKENS, tokens),
        values.int32s(vocabulary.TOKEN_TYPES, types),
        *kind.fields[2:],
        *special.fields,
        values.boolean(vocabulary.ADD_BOS, starts is not None),
    ]
    if ends is not None:
        fields.append(values.boolean(vocabulary.ADD_EOS, True))
    if chat_template:
        fields.append(values.text(vocabulary.CHAT_TEMPLATE, chat_template))
    fields.append(values.text(vocabulary.HF_JSON, tokenizer.json_bytes.decode("utf-8")))
    if tokenizer.eos_token is not None:
        fields.append(values.text(vocabulary.SEPARATOR, tokenizer.eos_token))
    return Exported(tuple(fields), (*kind.notes, *special.notes, *_notes(tokenizer.definition)))


def _notes(definition: Definition) -> tuple[str, ...]:
    by_text = [
        token.content
        for token in definition.added_tokens
        if not token.special and token.content in _CONTROL_BY_TEXT
    ]
    if not by_text:
        return ()
    return (f"llama.cpp takes {', '.join(by_text)} for control tokens, by their text",)


def _byte_level(tokenizer: Tokenizer) -> Exported:
    definition, where = tokenizer.definition, tokenizer.where
    row = pre_tokenizers.of_definition(definition)
    if row is None:
        known = ", ".join(each.name for each in pre_tokenizers.TABLE)
        raise Refusal(
            "gguf.pre-tokenizer-unknown",
            where,
            found=f"pre_tokenizer {definition.pre_tokenizer!r:.200}, "
            f"ignore_merges {definition.ignore_merges}",
            expected=f"one that llama.cpp knows by name: {known}",
            fix=_OTHER_FORMAT,
        )
    _require_normalizer(definition, where)
    if definition.has_affixes or definition.unk_token is not None:
        raise _unsupported(where, "affixes or an unknown token", "a plain byte-level BPE")
    if not definition.vocab.keys() >= _BYTE_CHARACTERS:
        raise _unsupported(where, "a byte without a piece", "a piece for every byte")
    if len({*definition.merges}) != len(definition.merges):
        raise _unsupported(where, "a merge twice", "every merge once")
    notes = () if definition.normalizer is None else (
        "llama.cpp does not normalize text: what is not in form NFC gets other ids there",
    )  # fmt: skip
    return Exported(
        (
            values.text(vocabulary.MODEL, vocabulary.BYTE_LEVEL_BPE),
            values.text(vocabulary.PRE, row.name),
            values.texts(vocabulary.MERGES, tokenizer.merges),
        ),
        notes,
    )


def _require_normalizer(definition: Definition, where: str) -> None:
    if definition.normalizer not in (None, pre_tokenizers.NFC):
        raise Refusal(
            "gguf.normalizer-unknown",
            where,
            found=f"normalizer {definition.normalizer!r:.200}",
            expected="none, or NFC: llama.cpp encodes text as it is",
            fix=_OTHER_FORMAT,
        )


def _sentencepiece(tokenizer: Tokenizer, vocab_size: int) -> Exported:
    definition, where = tokenizer.definition, tokenizer.where
    adds_space = sentencepiece.adds_space_prefix(definition)
    if adds_space is None:
        raise _unsupported(
            where,
            f"normalizer {definition.normalizer!r:.200}, pre_tokenizer "
            f"{definition.pre_tokenizer!r:.200}",
            "spaces replaced by U+2581, and one put in front or not",
        )
    scores = sentencepiece.scores(definition, where=where)
    scores += [sentencepiece.NEVER_MERGED] * (vocab_size - len(scores))
    fields = [
        values.text(vocabulary.MODEL, vocabulary.SENTENCE_PIECE),
        values.text(vocabulary.PRE, "default"),
        values.float32s(vocabulary.SCORES, scores),
        values.boolean(vocabulary.ADD_SPACE_PREFIX, adds_space),
    ]
    return Exported(tuple(fields))


def _prompt_ends(tokenizer: Tokenizer) -> tuple[int | None, int | None]:
    """The ids that the tokenizer.json puts before and after a prompt."""
    document = parse_json(tokenizer.json_bytes)
    processor: Any = document.get("post_processor")
    if processor is None:
        return None, None
    is_sequence = processor.get("type") == "Sequence"
    parts: list[Any] = processor.get("processors", []) if is_sequence else [processor]
    templates = [part for part in parts if part.get("type") not in _ADDS_NOTHING]
    if not templates:
        return None, None
    kinds = [
        ("SpecialToken" if "SpecialToken" in item else "Sequence", item)
        for item in templates[0].get("single", [])
    ]
    at = next((index for index, (kind, _) in enumerate(kinds) if kind == "Sequence"), -1)
    is_template = templates[0].get("type") == "TemplateProcessing"
    if len(templates) > 1 or not is_template or at not in (0, 1) or len(kinds) - at > 2:
        raise _unsupported(
            tokenizer.where,
            f"post_processor {processor!r:.200}",
            "at most one token before and one after a prompt",
        )
    named: dict[str, Any] = templates[0].get("special_tokens", {})
    ids = [
        _template_id(tokenizer, named, item) if kind == "SpecialToken" else None
        for kind, item in kinds
    ]
    return (ids[0] if at == 1 else None), (ids[-1] if len(kinds) - at == 2 else None)


def _template_id(tokenizer: Tokenizer, named: Mapping[str, Any], item: Mapping[str, Any]) -> int:
    token = item["SpecialToken"].get("id")
    ids = named.get(token, {}).get("ids", [])
    if len(ids) == 1 and ids[0] == tokenizer.definition.ids.get(token):
        return ids[0]
    raise _unsupported(tokenizer.where, f"{token!r} standing for ids {ids}", "one id per token")


def _special_ids(
    tokenizer: Tokenizer, hf_config: Mapping[str, Any], starts: int | None
) -> Exported:
    notes: list[str] = []
    fields: list[Field] = []
    bos = hf_config.get("bos_token_id") if starts is None else starts
    if isinstance(bos, int):
        fields.append(values.uint32(BOS_KEY, _require_token(tokenizer, "bos_token_id", bos)))
    else:
        notes.append("no token starts a text: none is named, and add_bos_token is false")
    listed: Any = hf_config.get("eos_token_id")
    ends: list[int] = [listed] if isinstance(listed, int) else list(listed or [])
    # Without one, llama.cpp takes id 11 for the end of a text.
    ends = ends or [tokenizer.require_eos_token_id()]
    for key, id in zip(EOS_KEYS, ends, strict=False):
        fields.append(values.uint32(key, _require_token(tokenizer, "eos_token_id", id)))
    if len(ends) > len(EOS_KEYS):
        notes.append(f"ids {ends[len(EOS_KEYS) :]} end a text too; GGUF has no key for them")
    if isinstance(pad := hf_config.get("pad_token_id"), int):
        fields.append(values.uint32(PAD_KEY, _require_token(tokenizer, "pad_token_id", pad)))
    unk = tokenizer.definition.unk_token
    if unk is not None and unk in tokenizer.definition.ids:
        id = tokenizer.definition.ids[unk]
        fields.append(values.uint32("tokenizer.ggml.unknown_token_id", id))
    return Exported(tuple(fields), tuple(notes))


def _require_token(tokenizer: Tokenizer, name: str, id: int) -> int:
    if 0 <= id < tokenizer.vocab_size:
        return id
    raise Refusal(
        "gguf.special-id",
        tokenizer.where,
        found=f"{name} {id}",
        expected=f"a token of the tokenizer, 0 to {tokenizer.vocab_size - 1}",
        fix="correct the ids of special tokens in the model's configuration",
    )


def _types(definition: Definition, *, is_sentencepiece: bool) -> list[int]:
    types = [TokenType.NORMAL] * len(definition.vocabulary)
    if is_sentencepiece:
        for piece in sentencepiece.BYTE_PIECES:
            types[definition.vocab[piece]] = TokenType.BYTE
    for token in definition.added_tokens:
        types[token.id] = TokenType.CONTROL if token.special else TokenType.USER_DEFINED
    if is_sentencepiece and definition.unk_token is not None:
        types[definition.ids[definition.unk_token]] = TokenType.UNKNOWN
    return [int(kind) for kind in types]


def _filled(tokenizer: Tokenizer, types: list[int], vocab_size: int) -> tuple[list[str], list[int]]:
    """Tokens and types for every row; rows that no token has are named as llama.cpp names them."""
    num_pieces = tokenizer.vocab_size
    if num_pieces > vocab_size:
        raise Refusal(
            "gguf.vocab-size-differs",
            tokenizer.where,
            found=f"{num_pieces} tokens",
            expected=f"at most {vocab_size}, the rows of the embedding",
            fix="use the tokenizer that the model was trained with",
        )
    for token in tokenizer.definition.added_tokens:
        if token.lstrip or token.rstrip or token.single_word:
            raise _unsupported(
                tokenizer.where,
                f"the added token {token.content!r:.60}, which takes in the space around it",
                "added tokens without such flags",
            )
    user_defined = int(TokenType.USER_DEFINED)
    tokens = [
        piece.replace(sentencepiece.SPACE, " ") if kind == user_defined else piece
        for piece, kind in zip(tokenizer.vocabulary, types, strict=True)
    ]
    tokens += [f"[PAD{id}]" for id in range(num_pieces, vocab_size)]
    if len({*tokens}) != len(tokens):
        raise Refusal(
            "gguf.token-repeated",
            tokenizer.where,
            found="two ids with one text, once rows without a token are named [PADid]",
            expected="every token once",
            fix=_OTHER_FORMAT,
        )
    return tokens, types + [int(TokenType.UNUSED)] * (vocab_size - num_pieces)


def _unsupported(where: str, found: str, expected: str) -> Refusal:
    return Refusal(
        "gguf.tokenizer-unsupported",
        where,
        found=found,
        expected=f"{expected}, which is all that GGUF can say",
        fix=_OTHER_FORMAT,
    )
