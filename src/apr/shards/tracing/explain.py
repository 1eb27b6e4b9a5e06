"""From a token back to its text: the document, the source file and the line it came from.

Lines are counted in bytes, never in decoded pieces, because a token may hold part of a character.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apr.errors import UsageRefusal
from apr.shards.provenance import PROVENANCE_NAME, Row, document_place
from apr.shards.reader import ShardReader
from apr.shards.tokenizer_of import tokenizer_of
from apr.tokenizer.token_text import TokenText

# The longest character of UTF-8 has four bytes, so three neighbours on either side complete it.
_CHARACTER_BYTES = 4


@dataclass(frozen=True)
class Token:
    """One id at one place of the stream; its bytes of text are None without a tokenizer."""

    token_index: int
    id: int
    document_index: int
    is_separator: bool
    data: bytes | None

    @property
    def text(self) -> str | None:
        """What the token spells; None where its bytes are no whole text."""
        return _whole_text(self.data)

    def as_dict(self) -> dict[str, Any]:
        """The token as `--json` prints it."""
        return {
            "token": self.token_index,
            "id": self.id,
            "document": self.document_index,
            "is_separator": self.is_separator,
            "text": self.text,
            "bytes": None if self.data is None else self.data.hex(),
        }


@dataclass(frozen=True)
class Explanation:
    """Where one token comes from."""

    token: Token
    characters: str | None
    """The whole characters that the token is of: more than its bytes where it splits one."""
    document_hash: str
    first_token: int
    """Where the document begins in the stream."""
    num_document_tokens: int
    """Tokens of the document, its separator included."""
    place: Row | None
    line: int | None
    """Line of the document's text, from 1; None for a separator, and without a tokenizer."""
    context: tuple[Token, ...]
    """Neighbours on both sides, the token itself among them."""

    @property
    def unknown(self) -> dict[str, str]:
        """What could not be said, and why."""
        reasons: dict[str, str] = {}
        if self.place is None:
            reasons["source"] = f"the directory has no {PROVENANCE_NAME}"
        if self.token.data is None:
            reasons["text"] = "no tokenizer was given, and encode.json leads to none"
        if self.line is None:
            separates = "a separator stands in no source"
            reasons["line"] = separates if self.token.is_separator else reasons["text"]
        return reasons

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr tokenize explain --json` prints."""
        place = self.place or Row("")
        return self.token.as_dict() | {
            "characters": self.characters,
            "document_hash": self.document_hash,
            "token_in_document": self.token.token_index - self.first_token,
            "num_document_tokens": self.num_document_tokens,
            "source": place.source or None,
            "row": place.row,
            "origin": place.origin,
            "line": self.line,
            "unknown": self.unknown,
            "context": [token.as_dict() for token in self.context],
        }


def explain(
    directory: Path,
    *,
    token_index: int,
    tokenizer_path: Path | None = None,
    context: int = 8,
) -> Explanation:
    """Say where one token of a directory comes from, with `context` tokens on either side.

    Refuses: shards.token-range, shards.other-tokenizer, shards.hash-mismatch,
    shards.provenance-damaged, tokenizer.id-range, and what opening a directory refuses.
    """
    reader = ShardReader.open(directory, verify=False)
    if not 0 <= token_index < reader.num_tokens:
        raise UsageRefusal(
            "shards.token-range",
            "--token",
            found=token_index,
            expected=f"0 to {reader.num_tokens - 1}, the tokens of {directory}",
            fix="name a token by its place in the stream, counted from 0",
        )
    reader.require_hashes([(token_index, token_index + 1)])
    tokenizer = tokenizer_of(reader, tokenizer_path)
    texts = TokenText(tokenizer) if tokenizer else None
    first = max(0, token_index - context)
    stop = min(reader.num_tokens, token_index + context + 1)
    around = _tokens(reader, first, stop, texts)
    token = around[token_index - first]
    start, end = reader.document_range(token.document_index)
    line = None
    if texts is not None and not token.is_separator:
        line = 1 + texts.count_newlines(reader.read(start, token_index))
    return Explanation(
        token=token,
        characters=_characters(reader, token, texts),
        document_hash=reader.document_hashes[token.document_index].tobytes().hex(),
        first_token=start,
        num_document_tokens=end - start,
        place=document_place(directory, token.document_index),
        line=line,
        context=tuple(around),
    )


def _tokens(reader: ShardReader, first: int, stop: int, texts: TokenText | None) -> list[Token]:
    ids, documents = reader.read(first, stop), reader.document_numbers(first, stop)
    return [
        Token(
            token_index=first + place,
            id=id,
            document_index=document_index,
            is_separator=id == reader.manifest.eos_token_id,
            data=texts.token(id) if texts else None,
        )
        for place, (id, document_index) in enumerate(
            zip(ids.tolist(), documents.tolist(), strict=True)
        )
    ]


def _characters(reader: ShardReader, token: Token, texts: TokenText | None) -> str | None:
    """The characters that a token's bytes belong to, completed from its neighbours."""
    if texts is None or token.data is None:
        return None
    if token.is_separator or not texts.is_exact:
        return token.text
    start, end = reader.document_range(token.document_index)
    at, reach = token.token_index, _CHARACTER_BYTES - 1
    before = texts.text(reader.read(max(start, at - reach), at))
    after = texts.text(reader.read(at + 1, min(end, at + 1 + reach)))
    head, tail = len(before), 0
    joined = before + token.data + after
    while head > 0 and _continues(joined[head : head + 1]):
        head -= 1
    stop = len(before) + len(token.data)
    while stop + tail < len(joined) and _continues(joined[stop + tail : stop + tail + 1]):
        tail += 1
    return _whole_text(joined[head : stop + tail])


def _continues(byte: bytes) -> bool:
    """Whether this byte is inside a character of UTF-8, not its first."""
    return len(byte) == 1 and 0x80 <= byte[0] < 0xC0


def _whole_text(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None
