"""Bare shards made readable: what is found in them, what stays unknown, what is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.bare_files import DOCUMENTS, EOS_ID, stream, write_bare, write_old_manifest
from tests.shard_files import TEXTS, edit_manifest, encode
from tests.tokenizer_files import set_in, swapped, tokenizer

from apr.errors import Refusal
from apr.shards.layout import document_hash
from apr.shards.reader import ShardReader
from apr.shards.repairing.repair import repair_manifest
from apr.shards.repairing.repair_doubts import Repair
from apr.shards.verifying.verify import verify

HALF = len(DOCUMENTS) // 2
NUM_TOKENS = len(stream(DOCUMENTS))


@pytest.fixture
def tok(tmp_path: Path) -> Path:
    tokenizer().save(tmp_path / "tok")
    return tmp_path / "tok"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    return write_bare(tmp_path / "bare", stream(DOCUMENTS[:HALF]), stream(DOCUMENTS[HALF:]))


def repaired(directory: Path, tok: Path, **options: Any) -> Repair:
    return repair_manifest(directory, tokenizer_path=tok, **options)


def refused(directory: Path, tok: Path, **options: Any) -> Refusal:
    before = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    with pytest.raises(Refusal) as refusal:
        repaired(directory, tok, **options)
    after = {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}
    assert after == before
    return refusal.value


def texts_of(directory: Path) -> list[str]:
    reader, used = ShardReader.open(directory), tokenizer()
    return [used.decode(reader.document_ids(index)) for index in range(reader.num_documents)]


def test_documents_hashes_and_statistics_are_those_of_an_encoding(
    tmp_path: Path, bare: Path, tok: Path
) -> None:
    found = repaired(bare, tok).manifest
    _, encoded = encode(tmp_path, TEXTS)
    assert texts_of(bare) == list(TEXTS)
    assert found.documents_sha256 == encoded.documents_sha256
    for name in ("total_tokens", "total_documents", "text_bytes", "eos_policy", "eos_token_count"):
        assert getattr(found, name) == getattr(encoded, name), name
    kept = {"num_documents_changed_by_normalizer", "num_documents_with_control_text"}
    assert found.statistics.model_dump(exclude=kept) == encoded.statistics.model_dump(exclude=kept)
    reader = ShardReader.open(bare)
    assert [each.tobytes() for each in reader.document_hashes] == list(map(document_hash, TEXTS))


def test_what_it_could_not_know_is_named_and_null(bare: Path, tok: Path) -> None:
    found = repaired(bare, tok)
    manifest = found.manifest
    assert {"tokenizer_fingerprint", "drops", "encoder", "rows_read"} <= set(found.repaired.unknown)
    assert manifest.encoder is None
    assert manifest.certificate is None
    assert manifest.statistics.num_documents_changed_by_normalizer is None
    assert manifest.statistics.num_documents_with_control_text is None
    assert (found.repaired.num_compared, found.repaired.num_same_ids) == (len(TEXTS), len(TEXTS))
    assert any("without an old manifest" in doubt for doubt in found.doubts)
    verification = verify(bare, tokenizer_path=tok)
    assert verification.verdict == "UNKNOWN"
    assert set(verification.unknown) == {"tokenizer", "text", "sources"}


def test_the_shards_are_not_touched(bare: Path, tok: Path) -> None:
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in bare.iterdir()}
    repaired(bare, tok)
    after = {
        name: ((bare / name).read_bytes(), (bare / name).stat().st_mtime_ns) for name in before
    }
    assert after == before


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("policy", ["after", "between"])
def test_the_policy_follows_from_the_ids_or_must_agree(
    tmp_path: Path, tok: Path, policy: str, given: bool
) -> None:
    bare = write_bare(tmp_path / "bare", stream(DOCUMENTS, policy))
    options = {"eos_policy": policy} if given else {}
    found = repaired(bare, tok, **options).manifest
    assert (found.eos_policy, found.total_documents) == (policy, len(TEXTS))
    assert texts_of(bare) == list(TEXTS)
    other = {"after": "between", "between": "after"}[policy]
    again = write_bare(tmp_path / "again", stream(DOCUMENTS, policy))
    refusal = refused(again, tok, eos_policy=other)
    assert refusal.id == "shards.repair-policy"
    assert f"--eos-policy {policy}" in refusal.fix


def test_a_separator_between_may_begin_the_next_shard(tmp_path: Path, tok: Path) -> None:
    """The reference leaves open in which shard it lies; both ways are the same documents."""
    first = stream(DOCUMENTS[:HALF], "between")
    second = stream(DOCUMENTS[HALF:], "between")
    for name, shards in (
        ("before", ([*first, EOS_ID], second)),
        ("behind", (first, [EOS_ID, *second])),
    ):
        bare = write_bare(tmp_path / name, *shards)
        found = repaired(bare, tok).manifest
        assert found.eos_policy == "between"
        assert found.total_documents == len(TEXTS)
        assert texts_of(bare) == list(TEXTS)


def test_empty_documents_are_documents(tmp_path: Path, tok: Path) -> None:
    bare = write_bare(tmp_path / "bare", stream([DOCUMENTS[0], [], [], DOCUMENTS[1]]))
    assert repaired(bare, tok).manifest.total_documents == 4
    assert texts_of(bare) == [TEXTS[0], "", "", TEXTS[1]]


def test_without_borders_each_shard_is_one_document(tmp_path: Path, tok: Path) -> None:
    no_separator = [id for document in DOCUMENTS for id in document]
    bare = write_bare(tmp_path / "bare", no_separator, no_separator[:9])
    assert refused(bare, tok).id == "shards.repair-separator"
    found = repaired(bare, tok, eos_policy="none")
    assert (found.manifest.eos_policy, found.manifest.eos_token_id) == ("none", None)
    assert found.manifest.total_documents == 2
    assert {"total_documents", "eos_policy"} <= set(found.repaired.unknown)
    assert verify(bare, tokenizer_path=tok).num_compared == 0


def test_a_document_over_two_shards_is_not_cut_in_two(tmp_path: Path, tok: Path) -> None:
    whole = stream(DOCUMENTS)
    bare = write_bare(tmp_path / "bare", whole[:3], whole[3:])
    assert refused(bare, tok).id == "shards.repair-borders"


def test_the_old_manifest_says_which_token_separates(tmp_path: Path, tok: Path) -> None:
    """Where the Rust tool took an ordinary piece for the separator, that is where borders are."""
    ordinary = tokenizer().definition.ids["hel"]
    ids = [78, 78, ordinary, 64, ordinary]
    bare = write_bare(tmp_path / "bare", ids)
    assert refused(bare, tok).id == "shards.repair-separator"
    write_old_manifest(bare, eos_token_id=ordinary, eos_policy="after", total_documents=2)
    found = repaired(bare, tok).manifest
    assert (found.eos_token, found.eos_token_id, found.total_documents) == ("hel", ordinary, 2)
    assert texts_of(bare) == ["oo", "a"]


def test_a_given_separator_is_over_what_the_old_manifest_says(tmp_path: Path, tok: Path) -> None:
    bare = write_bare(tmp_path / "bare", stream(DOCUMENTS))
    write_old_manifest(bare, eos_token_id=3)
    assert refused(bare, tok).id == "shards.repair-separator"
    assert repaired(bare, tok, eos_token="<|endoftext|>").manifest.eos_token_id == EOS_ID


def test_without_a_declared_separator_none_is_guessed(tmp_path: Path, bare: Path) -> None:
    tokenizer(eos=None).save(tmp_path / "undeclared")
    assert refused(bare, tmp_path / "undeclared").id == "tokenizer.eos-undeclared"
    write_old_manifest(bare, eos_policy="none")
    assert repaired(bare, tmp_path / "undeclared").manifest.eos_policy == "none"


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"shard_count": 3}, "shard_count 2"),
        ({"total_tokens": NUM_TOKENS + 1}, f"total_tokens {NUM_TOKENS}"),
        ({"total_documents": 5}, "total_documents 4"),
    ],
)
def test_shards_that_their_old_manifest_contradicts(
    bare: Path, tok: Path, fields: dict[str, int], found: str
) -> None:
    right = {"shard_count": 2, "total_tokens": NUM_TOKENS, "total_documents": 4}
    path = write_old_manifest(bare, **right | fields)
    refusal = refused(bare, tok)
    assert (refusal.id, refusal.found) == ("shards.repair-contradicted", found)
    path.unlink()
    write_old_manifest(bare, **right)
    assert repaired(bare, tok).doubts == repaired(bare, tok, overwrite=True).doubts


def test_the_content_of_the_old_manifest_is_kept(bare: Path, tok: Path) -> None:
    write_old_manifest(bare, eos_token_id=EOS_ID, total_documents=4, input_files=["a.jsonl"])
    for options in ({}, {"overwrite": True}, {"overwrite": True}):
        found = repaired(bare, tok, **options)
        assert found.old_manifest is not None
        record = json.loads((bare / "repair.json").read_bytes())
        assert record["old_manifest"]["input_files"] == ["a.jsonl"]


def test_a_larger_vocabulary_of_the_old_manifest_is_a_doubt(bare: Path, tok: Path) -> None:
    write_old_manifest(bare, vocab_size=300)
    assert any("counts 300 tokens" in doubt for doubt in repaired(bare, tok).doubts)


def test_the_last_shard_may_be_empty_and_must_stay_so(tmp_path: Path, tok: Path) -> None:
    bare = write_bare(tmp_path / "bare", stream(DOCUMENTS), [])
    write_old_manifest(bare, shard_count=2)
    assert repaired(bare, tok).repaired.empty_files == ["shard-00001.bin"]
    assert texts_of(bare) == list(TEXTS)
    np.array([1], "<u4").tofile(bare / "shard-00001.bin")
    with pytest.raises(Refusal) as refusal:
        ShardReader.open(bare)
    assert refusal.value.id == "shards.foreign-file"


def test_other_names_are_linked_into_a_new_directory(tmp_path: Path, tok: Path) -> None:
    bare = write_bare(tmp_path / "bare", stream(DOCUMENTS[:HALF]), [], stream(DOCUMENTS[HALF:]))
    for path in sorted(bare.iterdir()):
        path.rename(bare / path.name.replace("0000", "000"))
    refusal = refused(bare, tok)
    assert refusal.id == "shards.repair-names"
    assert "--into" in refusal.fix
    found = repaired(bare, tok, into=tmp_path / "new")
    assert found.directory == tmp_path / "new"
    assert texts_of(tmp_path / "new") == list(TEXTS)
    assert os.path.samefile(tmp_path / "new" / "shard-00001.bin", bare / "shard-0002.bin")
    assert sorted(path.name for path in bare.iterdir()) == [
        "shard-0000.bin",
        "shard-0001.bin",
        "shard-0002.bin",
    ]
    assert found.repaired.empty_files == []


def test_a_new_directory_is_not_written_over_without_consent(
    tmp_path: Path, bare: Path, tok: Path
) -> None:
    repaired(bare, tok, into=tmp_path / "new")
    assert refused(bare, tok, into=tmp_path / "new").id == "files.exists"
    repaired(bare, tok, into=tmp_path / "new", overwrite=True)
    (tmp_path / "new" / "notes.txt").touch()
    options: dict[str, Any] = {"into": tmp_path / "new", "overwrite": True}
    assert refused(bare, tok, **options).id == "files.foreign-content"
    assert refused(bare, tok, into=bare / "inside").id == "files.output-overlaps-input"


@pytest.mark.parametrize("name", ["manifest.json", "shard-00000.idx", "repair.json", "old.idx"])
def test_what_is_there_already_is_not_written_over_without_consent(
    bare: Path, tok: Path, name: str
) -> None:
    (bare / name).write_text("{}")
    refusal = refused(bare, tok)
    assert refusal.id == "files.exists"
    assert refusal.where.endswith(name)


def test_a_manifest_of_ours_is_replaced_only_with_consent(tmp_path: Path, tok: Path) -> None:
    output, _ = encode(tmp_path)
    assert refused(output, tok).id == "files.exists"
    found = repaired(output, tok, overwrite=True)
    assert found.manifest.repaired is not None
    assert ShardReader.open(output).num_documents == len(TEXTS)


def test_the_wrong_tokenizer_of_the_right_size_is_doubted(tmp_path: Path, bare: Path) -> None:
    tokenizer(words=("lo", "Ġ=", "id")).save(tmp_path / "other")
    found = repaired(bare, tmp_path / "other")
    assert 2 * found.repaired.num_same_ids < found.repaired.num_compared
    assert any("did not make them" in doubt for doubt in found.doubts)


def test_two_swapped_ids_speak_for_the_wrong_tokenizer_too(tmp_path: Path, bare: Path) -> None:
    """Why the evidence is no proof, and the fingerprint stays unknown whatever it says."""
    tokenizer(swapped("e", "a")).save(tmp_path / "other")
    found = repaired(bare, tmp_path / "other")
    assert found.repaired.num_same_ids > 0
    assert "tokenizer_fingerprint" in found.repaired.unknown


def test_a_tokenizer_that_is_not_spelled_by_byte(tmp_path: Path) -> None:
    used = tokenizer(set_in("pre_tokenizer", "add_prefix_space", to=True))
    used.save(tmp_path / "tok")
    ids = [used.encode(text).tolist() for text in ("he said", "x")]
    bare = write_bare(tmp_path / "bare", stream(ids))
    found = repaired(bare, tmp_path / "tok")
    assert found.manifest.text_bytes == len(" he said") + len(" x")
    assert found.repaired.num_same_ids == 2


PLANTED: dict[str, tuple[Callable[[Path], object], str, str | None]] = {
    "an odd size": (
        lambda d: os.truncate(d / "shard-00001.bin", 7),
        "shards.repair-size",
        "INV-PRETOK-002",
    ),
    "a size of half tokens": (
        lambda d: os.truncate(d / "shard-00001.bin", 6),
        "shards.repair-size",
        "INV-PRETOK-002",
    ),
    "an id of the vocabulary's size": (
        lambda d: np.array([260, EOS_ID], "<u4").tofile(d / "shard-00001.bin"),
        "shards.id-range",
        "INV-PRETOK-001",
    ),
    "a gap in the numbers": (
        lambda d: (d / "shard-00001.bin").rename(d / "shard-00002.bin"),
        "shards.repair-names",
        "INV-PRETOK-004",
    ),
    "numbers from one": (
        lambda d: (d / "shard-00000.bin").rename(d / "shard-00002.bin"),
        "shards.repair-names",
        "INV-PRETOK-004",
    ),
    "another width": (
        lambda d: (d / "shard-00001.bin").rename(d / "shard-0001.bin"),
        "shards.repair-names",
        "INV-PRETOK-004",
    ),
    "another name": (
        lambda d: (d / "train.bin").touch(),
        "shards.repair-names",
        "INV-PRETOK-004",
    ),
    "too many digits": (
        lambda d: (d / "shard-0000002.bin").touch(),
        "shards.repair-names",
        "INV-PRETOK-004",
    ),
    "a directory for a shard": (
        lambda d: (d / "shard-00002.bin").mkdir(),
        "shards.repair-names",
        "INV-PRETOK-004",
    ),
    "a pipe for a shard": (
        lambda d: os.mkfifo(d / "shard-00002.bin"),
        "shards.repair-names",
        "INV-PRETOK-004",
    ),
    "separators alone": (
        lambda d: [np.array([EOS_ID] * 3, "<u4").tofile(path) for path in d.iterdir()],
        "shards.repair-empty",
        None,
    ),
    "nothing but empty files": (
        lambda d: [path.write_bytes(b"") for path in d.iterdir()],
        "shards.repair-empty",
        None,
    ),
    "no shards": (lambda d: [path.unlink() for path in d.iterdir()], "shards.repair-empty", None),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_cannot_be_shards_is_refused_and_nothing_is_written(
    bare: Path, tok: Path, name: str
) -> None:
    plant, id, upstream_id = PLANTED[name]
    plant(bare)
    refusal = refused(bare, tok)
    assert (refusal.id, refusal.upstream_id) == (id, upstream_id)


def test_two_byte_ids_are_told_as_far_as_they_show(tmp_path: Path, tok: Path) -> None:
    """F14: a reader that defaults to another width reads pairs."""
    even = stream(DOCUMENTS)[: NUM_TOKENS // 2 * 2]
    bare = write_bare(tmp_path / "even", even, dtype="<u2")
    refusal = refused(bare, tok)
    assert refusal.id == ("shards.id-range" if len(even) % 2 == 0 else "shards.repair-size")
    assert "two-byte ids" in refusal.found
    odd = write_bare(tmp_path / "odd", [*even[:-1]], dtype="<u2")
    assert "two-byte ids would fit" in refused(odd, tok).found
    found = repaired(write_bare(tmp_path / "right", stream(DOCUMENTS)), tok)
    assert "only if every second one were 0 or less" in found.doubts[0]


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"schema": "pretokenize-bin-v1", "total_tokens": "many"}', "null"]
)
def test_a_manifest_that_cannot_be_read_needs_consent(bare: Path, tok: Path, content: str) -> None:
    (bare / "manifest.json").write_text(content)
    assert refused(bare, tok).id == "files.exists"
    assert repaired(bare, tok, overwrite=True).old_manifest is None


def test_a_path_that_is_no_directory(tmp_path: Path, tok: Path) -> None:
    for path, id in (("nowhere", "files.not-found"), ("tok/vocab.json", "shards.not-a-directory")):
        with pytest.raises(Refusal) as refusal:
            repaired(tmp_path / path, tok)
        assert refusal.value.id == id


def test_a_full_disk_leaves_nothing_beside_the_shards(
    bare: Path, tok: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last file cannot be written: the ones before it go too."""
    real = os.replace

    def no_room(self: Path, target: Path) -> Path:
        if Path(target).name == "manifest.json":
            raise OSError(28, "No space left on device", str(target))
        real(self, target)
        return Path(target)

    monkeypatch.setattr(Path, "replace", no_room)
    refusal = refused(bare, tok)
    assert (refusal.id, refusal.exit_code) == ("files.io-failed", 7)


