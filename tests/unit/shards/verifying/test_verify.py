"""`verify`: every check says PASS on what was written, and each has a fault that turns it red."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests import provenance_files
from tests.shard_files import (
    TEXTS,
    edit_manifest,
    encode,
    ids_of,
    manifest_value,
    rewrite_shard,
    sha256,
)
from tests.tokenizer_files import set_in, swapped, tokenizer

from apr.errors import Refusal
from apr.shards.layout import document_hash, index_bytes
from apr.shards.provenance import PROVENANCE_NAME
from apr.shards.verifying.verification import Verification
from apr.shards.verifying.verify import verify
from apr.tokenizer.tokenizer import Tokenizer

CHECKS = [
    "files", "hashes", "ids", "separators", "tokenizer", "counts", "text", "encoding", "sources",
]  # fmt: skip


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    tokenizer().save(tmp_path / "tok")
    return encode(tmp_path)[0]


def verified(directory: Path, used: Tokenizer | None = None, **options: Any) -> Verification:
    tok = directory.parent / "tok"
    if used is not None:
        used.save(tok, overwrite=True)
    return verify(directory, tokenizer_path=tok, **options)


def failed(verification: Verification) -> list[str]:
    return [check.name for check in verification.checks if check.verdict == "FAIL"]


def test_what_was_written_passes_every_check(shards: Path) -> None:
    found = verified(shards)
    assert [check.name for check in found.checks] == CHECKS
    assert {check.verdict for check in found.checks} == {"PASS"}
    assert found.verdict == "PASS"
    assert found.refusal is None
    assert found.num_compared == len(TEXTS)


@pytest.mark.parametrize("policy", ["after", "between", "none"])
def test_so_does_every_policy_and_a_tokenizer_that_normalizes(tmp_path: Path, policy: str) -> None:
    used = tokenizer(set_in("normalizer", to={"type": "NFC"}))
    texts = [*TEXTS, "nai\N{COMBINING DIAERESIS}ve", "x" * 50, *TEXTS]
    output, _ = encode(tmp_path, texts, with_tokenizer=used, eos_policy=policy)
    for sample in (None, 0, 3):
        found = verified(output, used, sample=sample)
        assert failed(found) == []
        assert found.verdict == "PASS", found.unknown


def change_a_byte(directory: Path) -> None:
    path = directory / "shard-00000.bin"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def change_a_document_hash(directory: Path) -> None:
    path = directory / "shard-00001.idx"
    path.write_bytes(path.read_bytes()[:-16] + document_hash("another"))


def exchange_an_id(directory: Path) -> None:
    ids = ids_of(directory, 0)
    rewrite_shard(directory, 0, [*ids[:3], ids[3] + 1, *ids[4:]])


def spell_a_word_in_letters(directory: Path) -> None:
    """The same text in other ids than the reference gives it, every number made to fit."""
    letters = tokenizer(words=()).encode("he said <|endoftext|>").tolist()
    whole = tokenizer().encode("hello hello\n").tolist()
    ends, hashes = [], b""
    for ids, text in ((whole, TEXTS[0]), (letters, TEXTS[1])):
        ends.append((ends[-1] if ends else 0) + len(ids) + 1)
        hashes += document_hash(text)
    index = index_bytes(ends, hashes)
    (directory / "shard-00000.idx").write_bytes(index)
    ids = [*whole, 259, *letters, 259]
    data = np.array(ids, "<u4").tobytes()
    (directory / "shard-00000.bin").write_bytes(data)
    value = manifest_value(directory)
    value["shards"][0] |= {
        "num_tokens": len(ids),
        "size_bytes": len(data),
        "sha256": sha256(data),
        "index_sha256": sha256(index),
    }
    total = sum(shard["num_tokens"] for shard in value["shards"])
    edit_manifest(directory, shards=value["shards"], total_tokens=total)


def move_a_separator(directory: Path) -> None:
    ids = ids_of(directory, 0)
    at = ids.index(259)
    ids[at - 1], ids[at] = ids[at], ids[at - 1]
    rewrite_shard(directory, 0, ids)


def put_an_id_out_of_range(directory: Path) -> None:
    rewrite_shard(directory, 0, [260, *ids_of(directory, 0)[1:]])


def statistics(**changes: Any) -> Callable[[Path], None]:
    def plant(directory: Path) -> None:
        edit_manifest(directory, statistics=manifest_value(directory)["statistics"] | changes)

    return plant


def other_fields(**changes: Any) -> Callable[[Path], None]:
    return lambda directory: edit_manifest(directory, **changes)


def lose_a_row_of_the_sources(directory: Path) -> None:
    provenance_files.write(directory, [{"source": "a", "row": row} for row in range(3)])


def drop_a_row_of_the_sources(directory: Path) -> None:
    rows: list[dict[str, Any]] = [{"source": "a", "row": row} for row in range(4)]
    provenance_files.write(directory, [*rows, {"source": "b", "dropped": "empty"}])


def cut_the_sources(directory: Path) -> None:
    path = directory / PROVENANCE_NAME
    path.write_bytes(path.read_bytes()[:-2])


@pytest.mark.parametrize(
    ("plant", "check", "id", "exit_code"),
    [
        (change_a_byte, "hashes", "shards.hash-mismatch", 4),
        (change_a_document_hash, "hashes", "shards.hash-mismatch", 4),
        (put_an_id_out_of_range, "ids", "shards.id-range", 4),
        (move_a_separator, "separators", "shards.separators", 4),
        (statistics(longest_run=2), "counts", "shards.verify-counts", 4),
        (statistics(unigram_entropy_bits=4.1), "counts", "shards.verify-counts", 4),
        (statistics(bytes_per_token=1.1), "counts", "shards.verify-counts", 4),
        (statistics(unk_rate=0.5), "counts", "shards.verify-counts", 4),
        (statistics(max_token_id=256), "counts", "shards.verify-counts", 4),
        (other_fields(documents_sha256="0" * 64), "counts", "shards.verify-counts", 4),
        (exchange_an_id, "text", "shards.verify-text", 4),
        (spell_a_word_in_letters, "encoding", "shards.verify-ids", 4),
        (statistics(num_documents_changed_by_normalizer=1), "text", "shards.verify-text", 4),
        (lose_a_row_of_the_sources, "sources", "shards.verify-sources", 4),
        (drop_a_row_of_the_sources, "sources", "shards.verify-sources", 4),
        (cut_the_sources, "sources", "shards.provenance-damaged", 4),
    ],
)
def test_each_check_has_its_fault(
    shards: Path, plant: Callable[[Path], None], check: str, id: str, exit_code: int
) -> None:
    plant(shards)
    found = verified(shards, sample=None)
    assert check in failed(found)
    ids = [each.refusal.id for each in found.checks if each.refusal is not None]
    assert id in ids
    assert found.verdict == "FAIL"
    assert found.refusal is not None
    assert found.refusal.exit_code == exit_code


def test_a_document_set_that_fits_no_text_bytes_is_counted(shards: Path) -> None:
    edit_manifest(shards, text_bytes=manifest_value(shards)["text_bytes"] + 1)
    assert failed(verified(shards)) == ["counts"]


def test_another_tokenizer_is_a_failed_check_of_the_request(shards: Path) -> None:
    found = verified(shards, tokenizer(swapped("he", "hel"), words=("he", "hel", "Ġhe")))
    assert failed(found) == ["tokenizer"]
    assert found.refusal is not None
    assert (found.refusal.id, found.refusal.exit_code) == ("shards.other-tokenizer", 5)
    assert found.num_compared == 0


def test_comparing_nothing_is_unknown_and_blocks(shards: Path) -> None:
    found = verify(shards)
    assert found.verdict == "UNKNOWN"
    assert set(found.unknown) == {"tokenizer", "text", "encoding"}
    assert found.refusal is not None
    assert (found.refusal.id, found.refusal.exit_code) == ("shards.verify-unknown", 5)


def test_the_tokenizer_on_record_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer().save(tmp_path / "tok")
    used = Tokenizer.load(tmp_path / "tok")
    output, _ = encode(tmp_path, with_tokenizer=used)
    assert verify(output).verdict == "PASS"
    tokenizer(swapped("he", "hel")).save(tmp_path / "tok", overwrite=True)
    assert verify(output).verdict == "UNKNOWN"
    monkeypatch.chdir(tmp_path)
    for record in ("[]", "{}", '{"tokenizer": 7}', "{", '{"tokenizer": "nowhere"}'):
        (output / "encode.json").write_text(record)
        assert verify(output).verdict == "UNKNOWN"


def test_only_the_sources_may_stay_unknown(shards: Path) -> None:
    (shards / PROVENANCE_NAME).unlink()
    found = verified(shards)
    assert found.verdict == "PASS"
    assert found.unknown == ("sources",)
    assert found.refusal is None
    assert found.as_dict()["unknown"] == ["sources"]


def test_what_is_no_directory_of_shards_is_refused_at_once(tmp_path: Path, shards: Path) -> None:
    (shards / "shard-00001.bin").unlink()
    with pytest.raises(Refusal) as refused:
        verified(shards)
    assert refused.value.id == "shards.file-missing"
