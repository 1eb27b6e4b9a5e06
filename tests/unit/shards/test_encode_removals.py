"""Removal lists and certificates on the way from a corpus to shards."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.shard_files import write_corpus
from tests.tokenizer_files import tokenizer

from apr.corpus.certificate import Certificate, DocumentTally, write_certificate
from apr.corpus.reading.documents import document_hash
from apr.errors import DamagedFile, Refusal
from apr.files import sha256_bytes
from apr.shards.encode import MadeBefore, Unfinished, encode_corpus, encode_slice
from apr.shards.encoding.request import Request
from apr.shards.manifest import Manifest
from apr.shards.reader import ShardReader

TEXTS = ["one", "two", "three", "two", "four", "two", "five", "one"]


def encode(directory: Path, texts: Sequence[str] = TEXTS, **options: Any) -> Manifest:
    corpus = directory / "train" / "a.jsonl"
    if not corpus.exists():
        corpus.parent.mkdir()
        write_corpus(corpus, texts)
    return encode_corpus(
        [corpus.parent],
        tokenizer=tokenizer(),
        output=directory / "out",
        encoder="reference",
        **options,
    )


def removal_list(path: Path, *entries: tuple[str, str, str | None]) -> Path:
    lines = [
        {"hash": document_hash(text).hex(), "reason": reason} | ({"keep": keep} if keep else {})
        for text, reason, keep in entries
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def texts_of(directory: Path) -> list[str]:
    by_hash = {document_hash(text): text for text in TEXTS}
    return [by_hash[bytes(row)] for row in ShardReader.open(directory / "out").document_hashes]


def test_listed_documents_are_dropped_with_their_reasons(tmp_path: Path) -> None:
    first = removal_list(tmp_path / "1.jsonl", ("one", "contaminated", None))
    second = removal_list(tmp_path / "2.jsonl", ("four", "near_duplicate", None))
    manifest = encode(tmp_path, removals=[first, second])
    assert texts_of(tmp_path) == ["two", "three", "two", "two", "five"]
    assert manifest.drops == {"contaminated": 2, "near_duplicate": 1}
    assert manifest.rows_read == len(TEXTS)


@pytest.mark.parametrize("task_bytes", [20, 60, 1 << 20])
def test_of_copies_the_first_stays_however_the_input_is_cut(
    tmp_path: Path, task_bytes: int
) -> None:
    listed = removal_list(
        tmp_path / "1.jsonl", ("two", "duplicate", "first"), ("one", "duplicate", "first")
    )
    manifest = encode(tmp_path, removals=[listed], task_bytes=task_bytes)
    assert texts_of(tmp_path) == ["one", "two", "three", "four", "five"]
    assert manifest.drops == {"duplicate": 3}


def test_another_list_is_another_encoding(tmp_path: Path) -> None:
    listed = removal_list(tmp_path / "1.jsonl", ("one", "contaminated", None))
    encode(tmp_path, removals=[listed])
    again = encode(tmp_path, overwrite=True)
    assert again.total_documents == len(TEXTS)


def test_a_damaged_list_stops_the_work_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text('{"hash": "00", "reason": "duplicate"}\n')
    with pytest.raises(DamagedFile) as refused:
        encode(tmp_path, removals=[tmp_path / "1.jsonl"])
    assert refused.value.id == "corpus.removals-damaged"
    assert not (tmp_path / "out").exists()


def certificate(path: Path, *, train: Sequence[str], held_out: Sequence[str]) -> str:
    sets: list[DocumentTally] = []
    for texts in (train, held_out):
        sets.append(DocumentTally())
        for text in texts:
            sets[-1].add(text)
    return write_certificate(
        path,
        Certificate(
            train=sets[0].as_set(),
            held_out=sets[1].as_set(),
            split=None,
            checks=[],
            removals=[],
            refines=None,
        ),
    )


@pytest.mark.parametrize("side", ["train", "held-out"])
def test_the_certificate_beside_the_corpus_is_named_with_the_side(
    tmp_path: Path, side: str
) -> None:
    sides = {"train": TEXTS, "held_out": ["else"]}
    if side == "held-out":
        sides = {"train": ["else"], "held_out": TEXTS}
    written = certificate(tmp_path / "certificate.json", **sides)
    manifest = encode(tmp_path)
    assert manifest.certificate is not None
    assert (manifest.certificate.sha256, manifest.certificate.side) == (written, side)
    assert written == sha256_bytes((tmp_path / "certificate.json").read_bytes())


def test_a_certificate_of_other_documents_is_not_claimed(tmp_path: Path) -> None:
    certificate(tmp_path / "certificate.json", train=TEXTS[:3], held_out=["else"])
    assert encode(tmp_path).certificate is None


def test_a_named_certificate_of_other_documents_is_refused(tmp_path: Path) -> None:
    certificate(tmp_path / "c.json", train=TEXTS[:3], held_out=["else"])
    with pytest.raises(Refusal) as refused:
        encode(tmp_path, certificate=tmp_path / "c.json")
    assert refused.value.id == "corpus.certificate-mismatch"
    assert not (tmp_path / "out").exists()


def test_the_set_after_removals_is_what_a_certificate_must_name(tmp_path: Path) -> None:
    listed = removal_list(tmp_path / "1.jsonl", ("one", "contaminated", None))
    certificate(tmp_path / "c.json", train=["two", "three", "four", "five"], held_out=["one"])
    with pytest.raises(Refusal):
        encode(tmp_path, certificate=tmp_path / "c.json")
    manifest = encode(tmp_path, certificate=tmp_path / "c.json", removals=[listed])
    assert manifest.certificate is not None


def refusal(directory: Path, **options: Any) -> Refusal:
    with pytest.raises(Refusal) as refused:
        encode(directory, **options)
    assert not (directory / "out").exists()
    return refused.value


@pytest.mark.parametrize("task_bytes", [20, 1 << 20])
@pytest.mark.parametrize("keep", [None, "first"])
def test_a_list_of_another_corpus_is_refused(
    tmp_path: Path, task_bytes: int, keep: str | None
) -> None:
    fitting = removal_list(tmp_path / "1.jsonl", ("one", "contaminated", None))
    foreign = removal_list(tmp_path / "2.jsonl", ("six", "duplicate", keep))
    for lists in ([foreign], [foreign, fitting], [fitting, foreign]):
        refused = refusal(tmp_path, removals=lists, task_bytes=task_bytes)
        assert (refused.id, refused.where) == ("corpus.removals-unmatched", str(foreign))
        assert refused.found.startswith("1 entries")


@pytest.mark.parametrize("task_bytes", [20, 1 << 20])
def test_one_document_in_one_task_is_enough(tmp_path: Path, task_bytes: int) -> None:
    fitting = removal_list(
        tmp_path / "1.jsonl", ("six", "duplicate", None), ("five", "duplicate", "first")
    )
    same = removal_list(tmp_path / "2.jsonl", ("five", "contaminated", None))
    empty = removal_list(tmp_path / "3.jsonl")
    assert encode(tmp_path, removals=[empty]).drops == {}
    # Of one copy nothing is removed, and the list is still of this corpus.
    kept = encode(tmp_path, removals=[fitting], task_bytes=task_bytes, overwrite=True)
    assert kept.drops == {}
    both = encode(tmp_path, removals=[fitting, same, empty], task_bytes=task_bytes, overwrite=True)
    assert both.drops == {"contaminated": 1}


def test_slices_ask_all_receipts(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "a.jsonl", TEXTS)
    fitting = removal_list(tmp_path / "1.jsonl", ("five", "duplicate", None))
    foreign = removal_list(tmp_path / "2.jsonl", ("six", "duplicate", None))

    def slice_of(name: str, listed: Path, index: int) -> Manifest | MadeBefore | Unfinished:
        request = Request(
            corpus=[corpus],
            tokenizer=tokenizer(),
            output=tmp_path / name,
            shard_tokens=1000,
            content_field="content",
            eos_policy="after",
            exclude=(),
            removals=[listed],
            certificate=None,
            max_quarantined=0,
            overwrite=False,
            task_bytes=60,
            encoder="reference",
            cache_directory=None,
        )
        return encode_slice(request, index=index, count=2)

    assert isinstance(slice_of("fits", fitting, 0), Unfinished)
    assert isinstance(slice_of("fits", fitting, 1), Manifest)
    assert isinstance(slice_of("foreign", foreign, 1), Unfinished)
    with pytest.raises(Refusal) as refused:
        slice_of("foreign", foreign, 0)
    assert refused.value.id == "corpus.removals-unmatched"
