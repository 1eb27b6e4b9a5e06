"""F10: the fast encoder is not the reference.

Every fast encoder mis-encodes, without an error, some tokenizer.json it accepts. Here the known
ones are planted, and wrong encoders; each is kept from encoding, by the list of known shapes, by
the comparison, by the sample of the corpus, or by a difference seen in an earlier run.
"""

import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from tests.fast_encoders import (
    BYTES,
    DIGITS,
    GPT2,
    LLAMA3,
    QWEN2,
    WORDS,
    OtherUnicode,
    TruncatingLibrary,
    cut_by,
    same,
    sequence,
    split,
    unlisted,
    wrong,
)
from tests.tokenizer_files import EOS, changed, control_token, set_in, tokenizer, write

from apr.errors import Refusal
from apr.tokenizer.choice import choose_encoder, record_difference
from apr.tokenizer.comparison import compare, prove
from apr.tokenizer.conservation import bytes_per_id
from apr.tokenizer.encoders import FastEncoder, NotAllowed
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.trap_texts import code_point_texts, trap_texts
from apr.tokenizer.verdicts import Subject, Verdict, keep_verdict

MARKER = "only this document of the corpus says so"
KNOWN_SHAPES = {
    "GPT-2": WORDS,
    "Qwen": sequence(split(QWEN2), BYTES),
    "Llama-3": sequence(split(LLAMA3), BYTES),
    "StarCoder": sequence(DIGITS, WORDS),
}
UNEQUAL = {
    "no pre-tokenizer": None,
    "Digits before Split": sequence(DIGITS, split(QWEN2), BYTES),
    "Split, then ByteLevel with its own words": sequence(split(QWEN2), WORDS),
    "a Split by an unknown pattern": sequence(split(GPT2), BYTES),
    "a Split that merges": sequence(split(QWEN2, "MergedWithPrevious"), BYTES),
}
# Equal, as far as was seen; but they lose text or spaces, or nobody uses them.
UNPROVEN = {
    "ByteLevel that cuts nothing": BYTES,
    "a Split that removes": sequence(split(QWEN2, "Removed"), BYTES),
    "a prefix space": WORDS | {"add_prefix_space": True},
    "a Split turned round": sequence(split(QWEN2) | {"invert": True}, BYTES),
    "digits in groups": sequence(DIGITS | {"individual_digits": False}, WORDS),
    "an unknown field": WORDS | {"new_field": 1},
    "a Sequence in a Sequence": sequence(sequence(WORDS)),
}


@pytest.mark.parametrize("shape", KNOWN_SHAPES.values(), ids=KNOWN_SHAPES)
def test_known_shapes_are_allowed_and_equal(shape: dict[str, Any]) -> None:
    used = cut_by(shape)
    assert isinstance(used.fast, FastEncoder)
    texts = list(trap_texts(used.definition))
    assert compare(used.fast, used.reference, texts[::7]).difference is None


@pytest.mark.parametrize("shape", UNEQUAL.values(), ids=UNEQUAL)
def test_the_comparison_finds_what_the_list_keeps_out(shape: dict[str, Any] | None) -> None:
    """With the real fast encoder: the list is no excuse for a comparison that is too weak."""
    used = cut_by(shape)
    assert isinstance(used.fast, NotAllowed)
    assert used.fast.reason.startswith("pre_tokenizer ")
    assert prove(unlisted(used), used).difference is not None


@pytest.mark.parametrize("shape", UNPROVEN.values(), ids=UNPROVEN)
def test_other_shapes_go_to_the_reference(shape: dict[str, Any]) -> None:
    used = cut_by(shape)
    choice = choose_encoder(used, cache_directory=None, sample=["the 123"])
    assert (choice.name, choice.proof["verdict"]) == ("tokenizers", "not-allowed")
    assert str(choice.proof["reason"]).startswith("pre_tokenizer ")
    assert choice.proof["num_strings"] == 0


def test_a_split_that_removes_is_caught_by_counting_bytes() -> None:
    """Both encoders agree on these ids, and both lose the text."""
    used = cut_by(UNPROVEN["a Split that removes"])
    sizes = bytes_per_id(used.definition)
    assert sizes is not None
    assert int(sizes[used.encode("the 12")].sum()) < len("the 12")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_in("normalizer", to={"type": "NFKC"}), "normalizer"),
        (set_in("normalizer", to={"type": "Lowercase"}), "normalizer"),
        (set_in("normalizer", to={"type": "Sequence", "normalizers": []}), "normalizer"),
        (set_in("model", "byte_fallback", to=True), "byte_fallback"),
        (set_in("model", "unk_token", to="a"), "unk_token"),
        (set_in("model", "end_of_word_suffix", to="h"), "suffixes"),
        (lambda value: value["model"]["merges"].append("h e"), "repeated merge"),
        (lambda value: value["model"]["vocab"].update(q_=value["model"]["vocab"].pop("q")), "byte"),
    ],
)  # fmt: skip
def test_other_models_go_to_the_reference(change: Any, reason: str) -> None:
    assert isinstance(tokenizer().fast, FastEncoder)
    fast = tokenizer(change).fast
    assert isinstance(fast, NotAllowed)
    assert reason in fast.reason


def test_dropout_is_refused() -> None:
    for dropout in (None, 0):
        assert tokenizer(set_in("model", "dropout", to=dropout)).encode("hel").size == 1
    with pytest.raises(Refusal) as caught:
        tokenizer(set_in("model", "dropout", to=0.1))
    assert caught.value.id == "tokenizer.dropout"


