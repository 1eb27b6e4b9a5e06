"""F10, while the encoding runs: a thousandth of all documents is encoded by the reference too.

One document whose ids differ names itself, is remembered, and costs the fast encoder its place:
everything is done again by the reference.
"""

import json
from itertools import count
from pathlib import Path

import pytest
from tests.fast_encoders import WORDS, cut_by, wrong
from tests.shard_files import write_corpus

from apr.corpus.document import document_hash
from apr.shards.encode import encode_corpus
from apr.shards.manifest import Manifest
from apr.tokenizer.choice import choose_encoder
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.verdicts import Subject, Verdict, keep_verdict

MARKER = "zzz-marker"
NUM_DOCUMENTS = 40


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
    keep_verdict(tmp_path / "proofs", subject, passed)
    return used


def text_with(*, marker: str, shadowed: bool) -> str:
    """A text that the shadow check chooses, or does not, by its hash."""
    texts = (f"a and b {number} {marker}" for number in count())
    return next(
        text for text in texts if (int.from_bytes(document_hash(text)[:2], "big") < 66) == shadowed
    )


def encode(tmp_path: Path, texts: list[str], used: Tokenizer, name: str = "out") -> Manifest:
    return encode_corpus(
        [write_corpus(tmp_path / "a.jsonl", texts)],
        tokenizer=used,
        output=tmp_path / name,
        cache_directory=tmp_path / "proofs",
        task_bytes=400,
    )


def ordinary() -> list[str]:
    return [f"a and b {number}" for number in range(NUM_DOCUMENTS)]


def test_the_harmless_twin_is_encoded_by_the_fast_encoder(
    tmp_path: Path, proven: Tokenizer
) -> None:
    texts = [*ordinary(), text_with(marker="", shadowed=True)]
    manifest = encode(tmp_path, texts, proven)
    assert manifest.encoder.name == "fastokens"
    assert manifest.encoder.num_shadowed >= 1


@pytest.mark.parametrize("at", [0, 1, NUM_DOCUMENTS])
def test_one_differing_document_costs_the_fast_encoder_its_place(
    tmp_path: Path, proven: Tokenizer, at: int
) -> None:
    texts = ordinary()
    texts.insert(at, text_with(marker=MARKER, shadowed=True))
    manifest = encode(tmp_path, texts, proven)
    assert manifest.encoder.name == "tokenizers"
    assert manifest.encoder.proof["verdict"] == "differs"
    detail = json.loads((tmp_path / "out" / "encode.json").read_text())["encoder_detail"]
    assert detail.startswith(f"{tmp_path / 'a.jsonl'}:{at + 1}, token 0: ids ")
    reference = encode_corpus(
        [tmp_path / "a.jsonl"], tokenizer=proven, output=tmp_path / "ref", encoder="reference"
    )
    assert manifest.shards == reference.shards
    assert choose_encoder(proven, cache_directory=tmp_path / "proofs").name == "tokenizers"


def test_the_first_documents_of_a_small_corpus_are_compared_too(
    tmp_path: Path, proven: Tokenizer
) -> None:
    manifest = encode(tmp_path, [text_with(marker=MARKER, shadowed=False)], proven)
    assert manifest.encoder.name == "tokenizers"
    assert manifest.encoder.num_shadowed == 0


def test_ids_that_lose_text_are_the_encoders_fault_when_the_reference_keeps_it(
    tmp_path: Path, proven: Tokenizer
) -> None:
    """Byte conservation sees every document; the reference then says who is to blame."""
    proven.fast = wrong(proven, pieces=("a", "the"), marker=MARKER)
    texts = [*ordinary(), text_with(marker=MARKER, shadowed=False)]
    manifest = encode(tmp_path, texts, proven)
    assert manifest.encoder.name == "tokenizers"
    assert manifest.encoder.proof["verdict"] == "differs"
    assert manifest.text_bytes == sum(map(len, texts))
