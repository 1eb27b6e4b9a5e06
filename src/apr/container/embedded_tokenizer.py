"""The tokenizer inside a container, twice: as the Rust tools read it, and exactly.

The Rust tools take a vocabulary in which the index is the id, and a list of merges. Neither says
how text is split or normalised, so the bytes of tokenizer.json travel along, compressed, and only
they are ever encoded with. On reading, the two must still describe one tokenizer.
"""

import base64
import binascii
import zlib
from itertools import zip_longest
from typing import Any, cast

from apr.container import free_keys
from apr.container.advice import COPY_AGAIN
from apr.container.named_keys import Metadata
from apr.errors import DamagedFile, Refusal
from apr.tokenizer.definition import SIZE_LIMIT_BYTES
from apr.tokenizer.tokenizer import Tokenizer


def embed_tokenizer(tokenizer: Tokenizer) -> dict[str, Any]:
    """The free keys that carry a tokenizer into a container."""
    packed = zlib.compress(tokenizer.json_bytes, level=9)
    return _shared_keys(tokenizer) | {
        free_keys.TOKENIZER_JSON: base64.b64encode(packed).decode("ascii"),
        free_keys.TOKENIZER_FINGERPRINT: tokenizer.fingerprint,
    }


def restore_tokenizer(metadata: Metadata, *, where: object) -> Tokenizer | None:
    """The tokenizer that a container carries, from the exact bytes it was written with.

    None when it carries none. A vocabulary without its tokenizer.json is refused: how text was
    split is not in it, and guessing changes every id.

    Refuses: container.tokenizer-inexact, container.tokenizer-damaged,
    container.tokenizer-mismatch, tokenizer.*.
    """
    free = metadata.free
    name = f"{where}, embedded tokenizer"
    if free_keys.TOKENIZER_JSON not in free:
        if free_keys.VOCABULARY not in free:
            return None
        raise Refusal(
            "container.tokenizer-inexact",
            name,
            found=f"a vocabulary without {free_keys.TOKENIZER_JSON}",
            expected="the tokenizer.json it came from",
            fix="use the tokenizer.json that belongs to the model",
        )
    eos_token = free.get(free_keys.EOS_TOKEN)
    if not (eos_token is None or isinstance(eos_token, str)):
        raise _damaged(name, f"{free_keys.EOS_TOKEN}={eos_token!r:.40}", "a string")
    json_bytes = _unpacked(free[free_keys.TOKENIZER_JSON], name)
    tokenizer = Tokenizer.from_json_bytes(json_bytes, eos_token=eos_token, where=name)
    promised = _shared_keys(tokenizer) | {free_keys.TOKENIZER_FINGERPRINT: tokenizer.fingerprint}
    for key in (*promised, free_keys.EOS_TOKEN_ID):
        if free.get(key) != promised.get(key):
            raise DamagedFile(
                "container.tokenizer-mismatch",
                f"{where}, metadata key {key}",
                found=_difference(free.get(key), promised.get(key)),
                expected="what the tokenizer.json in the same file says",
                fix=COPY_AGAIN,
            )
    return tokenizer


def vocabulary_problem(metadata: Metadata) -> str | None:
    """What makes the vocabulary that the Rust tools read unusable, or None."""
    free, num_rows = metadata.free, metadata.vocab_size
    listed = free.get(free_keys.VOCABULARY)
    if not _is_texts(listed) or not listed:
        return f"no list of texts under {free_keys.VOCABULARY}"
    vocabulary = cast(list[str], listed)
    size, eos_token_id = free.get(free_keys.VOCAB_SIZE), free.get(free_keys.EOS_TOKEN_ID)
    if size not in (None, len(vocabulary)):
        return f"{len(vocabulary)} tokens listed, {free_keys.VOCAB_SIZE}={size!r:.40}"
    if len(set(vocabulary)) != len(vocabulary):
        return f"{len(vocabulary) - len(set(vocabulary))} tokens listed twice"
    if num_rows is not None and len(vocabulary) > num_rows:
        return f"{len(vocabulary)} tokens for {num_rows} rows of the embedding"
    if eos_token_id is not None and not _is_id(eos_token_id, len(vocabulary)):
        return f"{free_keys.EOS_TOKEN_ID}={eos_token_id!r:.40}"
    merges = free.get(free_keys.MERGES)
    if merges is not None and not (_is_texts(merges) and all(" " in merge for merge in merges)):
        return f"{free_keys.MERGES} holds something else than pairs of texts"
    return None


def _shared_keys(tokenizer: Tokenizer) -> dict[str, Any]:
    keys: dict[str, Any] = {
        free_keys.VOCABULARY: tokenizer.vocabulary,
        free_keys.VOCAB_SIZE: tokenizer.vocab_size,
        free_keys.MERGES: tokenizer.merges,
        free_keys.TOKENIZER_MODEL_TYPE: "BPE",
    }
    if tokenizer.eos_token is not None:
        keys |= {
            free_keys.EOS_TOKEN_ID: tokenizer.eos_token_id,
            free_keys.EOS_TOKEN: tokenizer.eos_token,
        }
    return keys


def _unpacked(text: Any, where: str) -> bytes:
    if not isinstance(text, str):
        raise _damaged(where, f"{free_keys.TOKENIZER_JSON} is a {type(text).__name__}", "a string")
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(base64.b64decode(text, validate=True), SIZE_LIMIT_BYTES + 1)
    except (binascii.Error, ValueError, zlib.error) as err:
        raise _damaged(where, str(err), "base64 of a zlib stream") from err
    # A few kilobytes can unpack to gigabytes, so the stream is stopped, not measured afterwards.
    if len(data) > SIZE_LIMIT_BYTES:
        raise _damaged(where, f"over {SIZE_LIMIT_BYTES} bytes", "a tokenizer.json, far smaller")
    if not inflate.eof or inflate.unused_data:
        raise _damaged(where, "a stream that is cut or goes on", "one whole zlib stream")
    return data


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, str) for entry in cast(list[Any], value)
    )


def _is_id(value: Any, num_tokens: int) -> bool:
    return type(value) is int and 0 <= value < num_tokens


def _difference(found: Any, expected: Any) -> str:
    if isinstance(found, list) and isinstance(expected, list):
        entries = cast(list[Any], found), cast(list[Any], expected)
        for at, (ours, theirs) in enumerate(zip_longest(*entries, fillvalue="nothing")):
            if ours != theirs:
                return f"{ours!r:.40} instead of {theirs!r:.40} at {at}"
    return f"{found!r:.80} instead of {expected!r:.80}"


def _damaged(where: str, found: str, expected: str) -> DamagedFile:
    return DamagedFile(
        "container.tokenizer-damaged", where, found=found, expected=expected, fix=COPY_AGAIN
    )
