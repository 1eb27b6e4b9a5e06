"""Two encoders, one interface: flat ids, offsets, and refusals instead of crashes."""

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.tokenizer_files import EOS, set_in, tokenizer, write

from apr.errors import DamagedFile, Refusal
from apr.files import sha256_bytes
from apr.tokenizer.comparison import compare
from apr.tokenizer.encoders import (
    FastEncoder,
    NotAllowed,
    ReferenceEncoder,
    build_fast_encoder,
    first_difference,
)
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.trap_texts import trap_texts

SMALL = tokenizer()
TEXTS = ["hello he", "", "naïve — 世界\n\tx\0", f"{EOS}", "\U0001f600\r\n", "he" * 3000]


def fast() -> FastEncoder:
    encoder = SMALL.fast
    assert isinstance(encoder, FastEncoder)
    return encoder


@pytest.mark.parametrize("encoder", [SMALL.reference, fast()], ids=["reference", "fast"])
def test_ids_come_flat_with_offsets(encoder: FastEncoder | ReferenceEncoder) -> None:
    ids, offsets = encoder.encode_flat(TEXTS)
    assert (ids.dtype, offsets.dtype) == (np.uint32, np.uint64)
    assert len(offsets) == len(TEXTS) + 1
    parts = [ids[start:stop].tolist() for start, stop in pairwise(offsets.tolist())]
    assert parts == [SMALL.encode(text).tolist() for text in TEXTS]
    assert [SMALL.decode(part) for part in parts] == TEXTS


@pytest.mark.parametrize("encoder", [SMALL.reference, fast()], ids=["reference", "fast"])
def test_no_texts_give_no_ids(encoder: FastEncoder | ReferenceEncoder) -> None:
    ids, offsets = encoder.encode_flat([])
    assert (ids.size, offsets.tolist()) == (0, [0])


@pytest.mark.parametrize("encoder", [SMALL.reference, fast()], ids=["reference", "fast"])
def test_a_lone_surrogate_is_refused_and_its_neighbours_pass(
    encoder: FastEncoder | ReferenceEncoder,
) -> None:
    with pytest.raises(Refusal) as caught:
        encoder.encode_flat(["fine", "ab\ud800"])
    assert caught.value.id == "tokenizer.lone-surrogate"
    assert "character 2" in caught.value.found
    assert encoder.encode_flat(["fine", "ab\U00010000"])[0].size


class PanicException(BaseException):
    """What a panic in compiled code looks like from Python."""


class Panicking:
    """A library whose every call panics."""

    def encode_batch_flat(self, _texts: list[str]) -> None:
        raise PanicException("called `Option::unwrap()` on a `None` value\nstack backtrace: ...")


class Interrupted:
    """A library during which Ctrl-C is pressed."""

    def encode_batch_flat(self, _texts: list[str]) -> None:
        raise KeyboardInterrupt


def test_a_panic_of_the_fast_encoder_is_a_refusal() -> None:
    with pytest.raises(Refusal) as caught:
        FastEncoder(Panicking(), version="0", where="t.json").encode_flat(["a"])
    assert caught.value.id == "tokenizer.fast-encoder-failed"
    assert caught.value.found == "fastokens 0: called `Option::unwrap()` on a `None` value"


def test_an_interrupt_stays_one() -> None:
    with pytest.raises(KeyboardInterrupt):
        FastEncoder(Interrupted(), version="0", where="t.json").encode_flat(["a"])


def test_a_tokenizer_the_fast_encoder_cannot_read_is_a_refusal() -> None:
    used = tokenizer(set_in("pre_tokenizer", to={"type": "Punctuation", "behavior": "Isolated"}))
    with pytest.raises(Refusal) as caught:
        build_fast_encoder(used.definition, where=used.where)
    assert caught.value.id == "tokenizer.fast-encoder-failed"


def test_the_fast_encoder_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastokens", None)
    assert tokenizer().fast == NotAllowed("not-installed", "fastokens is not installed")


@pytest.mark.parametrize(
    ("left", "right", "at"),
    [
        ([], [], None),
        ([1, 2], [1, 2], None),
        ([1, 2, 3], [1, 5, 4], 1),
        ([1, 2], [1, 2, 3], 2),
        ([1], [], 0),
    ],
)
def test_the_first_difference(left: list[int], right: list[int], at: int | None) -> None:
    assert first_difference(np.array(left), np.array(right)) == at
    assert first_difference(np.array(right), np.array(left)) == at


def renumbered(value: dict[str, object]) -> None:
    """Added tokens that the library gives other ids than the file does."""
    value["added_tokens"].reverse()  # pyright: ignore[reportAttributeAccessIssue]


def test_a_second_process_need_not_check_again(tmp_path: Path) -> None:
    directory = write(tmp_path / "tok")
    first = Tokenizer.load(directory, eos_token=EOS)
    (directory / "vocab.json").write_text('{"a": 0}')
    checked = sha256_bytes(first.json_bytes)
    again = Tokenizer.load(directory, eos_token=EOS, checked_sha256=checked)
    assert again.encode("hello").tolist() == first.encode("hello").tolist()
    assert again.eos_token_id == first.eos_token_id
    with pytest.raises(Refusal):
        Tokenizer.load(directory, eos_token=EOS)


@pytest.mark.parametrize("checked", [lambda data: sha256_bytes(data[::-1]), lambda data: ""])
def test_other_bytes_are_checked_again(tmp_path: Path, checked: Callable[[bytes], str]) -> None:
    directory = write(tmp_path, renumbered, control=(EOS, "<|pad|>"))
    data = (directory / "tokenizer.json").read_bytes()
    with pytest.raises(DamagedFile) as caught:
        Tokenizer.load(directory, checked_sha256=checked(data))
    assert caught.value.id == "tokenizer.damaged"


@pytest.mark.parametrize("ignore_merges", [True, False])
def test_words_that_are_pieces_are_taken_whole_where_the_model_says_so(ignore_merges: bool) -> None:
    """No merge makes `quay`: only a model that ignores merges can give its id."""

    def change(value: dict[str, Any]) -> None:
        value["model"]["vocab"]["quay"] = 259
        value["added_tokens"][0]["id"] = 260
        value["model"]["ignore_merges"] = ignore_merges

    used = tokenizer(change)
    assert isinstance(used.fast, FastEncoder)
    ids = used.reference.encode_flat(["quay"])[0].tolist()
    assert (ids == [259]) == ignore_merges
    assert used.fast.encode_flat(["quay"])[0].tolist() == ids
    texts = list(trap_texts(used.definition))[::10]
    assert compare(used.fast, used.reference, texts).difference is None
