"""A corpus becomes shards: every text once, in order, with the separators the policy says."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from tests.corpus_files import write_jsonl
from tests.shard_files import TEXTS, edit_manifest, encode, manifest_value, write_corpus
from tests.tokenizer_files import BYTE_LEVEL, EOS, set_in, tokenizer

from apr.errors import DamagedFile, Refusal, UsageRefusal
from apr.progress import Progress
from apr.shards.encode import encode_corpus
from apr.shards.layout import document_hash
from apr.shards.manifest import EosPolicy
from apr.shards.reader import ShardReader

SMALL = tokenizer()
EOS_ID = 259


def documents_of(reader: ShardReader) -> list[list[int]]:
    starts = [0, *reader.document_ends[:-1].tolist()]
    ends = reader.document_ends.tolist()
    return [reader.read(start, end).tolist() for start, end in zip(starts, ends, strict=True)]


def test_every_document_is_there_in_order(tmp_path: Path) -> None:
    output, manifest = encode(tmp_path)
    reader = ShardReader.open(output)
    expected = [[*SMALL.encode(text).tolist(), EOS_ID] for text in TEXTS]
    assert documents_of(reader) == expected
    assert reader.manifest == manifest
    assert manifest.shard_count > 1
    assert [bytes(row) for row in reader.document_hashes] == [document_hash(t) for t in TEXTS]


def test_the_manifest_counts_what_is_there(tmp_path: Path) -> None:
    _, manifest = encode(tmp_path)
    assert manifest.total_documents == manifest.eos_token_count == len(TEXTS)
    assert manifest.text_bytes == sum(len(text.encode()) for text in TEXTS)
    assert manifest.total_tokens == sum(len(SMALL.encode(text)) + 1 for text in TEXTS)
    assert (manifest.eos_token, manifest.eos_token_id) == (EOS, EOS_ID)
    assert manifest.tokenizer_fingerprint == SMALL.fingerprint
    assert (manifest.vocab_size, manifest.dtype) == (260, "uint32")


@pytest.mark.parametrize(
    ("policy", "separators"), [("after", len(TEXTS)), ("between", len(TEXTS) - 1), ("none", 0)]
)
@pytest.mark.parametrize("shard_tokens", [1, 20, 10_000])
def test_separators_follow_the_policy(
    tmp_path: Path, policy: EosPolicy, separators: int, shard_tokens: int
) -> None:
    output, manifest = encode(tmp_path, eos_policy=policy, shard_tokens=shard_tokens)
    reader = ShardReader.open(output)
    found = documents_of(reader)
    assert manifest.eos_token_count == separators
    assert sum(document[-1] == EOS_ID for document in found) == separators
    assert [[id for id in document if id != EOS_ID] for document in found] == [
        SMALL.encode(text).tolist() for text in TEXTS
    ]


def test_one_document_between_nothing_needs_no_separator(tmp_path: Path) -> None:
    _, manifest = encode(tmp_path, ["alone"], eos_policy="between")
    assert manifest.eos_token_count == 0


def test_a_shard_ends_after_a_whole_document_and_none_is_empty(tmp_path: Path) -> None:
    _, manifest = encode(tmp_path, ["x" * 9] * 6, shard_tokens=20)
    assert [shard.num_documents for shard in manifest.shards] == [2, 2, 2]
    _, exact = encode(tmp_path, ["x" * 9] * 4, shard_tokens=20, name="exact")
    assert [shard.num_tokens for shard in exact.shards] == [20, 20]
    _, large = encode(tmp_path, ["x" * 99, "y"], shard_tokens=20, name="large")
    assert [shard.num_tokens for shard in large.shards] == [100, 2]


def test_statistics_are_those_of_the_text(tmp_path: Path) -> None:
    _, manifest = encode(tmp_path, ["aaaa", "aabb"], name="few")
    statistics = manifest.statistics
    assert statistics.bytes_per_token == 1.0
    assert statistics.longest_run == 4
    assert statistics.max_token_id == SMALL.encode("b")[0]
    entropy = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert statistics.unigram_entropy_bits == pytest.approx(entropy, abs=1e-6)
    assert statistics.unk_rate == 0.0
    _, same = encode(tmp_path, ["aaaa"] * 3, name="same")
    assert same.statistics.unigram_entropy_bits == 0.0
    assert same.statistics.longest_run == 4


def test_documents_that_the_normalizer_changes_are_counted(tmp_path: Path) -> None:
    composing = tokenizer(set_in("normalizer", to={"type": "NFC"}))
    _, manifest = encode(tmp_path, ["e\u0301", "\u00e9", "e"], with_tokenizer=composing)
    assert manifest.statistics.num_documents_changed_by_normalizer == 1
    assert manifest.text_bytes == 3 + 2 + 1


def test_drops_are_in_the_manifest_and_their_places_beside_it(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "a.py").write_text("hello")
    (source / "b.py").write_bytes(b"\xff")
    (source / "c.py").write_bytes(b"")
    manifest = encode_corpus(
        [source], tokenizer=SMALL, encoder="reference", output=tmp_path / "out"
    )
    assert manifest.drops == {"empty": 1, "not_utf8": 1}
    how = json.loads((tmp_path / "out" / "encode.json").read_text())
    assert how["drop_examples"]["not_utf8"] == [str(source / "b.py")]
    assert how["corpus"] == [str(source)]
    assert how["elapsed_s"] > 0


def test_any_number_of_threads_puts_the_same_shards_together(tmp_path: Path) -> None:
    """Each shard has documents of several parts, and each thread has its own shard."""
    contents: list[dict[str, bytes]] = []
    for num_threads in (1, 4):
        reports: list[Progress] = []
        (tmp_path / str(num_threads)).mkdir()
        output, manifest = encode(
            tmp_path / str(num_threads),
            TEXTS * 9,
            shard_tokens=60,
            task_bytes=40,
            num_threads=num_threads,
            progress=reports.append,
        )
        assert 3 < manifest.shard_count < manifest.total_documents // 2
        for activity in ("writing shards", "verifying shards"):
            done = [report.done for report in reports if report.activity == activity]
            assert done == sorted(done)
            assert done[-1] == 4 * manifest.total_tokens
        names = [*output.glob("shard-*"), output / "manifest.json"]
        contents.append({path.name: path.read_bytes() for path in names})
    assert contents[0] == contents[1]


def test_progress_says_what_was_left_out_and_why(tmp_path: Path) -> None:
    """Told as tasks end, and again by a second run that found them done."""
    write_jsonl(tmp_path / "a.jsonl", [{"content": "a"}, {"content": ""}, {"content": " "}])
    write_jsonl(tmp_path / "b.jsonl", [{"content": "b"}, {"text": "no content"}])
    corpus = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for _ in range(2):
        reports: list[Progress] = []
        with pytest.raises(DamagedFile):
            encode_corpus(
                corpus,
                tokenizer=SMALL,
                output=tmp_path / "out",
                task_bytes=1,
                encoder="reference",
                progress=reports.append,
            )
        details = [report.detail for report in reports if report.activity == "encoding"]
        assert details[-1].endswith("left out: 1 empty, 1 quarantined, 1 whitespace")
        assert "left out" not in details[0] or details[0] == details[-1]


def test_progress_reaches_its_end(tmp_path: Path) -> None:
    reports: list[Progress] = []
    encode(tmp_path, progress=reports.append)
    encoding = [report for report in reports if report.activity == "encoding"]
    assert encoding[-1].done == encoding[-1].total
    assert reports[-1].activity == "verifying shards"


def test_an_undeclared_separator_is_refused_unless_none_is_wanted(tmp_path: Path) -> None:
    undeclared = tokenizer(eos=None)
    for policy in ("after", "between"):
        with pytest.raises(Refusal) as refused:
            encode(tmp_path, with_tokenizer=undeclared, eos_policy=policy)
        assert refused.value.id == "tokenizer.eos-undeclared"
    _, manifest = encode(tmp_path, with_tokenizer=undeclared, eos_policy="none")
    assert manifest.eos_token_id is None


@pytest.mark.parametrize("shard_tokens", [0, -1, 10**15 + 1, 10**22])
def test_shards_of_no_tokens_or_of_too_many_are_refused_at_once(
    tmp_path: Path, shard_tokens: int
) -> None:
    with pytest.raises(UsageRefusal) as refused:
        encode(tmp_path, shard_tokens=shard_tokens)
    assert refused.value.id == "shards.shard-tokens"
    assert not list(tmp_path.glob("*.partial"))


def test_the_largest_shard_takes_the_whole_corpus(tmp_path: Path) -> None:
    _, manifest = encode(tmp_path, shard_tokens=10**15)
    assert len(manifest.shards) == 1


def test_a_refused_corpus_leaves_its_quarantine_and_nothing_else(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "a.jsonl", TEXTS * 50)
    corpus.write_bytes(corpus.read_bytes() + b"broken\n")
    with pytest.raises(DamagedFile) as refused:
        encode_corpus([corpus], tokenizer=SMALL, encoder="reference", output=tmp_path / "out")
    assert refused.value.id == "corpus.quarantined"
    assert str(tmp_path / "out.partial" / "quarantine.jsonl") in refused.value.fix
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "out.partial"]


def test_quarantined_rows_may_be_allowed_and_are_counted_and_listed(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "a.jsonl", TEXTS * 50)
    corpus.write_bytes(corpus.read_bytes() + b"broken\n[]\n")
    with pytest.raises(DamagedFile):
        encode_corpus(
            [corpus],
            tokenizer=SMALL,
            encoder="reference",
            output=tmp_path / "out",
            max_quarantined=1,
        )
    manifest = encode_corpus(
        [corpus], tokenizer=SMALL, encoder="reference", output=tmp_path / "out", max_quarantined=2
    )
    assert sum(manifest.quarantined.values()) == 2
    assert manifest.rows_read == 50 * len(TEXTS) + 2
    entries = (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()
    assert [json.loads(entry)["row"] for entry in entries] == [201, 202]
    assert not (tmp_path / "out.partial").exists()


def test_a_corpus_without_documents_leaves_nothing(tmp_path: Path) -> None:
    corpus = tmp_path / "in"
    corpus.mkdir()
    (corpus / "a.jsonl").write_text('{"content": ""}\n')
    (corpus / "b.py").write_bytes(b"\xff")
    with pytest.raises(Refusal) as refused:
        encode_corpus([corpus], tokenizer=SMALL, output=tmp_path / "out", encoder="reference")
    assert refused.value.id == "corpus.empty"
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_foreign_files_in_the_workplace_are_not_blamed_on_overwrite(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "a.jsonl")
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "thesis.tex").write_text("mine")
    with pytest.raises(Refusal) as refused:
        encode_corpus([corpus], tokenizer=SMALL, output=tmp_path / "out", encoder="reference")
    assert refused.value.id == "files.foreign-content"
    assert "an encoding works there" in refused.value.expected
    assert "--overwrite" not in str(refused.value)


def test_a_corpus_that_loses_text_leaves_nothing(tmp_path: Path) -> None:
    part = {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False}
    losing = tokenizer(
        set_in("pre_tokenizer", to={"type": "Sequence", "pretokenizers": [part, BYTE_LEVEL]})
    )
    corpus = write_corpus(tmp_path / "a.jsonl")
    with pytest.raises(Refusal):
        encode_corpus([corpus], tokenizer=losing, encoder="reference", output=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_refused_corpus_keeps_what_was_there(tmp_path: Path) -> None:
    output, manifest = encode(tmp_path)
    (tmp_path / "bad.jsonl").write_text("broken")
    with pytest.raises(Refusal):
        encode_corpus(
            [tmp_path / "bad.jsonl"],
            tokenizer=SMALL,
            encoder="reference",
            output=output,
            overwrite=True,
        )
    assert ShardReader.open(output).manifest == manifest


def test_overwriting_needs_consent_and_replaces_everything(tmp_path: Path) -> None:
    output, _ = encode(tmp_path, TEXTS * 5)
    with pytest.raises(Refusal) as refused:
        encode(tmp_path)
    assert refused.value.id == "files.exists"
    _, fewer = encode(tmp_path, overwrite=True)
    assert len(list(output.glob("*.bin"))) == fewer.shard_count
    assert ShardReader.open(output).manifest == fewer


def test_overwriting_never_deletes_what_is_no_shard(tmp_path: Path) -> None:
    output, _ = encode(tmp_path)
    (output / "notes.txt").write_text("mine")
    with pytest.raises(Refusal) as refused:
        encode(tmp_path, overwrite=True)
    assert refused.value.id == "files.foreign-content"
    assert (output / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("place", ["src", "src/out", "."])
def test_the_output_is_apart_from_the_corpus(tmp_path: Path, place: str) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "a.py").write_text("hello")
    with pytest.raises(UsageRefusal) as refused:
        encode_corpus(
            [source], tokenizer=SMALL, encoder="reference", output=tmp_path / place, overwrite=True
        )
    assert refused.value.id == "files.output-overlaps-input"
    assert (source / "a.py").read_text() == "hello"


def test_a_tokenizer_that_loses_text_is_refused(tmp_path: Path) -> None:
    part = {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False}
    losing = tokenizer(
        set_in("pre_tokenizer", to={"type": "Sequence", "pretokenizers": [part, BYTE_LEVEL]})
    )
    with pytest.raises(Refusal) as refused:
        encode(tmp_path, with_tokenizer=losing)
    assert refused.value.id == "shards.text-lost"
    assert refused.value.where.endswith("shards.jsonl:1")
    assert refused.value.found == "ids that spell 11 bytes"
    assert refused.value.expected == "12 bytes"


def test_a_prefix_space_is_no_loss(tmp_path: Path) -> None:
    spaced = tokenizer(set_in("pre_tokenizer", "add_prefix_space", to=True))
    output, _ = encode(tmp_path, with_tokenizer=spaced)
    first = documents_of(ShardReader.open(output))[0]
    assert spaced.decode(first) == f" {TEXTS[0]}{EOS}"


def test_a_normalizer_that_changes_letters_is_counted_not_refused(tmp_path: Path) -> None:
    lower = tokenizer(set_in("normalizer", to={"type": "Lowercase"}))
    _, manifest = encode(tmp_path, ["ABC", "abc"], with_tokenizer=lower)
    assert manifest.statistics.num_documents_changed_by_normalizer == 1


def test_the_manifest_names_no_place_and_no_time(tmp_path: Path) -> None:
    output, _ = encode(tmp_path)
    text = (output / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert {"elapsed_s", "started_at", "corpus"}.isdisjoint(manifest_value(output))


def test_the_shard_files_helper_reseals(tmp_path: Path) -> None:
    """What the attacks rely on: an unchanged manifest, sealed again, is the same manifest."""
    output, _ = encode(tmp_path)
    before = (output / "manifest.json").read_bytes()
    edit_manifest(output)
    assert (output / "manifest.json").read_bytes() == before
    assert np.fromfile(output / "shard-00000.bin", "<u4").size