@pytest.mark.parametrize("where", ["aside", "shard-00001.idx", "repair.json", "manifest.json"])
def test_a_full_disk_leaves_an_encoding_as_it_was(
    tmp_path: Path, tok: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    output, _ = encode(tmp_path)
    before = {file.name: file.read_bytes() for file in output.iterdir()}
    assert len(before) > 5
    real = os.replace

    def no_room(self: Path, target: Path) -> Path:
        # Written aside, then moved in; what is moved back has room.
        is_new = self.parent.name == "new" and target.parent == output
        if target.parent.name == "new" if where == "aside" else is_new and target.name == where:
            raise OSError(28, "No space left on device", str(target))
        real(self, target)
        return target

    monkeypatch.setattr(Path, "replace", no_room)
    assert refused(output, tok, overwrite=True).id == "files.io-failed"
    assert {file.name: file.read_bytes() for file in output.iterdir()} == before
    monkeypatch.undo()
    assert repaired(output, tok, overwrite=True).manifest.repaired is not None
    assert not [*output.glob(".*")]


def test_a_manifest_knows_its_encoder_or_was_repaired(
    tmp_path: Path, bare: Path, tok: Path
) -> None:
    output, encoded = encode(tmp_path)
    repaired(bare, tok)
    assert encoded.encoder is not None
    for directory, encoder in ((output, None), (bare, encoded.encoder.model_dump())):
        ShardReader.open(directory)
        edit_manifest(directory, encoder=encoder)
        with pytest.raises(Refusal) as refusal:
            ShardReader.open(directory)
        assert refusal.value.id == "shards.manifest-inconsistent"
