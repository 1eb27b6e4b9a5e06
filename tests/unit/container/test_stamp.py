"""Stamping: what is set, what is kept, what is refused, and what is left on the disk."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.container_files import GOLDEN, Row, build, f32
from tests.container_models import LLAMA, hashes, model_file
from tests.tokenizer_files import document, tokenizer, write

from apr.architecture import Architecture
from apr.container.embedded_tokenizer import embed_tokenizer, restore_tokenizer
from apr.container.inspecting.validation import validate
from apr.container.named_keys import Metadata
from apr.container.provenance import check_chain
from apr.container.reader import Container
from apr.container.stamp import Claims, stamp
from apr.errors import Refusal
from apr.files import sha256_file
from apr.progress import Progress

ROWS = 300
WIDE: Architecture = replace(LLAMA, vocab_size=ROWS)
MIT = Claims(license="mit")


def metadata_of(path: Path) -> Metadata:
    with Container.open(path) as container:
        return container.metadata


def tensors_of(path: Path) -> dict[str, bytes]:
    with Container.open(path) as container:
        return {name: bytes(container.raw(name)) for name in container.tensors}


def refusal_of(path: Path, claims: Claims, **options: Any) -> Refusal:
    """The refusal, which must leave every file as it was."""
    before = {each: each.read_bytes() for each in path.parent.rglob("*") if each.is_file()}
    with pytest.raises(Refusal) as caught:
        stamp(path, claims, **options)
    after = {each: each.read_bytes() for each in path.parent.rglob("*") if each.is_file()}
    assert after == before
    return caught.value


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = model_file(WIDE, free={"other.key": {"b": [1.5, None, "é"], "a": 1e-6}})
    file.set_free(hashes(file.arrays) | {"apr.provenance": [{"what": "checkpoint", "step": 3}]})
    return file.write(tmp_path / "in" / "model.apr")


def test_fields_are_set_and_all_else_is_kept(model: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "stamped.apr"
    before = metadata_of(model)
    reports: list[Progress] = []
    claims = Claims(
        name="one", description="a model", author="us", license="mit or apache-2.0",
        data_source="our code", data_license="CC-BY-4.0", pretraining_tokens=5,
    )  # fmt: skip
    stamped = stamp(model, claims, output=target, progress=reports.append)
    after = metadata_of(target)
    assert (after.name, after.description, after.author) == ("one", "a model", "us")
    assert (after.license, after.data_license) == ("MIT OR Apache-2.0", "CC-BY-4.0")
    assert after.data_source == "our code"
    assert after.free["apr.pretraining_tokens"] == 5
    changed = {"name", "description", "author", "license", "data_source", "data_license"}
    changed |= {"apr.pretraining_tokens", "apr.provenance"}
    assert {k: v for k, v in after.spelled().items() if k not in changed} == {
        k: v for k, v in before.spelled().items() if k not in changed
    }
    assert tensors_of(target) == tensors_of(model)
    assert validate(target).verdict == "PASS"
    assert reports[-1].done == reports[-1].total
    assert [path.name for path in target.parent.iterdir()] == ["stamped.apr"]
    assert stamped.output["sha256"] == sha256_file(target)
    assert stamped.identity.verdict == "PASS"


def test_provenance_is_appended_and_chained(model: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.apr", tmp_path / "2.apr"
    stamp(model, MIT, output=first)
    stamped = stamp(first, Claims(license="ISC", author="somebody"), output=second)
    entries = metadata_of(second).free["apr.provenance"]
    assert [entry["what"] for entry in entries] == ["checkpoint", "stamp", "stamp"]
    assert entries[0] == {"what": "checkpoint", "step": 3}
    assert entries[1]["fields"] == {"license": {"from": None, "to": "MIT"}}
    assert entries[1]["source_sha256"] == sha256_file(model)
    assert entries[2]["fields"]["license"] == {"from": "MIT", "to": "ISC"}
    assert entries[2]["source_sha256"] == sha256_file(first)
    assert (entries[1]["by"], entries[2]["by"]) == (None, "somebody")
    assert entries[2]["at"].endswith("+00:00")
    assert entries[2] == stamped.entry
    assert check_chain(metadata_of(second)).verdict == "PASS"


def test_in_place(model: Path) -> None:
    before = tensors_of(model)
    stamped = stamp(model, MIT)
    assert metadata_of(model).license == "MIT"
    assert tensors_of(model) == before
    assert stamped.input["sha256"] != stamped.output["sha256"] == sha256_file(model)
    assert [path.name for path in model.parent.iterdir()] == ["model.apr"]


def test_in_place_through_a_link_keeps_the_link(model: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.apr"
    link.symlink_to(model)
    stamp(link, MIT)
    assert link.is_symlink()
    assert metadata_of(model).license == "MIT"


@pytest.mark.parametrize(
    "claims",
    [
        Claims(),
        Claims(license=""),
        Claims(name="  "),
        Claims(pretraining_tokens=0),
        Claims(pretraining_tokens=True),
    ],
)
def test_nothing_to_stamp(model: Path, claims: Claims) -> None:
    refused = refusal_of(model, claims)
    assert (refused.id, refused.exit_code) == ("stamp.nothing-to-stamp", 2)


def test_a_licence_that_is_none(model: Path) -> None:
    assert refusal_of(model, Claims(license="Apache 2")).id == "stamp.not-spdx"
    refused = refusal_of(model, Claims(data_license="The MIT License"))
    assert (refused.id, refused.where) == ("stamp.not-spdx", "--data-license")
    assert "MIT" in refused.fix


def test_outputs_that_cannot_be(model: Path, tmp_path: Path) -> None:
    link, there, pipe = (tmp_path / name for name in ("link.apr", "there.apr", "pipe"))
    os.link(model, link)
    there.write_bytes(b"x")
    os.mkfifo(pipe)
    for output, overwrite, id in (
        (model, False, "files.output-overlaps-input"),
        (model, True, "files.output-overlaps-input"),
        (link, True, "files.output-overlaps-input"),
        (there, False, "files.exists"),
        (tmp_path, False, "files.exists"),
        (tmp_path, True, "container.not-a-file"),
        (pipe, True, "container.not-a-file"),
        (there / "x.apr", False, "files.io-failed"),
    ):
        assert refusal_of(model, MIT, output=output, overwrite=overwrite).id == id, output
    stamp(model, MIT, output=there, overwrite=True)
    assert metadata_of(there).license == "MIT"


@pytest.mark.parametrize("at", [70, 700, -100, -2])
def test_a_damaged_file_is_not_blessed(model: Path, tmp_path: Path, at: int) -> None:
    data = bytearray(model.read_bytes())
    data[at] ^= 0x10
    model.write_bytes(data)
    refused = refusal_of(model, MIT, output=tmp_path / "new.apr")
    assert refused.exit_code == 4
    assert refusal_of(model, MIT).exit_code == 4


def test_a_cut_or_missing_file_is_refused(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    model.write_bytes(data[:-4])
    assert refusal_of(model, MIT).id == "container.footer-missing"
    model.write_bytes(data[:-70])
    assert refusal_of(model, MIT).exit_code == 4
    model.write_bytes(b"GGUF" + bytes(100))
    assert refusal_of(model, MIT).id == "container.not-apr"
    assert refusal_of(tmp_path / "absent.apr", MIT).id == "files.not-found"
    assert refusal_of(model.parent, MIT).id == "container.not-a-file"


@pytest.mark.parametrize("is_recorded", [True, False])
def test_a_file_that_changes_while_it_is_copied(
    model: Path, tmp_path: Path, is_recorded: bool
) -> None:
    if not is_recorded:
        model_file(WIDE).write(model)
    with Container.open(model) as container:
        at = container.sections.extents[-2].start

    def change(progress: Progress) -> None:
        if progress.activity.startswith("writing"):
            with model.open("r+b") as file:
                file.seek(at)
                file.write(b"\x11\x22")

    with pytest.raises(Refusal) as caught:
        stamp(model, MIT, output=tmp_path / "new" / "x.apr", progress=change)
    assert caught.value.id == ("container.read-back" if is_recorded else "stamp.tensors-differ")
    assert not (tmp_path / "new").exists()


def test_a_file_without_a_model_is_stamped_with_what_it_is_not_checked_for(tmp_path: Path) -> None:
    path = tmp_path / "golden.apr"
    path.write_bytes(GOLDEN)
    stamped = stamp(path, Claims(license="MIT", data_source="x"))
    assert stamped.identity.verdict == "UNKNOWN"
    assert validate(path).verdict == "PASS"


def test_quantised_tensors_and_foreign_spellings_survive(tmp_path: Path) -> None:
    path, target = tmp_path / "x.apr", tmp_path / "y.apr"
    rows = [f32("a", 1.0), Row(b"b", 8, (32,), bytes(range(18))), Row(b"c", 12, (256,), bytes(144))]
    path.write_bytes(build({"n_layer": 2, "norm_eps": 1e-6, "foreign": [1]}, rows, flags=0x0488))
    stamped = stamp(path, MIT, output=target)
    assert tensors_of(target) == tensors_of(path)
    after = metadata_of(target)
    assert (after.num_layers, after.rms_norm_eps, after.free["foreign"]) == (2, 1e-6, [1])
    assert stamped.flags_dropped == ["SIGNED", "HAS_MODEL_CARD"]
    assert stamped.entry["dropped_flags"] == ["SIGNED", "HAS_MODEL_CARD"]
    assert stamped.flags == ["QUANTIZED", "LAYOUT_ROW_MAJOR"]


def test_types_that_are_never_written_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    path.write_bytes(build({}, [Row(b"a", 3, (1,), bytes(8))]))
    assert refusal_of(path, MIT).id == "container.tensor-dtype"


def test_a_tokenizer_is_embedded_exactly(model: Path, tmp_path: Path) -> None:
    write(tmp_path / "tok")
    stamped = stamp(model, Claims(tokenizer=tmp_path / "tok"))
    assert "HAS_VOCAB" in stamped.flags
    restored = restore_tokenizer(metadata_of(model), where="x")
    assert restored is not None
    assert restored.json_bytes == (tmp_path / "tok" / "tokenizer.json").read_bytes()
    assert stamped.fields["tokenizer"] == {"from": None, "to": restored.fingerprint}
    assert validate(model).verdict == "PASS"
    again = stamp(model, Claims(tokenizer=tmp_path / "tok"))
    assert again.fields["tokenizer"]["from"] == restored.fingerprint


def test_keys_of_a_vocabulary_that_is_replaced_go_with_it(model: Path, tmp_path: Path) -> None:
    words = tokenizer().vocabulary
    padded = [*words, *(f"[PAD{id}]" for id in range(len(words), ROWS))]
    file = model_file(
        WIDE,
        free={
            "tokenizer.vocabulary": padded,
            "tokenizer.scores": [0.0] * ROWS,
            "tokenizer.padding_token_id": 299,
            "tokenizer.chat_template": "{{ x }}",
        },
    )
    file.write(model)
    stamped = stamp(model, Claims(tokenizer=write(tmp_path / "tok")))
    free = metadata_of(model).free
    assert free["tokenizer.vocabulary"] == words
    assert free["tokenizer.chat_template"] == "{{ x }}"
    assert stamped.entry["removed_keys"] == ["tokenizer.padding_token_id", "tokenizer.scores"]


def test_a_tokenizer_larger_than_the_embedding(tmp_path: Path) -> None:
    size = tokenizer().vocab_size
    for rows, is_refused in ((size, False), (size - 1, True)):
        path = model_file(replace(LLAMA, vocab_size=rows)).write(tmp_path / "m" / f"{rows}.apr")
        claims = Claims(tokenizer=write(tmp_path / "tok"))
        if is_refused:
            refused = refusal_of(path, claims)
            assert refused.id == "stamp.tokenizer-too-large"
            assert f"{size} ids, {rows} rows" in refused.found
        else:
            stamp(path, claims)
    path.write_bytes(GOLDEN)
    assert refusal_of(path, claims).id == "stamp.tokenizer-too-large"


def test_another_tokenizer_than_the_model_has_learned(model: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", words=("he", "hel", "hell"))
    ours = Claims(tokenizer=write(tmp_path / "tok"))
    stamp(model, ours)
    refused = refusal_of(model, Claims(tokenizer=other))
    assert refused.id == "stamp.tokenizer-differs"
    assert "fingerprint" in refused.found
    # Known only from the entry that the trainer wrote.
    trained = {"what": "checkpoint", "tokenizer_fingerprint": tokenizer().fingerprint}
    model_file(WIDE, free={"apr.provenance": [trained]}).write(model)
    assert refusal_of(model, Claims(tokenizer=other)).id == "stamp.tokenizer-differs"
    stamp(model, ours)
    # Known only from the texts of a vocabulary without its tokenizer.json.
    listed = embed_tokenizer(tokenizer())["tokenizer.vocabulary"][:-1]
    model_file(WIDE, free={"tokenizer.vocabulary": listed}).write(model)
    refused = refusal_of(model, Claims(tokenizer=other))
    assert "id 258" in refused.found
    stamp(model, ours)


def test_a_tokenizer_that_is_none(model: Path, tmp_path: Path) -> None:
    assert refusal_of(model, Claims(tokenizer=tmp_path / "absent")).id == "files.not-found"
    (tmp_path / "empty").mkdir()
    refused = refusal_of(model, Claims(tokenizer=tmp_path / "empty"))
    assert refused.id == "tokenizer.json-missing"
    wordy = document()
    wordy["model"]["type"] = "WordPiece"
    assert (
        refusal_of(
            model, Claims(tokenizer=write(tmp_path / "wp", lambda value: value.update(wordy)))
        ).id
        == "tokenizer.not-bpe"
    )


def test_metadata_that_would_grow_too_large(model: Path) -> None:
    refused = refusal_of(model, Claims(description="x" * (65 << 20)))
    assert refused.id == "container.section-too-large"


def test_a_read_only_place(model: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    model.parent.chmod(0o500)
    try:
        assert refusal_of(model, MIT).id == "files.io-failed"
    finally:
        model.parent.chmod(0o700)