def test_a_truncation_block_cuts_no_document() -> None:
    """In the reference itself it cuts 5,001 tokens to 128."""
    truncation = {
        "direction": "Right",
        "max_length": 128,
        "strategy": "LongestFirst",
        "stride": 0,
    }
    used = tokenizer(set_in("truncation", to=truncation))
    assert isinstance(used.fast, FastEncoder)
    for encoder in (used.reference, used.fast):
        assert encoder.encode_flat(["x" * 5001])[0].size == 5001


@pytest.mark.parametrize(
    "flags",
    [{"single_word": True}, {"lstrip": True, "rstrip": True}, {"normalized": True}, {}],
)
def test_flags_of_added_tokens_change_no_document(flags: dict[str, bool]) -> None:
    """Some encoders ignore the flags; here no added token is looked for at all."""
    text = f"a{EOS}b {EOS} {EOS}c  {EOS}"
    added = [control_token(EOS, 259) | flags]
    used = tokenizer(set_in("added_tokens", to=added))
    assert isinstance(used.fast, FastEncoder)
    assert same(used.fast.encode_flat([text]), used.reference.encode_flat([text]))
    assert used.encode(text).max() < 259
    assert used.decode(used.encode(text)) == text


def test_a_token_that_only_the_configuration_has_is_refused(tmp_path: Path) -> None:
    directory = write(tmp_path)
    config = directory / "tokenizer_config.json"
    config.write_text(f'{{"eos_token": "{EOS}"}}')
    assert isinstance(Tokenizer.load(directory).fast, FastEncoder)
    config.write_text('{"added_tokens_decoder": {"260": {"content": "<|new|>"}}}')
    with pytest.raises(Refusal) as caught:
        Tokenizer.load(directory)
    assert caught.value.id == "tokenizer.sibling-disagrees"


def test_an_encoder_of_a_newer_unicode_is_found() -> None:
    """U+088F is a letter since Unicode 17; the reference does not know it yet."""
    used = cut_by(sequence(split(LLAMA3), BYTES))
    document = ["\u088f.the"]
    other = OtherUnicode(used, new_letter="\u088f")
    assert not same(other.encode_flat(document), used.reference.encode_flat(document))
    difference = compare(other, used.reference, code_point_texts()).difference
    assert difference is not None
    assert "\u088f" in difference.text
    twin = OtherUnicode(used, new_letter="z")
    texts = islice(code_point_texts(), 1000)
    assert compare(twin, used.reference, texts).difference is None


@pytest.mark.parametrize("pieces", [("a", "b"), ("ing", "Ġthe"), ("Ā", "Ń")])
def test_two_ids_swapped_are_found(pieces: tuple[str, str]) -> None:
    """Each piece of the vocabulary is in some text, so it does not matter which two."""
    used = cut_by(WORDS)
    difference = prove(wrong(used, pieces=pieces), used).difference
    assert difference is not None
    ids = {str(used.definition.ids[piece]) for piece in pieces}
    assert {difference.found, difference.expected} == ids


def test_an_encoder_that_loses_a_token_is_found() -> None:
    used = cut_by(WORDS)
    candidate = FastEncoder(TruncatingLibrary(used.reference), version="0", where="x")
    difference = prove(candidate, used).difference
    assert difference is not None
    assert difference.found == "missing"


@pytest.fixture
def proven(tmp_path: Path) -> Tokenizer:
    """A tokenizer that passed, with an encoder that is wrong where no made-up text shows it."""
    used = cut_by(WORDS)
    encoder = wrong(used, marker=MARKER)
    used.fast = encoder
    subject = Subject(
        fingerprint=used.fingerprint,
        reference_version=used.reference.version,
        encoder=encoder.name,
        encoder_version=encoder.version,
    )
    passed = Verdict(verdict="equal", reason=None, num_strings=9, num_code_points=9, detail=None)
    keep_verdict(tmp_path, subject, passed)
    return used


def test_one_wrong_document_of_the_corpus_is_enough(proven: Tokenizer, tmp_path: Path) -> None:
    """What no made-up text shows, the sample of the corpus does; and it is remembered."""
    twin = choose_encoder(proven, cache_directory=tmp_path, sample=["a and b"])
    assert (twin.name, twin.proof["verdict"]) == ("fastokens", "equal")
    choice = choose_encoder(proven, cache_directory=tmp_path, sample=["b", f"b {MARKER}"])
    assert (choice.name, choice.proof["verdict"]) == ("tokenizers", "differs")
    assert choice.detail is not None
    assert choice.detail.startswith("text 1 of the sample, token 0: ")
    again = choose_encoder(proven, cache_directory=tmp_path, sample=["a and b"])
    assert again == choice


def test_a_difference_seen_while_encoding_is_remembered(proven: Tokenizer, tmp_path: Path) -> None:
    first = choose_encoder(proven, cache_directory=tmp_path)
    assert first.name == "fastokens"
    given_up = record_difference(
        proven,
        first,
        cache_directory=tmp_path,
        place="corpus/caf\udce9.jsonl:7",
        token_index=3,
        found="ids [1]",
        expected="ids [2]",
    )
    assert given_up.name == "tokenizers"
    assert given_up.detail == "corpus/caf?.jsonl:7, token 3: ids [1], expected ids [2]"
    assert "jsonl" not in str(given_up.proof)
    assert choose_encoder(proven, cache_directory=tmp_path) == given_up


def test_the_library_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastokens", None)
    used = Tokenizer.from_json_bytes(changed(lambda _value: None), eos_token=EOS, where="x")
    choice = choose_encoder(used, cache_directory=None)
    assert (choice.name, choice.proof["verdict"]) == ("tokenizers", "not-installed")
