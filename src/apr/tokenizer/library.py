"""The `tokenizers` library, held at arm's length: what it builds is compared with the file.

It reads a tokenizer.json leniently, and some faults end in a panic, which is no Exception.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import tokenizers

from apr.errors import DamagedFile
from apr.tokenizer.definition import Definition


@contextmanager
def library_refusals(where: str) -> Iterator[None]:
    """Turn what the library raises inside the block into a refusal, panics included.

    Refuses: tokenizer.encoder-failed.
    """
    try:
        yield
    except BaseException as err:
        if not is_library_error(err):
            raise
        raise DamagedFile(
            "tokenizer.encoder-failed",
            where,
            found=first_line(err),
            expected="a tokenizer that the tokenizers library can use",
            fix="fetch tokenizer.json again from where it came",
        ) from err


def is_library_error(err: BaseException) -> bool:
    """Whether compiled code failed; Ctrl-C and the end of the process are something else."""
    return isinstance(err, Exception) or type(err).__name__ == "PanicException"


def first_line(err: BaseException) -> str:
    """What an error says, without its backtrace."""
    return str(err).partition("\n")[0][:200]


def read_library_tokenizer(data: bytes, *, where: str) -> tokenizers.Tokenizer:
    """What the library makes of a tokenizer.json.

    Refuses: tokenizer.encoder-failed.
    """
    with library_refusals(where):
        return tokenizers.Tokenizer.from_str(data.decode("utf-8"))


def require_same_ids(full: tokenizers.Tokenizer, definition: Definition, *, where: str) -> None:
    """Refuse a file that the library reads with other ids than it says.

    Refuses: tokenizer.damaged.
    """
    library_ids = full.get_vocab(with_added_tokens=True)
    if library_ids == definition.ids:
        return
    # The library renumbers added tokens that do not continue the model's ids in order.
    differing = min(
        piece
        for piece in library_ids.keys() | definition.ids.keys()
        if library_ids.get(piece) != definition.ids.get(piece)
    )
    raise DamagedFile(
        "tokenizer.damaged",
        where,
        found=f"{differing!r} has id {library_ids.get(differing)} once loaded",
        expected=f"id {definition.ids.get(differing)}, as the file says",
        fix="list added_tokens in the order of their ids, continuing the vocabulary",
    )


def without_added_tokens(full: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """The same model for documents, in which no text is a control token.

    Truncation and padding are left behind too: they would cut or lengthen documents.
    """
    documents = tokenizers.Tokenizer(full.model)
    if full.normalizer is not None:
        documents.normalizer = full.normalizer
    if full.pre_tokenizer is not None:
        documents.pre_tokenizer = full.pre_tokenizer
    return documents
