"""Documents decoded and encoded again: what is sampled, and what is told of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.shard_files import TEXTS, encode, ids_of, rewrite_shard
from tests.tokenizer_files import control_token, set_in, tokenizer

from apr.shards.layout import document_hash
from apr.shards.reader import ShardReader
from apr.shards.verifying.round_trip import RoundTrip, compare_documents, sample_by_content
from apr.tokenizer.tokenizer import Tokenizer

NFC = set_in("normalizer", to={"type": "NFC"})
DECOMPOSED = "nai\N{COMBINING DIAERESIS}ve"


def compare(directory: Path, used: Tokenizer) -> RoundTrip:
    reader = ShardReader.open(directory, verify=False)
    return compare_documents(reader, used, range(reader.num_documents), encode_again=True)


def test_what_was_encoded_comes_back(tmp_path: Path) -> None:
    output, _ = encode(tmp_path)
    found = compare(output, tokenizer())
    assert found.num_compared == found.num_same_text == found.num_same_ids == len(TEXTS)
    assert found.text_mismatch is None
    assert found.ids_mismatch is None


def test_one_id_exchanged_for_another_is_another_text(tmp_path: Path) -> None:
    output, _ = encode(tmp_path)
    ids = ids_of(output, 0)
    rewrite_shard(output, 0, [ids[0] + 1, *ids[1:]])
    found = compare(output, tokenizer())
    assert (found.num_same_text, found.num_changed_by_normalizer) == (len(TEXTS) - 1, 0)
    assert found.text_mismatch is not None
    assert found.text_mismatch.document_index == 0
    assert document_hash(TEXTS[0]).hex() in found.text_mismatch.expected


def test_other_ids_of_the_same_text_are_told_by_their_first_difference(tmp_path: Path) -> None:
    """`he` is one piece for the reference, two here: the text agrees, the ids do not."""
    output, _ = encode(tmp_path, ["xhe"])
    assert len(ids_of(output, 0)) == 3
    other, _ = encode(tmp_path, ["xab"], name="other")
    rewrite_shard(other, 0, [*tokenizer(words=()).encode("xhe").tolist(), 259])
    (other / "shard-00000.idx").write_bytes(
        (other / "shard-00000.idx").read_bytes()[:-16] + document_hash("xhe")
    )
    found = compare(other, tokenizer())
    assert found.num_same_text == 1
    assert found.num_same_ids == 0
    assert found.ids_mismatch is not None
    assert "document 0, token 1 of 3" in found.ids_mismatch.found
    assert "[256]" in found.ids_mismatch.expected


def test_what_the_normalizer_changed_is_counted_and_no_mismatch(tmp_path: Path) -> None:
    used = tokenizer(NFC)
    output, manifest = encode(tmp_path, ["naïve", DECOMPOSED], with_tokenizer=used)
    assert manifest.statistics.num_documents_changed_by_normalizer == 1
    found = compare(output, used)
    assert (found.num_same_text, found.num_changed_by_normalizer) == (1, 1)
    assert found.text_mismatch is None
    assert found.num_same_ids == 2


def test_ids_that_decode_to_what_no_normalizer_writes_are_a_mismatch(tmp_path: Path) -> None:
    used = tokenizer(NFC)
    output, _ = encode(tmp_path, ["naive"], with_tokenizer=used)
    rewrite_shard(output, 0, [*tokenizer().encode(DECOMPOSED[:4]).tolist(), 259])
    found = compare(output, used)
    assert found.text_mismatch is not None


def test_a_space_that_the_tokenizer_puts_first_is_not_text(tmp_path: Path) -> None:
    used = tokenizer(set_in("pre_tokenizer", "add_prefix_space", to=True))
    output, _ = encode(tmp_path, ["he said", " he said"], with_tokenizer=used)
    found = compare(output, used)
    assert found.num_same_text == found.num_same_ids == 2


def test_the_sample_is_of_distinct_contents_and_every_shard(tmp_path: Path) -> None:
    texts = ["same"] * 40 + [f"text {number}" for number in range(60)]
    output, manifest = encode(tmp_path, texts, shard_tokens=150)
    assert manifest.shard_count > 3
    reader = ShardReader.open(output)
    chosen = sample_by_content(reader, 10).tolist()
    assert chosen == sorted(set(chosen))
    ends = np.cumsum([shard.num_documents for shard in manifest.shards])
    assert {0, *ends - 1, *ends[:-1]} <= set(chosen)
    inside = set(chosen) - {0, *(ends - 1).tolist(), *ends[:-1].tolist()}
    contents = [reader.document_hashes[index].tobytes() for index in inside]
    assert len(set(contents)) == len(contents)
    assert 10 <= len(chosen) <= 10 + 2 * manifest.shard_count


def test_the_sample_does_not_depend_on_the_order_of_documents(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(50)]
    chosen: list[set[bytes]] = []
    for name, order in (("one", texts), ("other", texts[::-1])):
        output, _ = encode(tmp_path, order, name=name, shard_tokens=10_000)
        reader = ShardReader.open(output)
        indices = set(sample_by_content(reader, 5).tolist()) - {0, 49}
        chosen.append({reader.document_hashes[index].tobytes() for index in indices})
    assert len(chosen[0] & chosen[1]) >= 3
    lowest = sorted(document_hash(text) for text in texts)[:5]
    assert chosen[0] <= set(lowest)


@pytest.mark.parametrize("wanted", [None, 4, 1000])
def test_the_whole_set_may_be_asked_for(tmp_path: Path, wanted: int | None) -> None:
    output, _ = encode(tmp_path)
    assert sample_by_content(ShardReader.open(output), wanted).tolist() == [0, 1, 2, 3]


def test_a_text_that_the_tokenizer_will_not_encode_is_a_mismatch(tmp_path: Path) -> None:
    """A piece that became a control token is refused by the encoder, and not skipped here."""
    output, _ = encode(tmp_path, ["he", "ab"])

    def control(value: dict[str, Any]) -> None:
        value["added_tokens"].insert(0, control_token("he", 256))

    found = compare(output, tokenizer(control))
    assert found.num_same_text == 2
    assert found.num_same_ids == 1
    assert found.ids_mismatch is not None
    assert "id 256" in found.ids_mismatch.found
