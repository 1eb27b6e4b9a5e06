"""F15: shards without identity, at the gates before training.

A repaired manifest makes bare shards readable; it does not make anything known that was not. The
gates that would have to know it answer UNKNOWN, which blocks until a person says why it may pass.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.bare_files import write_bare
from tests.run_data import RunData

from apr.errors import Refusal
from apr.jobs.pretrain import pretrain
from apr.shards.reader import ShardReader
from apr.shards.repairing.repair import repair_manifest
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.config import TrainConfig
from apr.train.gates import Gate, apply_waivers
from apr.train.inputs import open_inputs
from apr.train.preflight import check_files


def gates(config: TrainConfig) -> dict[str, Gate]:
    judged = check_files(config, open_inputs(config))
    return {gate.id.removeprefix("preflight."): gate for gate in judged}


def bare_copy(shards: Path, directory: Path, **options: Any) -> Path:
    """The ids of an encoding as the Rust tool would have left them, made readable again."""
    reader = ShardReader.open(shards)
    ends = np.cumsum([shard.num_tokens for shard in reader.manifest.shards])
    ids: Sequence[Sequence[int]] = np.split(reader.read(0, reader.num_tokens), ends[:-1])
    return write_bare(directory, *ids)


@pytest.fixture
def bare(run_data: RunData, tmp_path: Path) -> Path:
    directory = bare_copy(run_data.train, tmp_path / "bare")
    repair_manifest(directory, tokenizer_path=run_data.tokenizer)
    return directory


def test_bare_shards_are_refused_until_they_are_repaired(run_data: RunData, tmp_path: Path) -> None:
    directory = bare_copy(run_data.train, tmp_path / "bare")
    config = run_data.config(tmp_path / "run", dataset=directory)
    with pytest.raises(Refusal) as refused:
        pretrain(config)
    assert refused.value.id == "shards.manifest-missing"
    assert "repair-manifest" in refused.value.fix
    repair_manifest(directory, tokenizer_path=run_data.tokenizer)
    assert open_inputs(config).train[0].num_tokens == ShardReader.open(run_data.train).num_tokens


def test_which_tokenizer_made_them_stays_unknown(
    run_data: RunData, tmp_path: Path, bare: Path
) -> None:
    config = run_data.config(tmp_path / "run", dataset=bare)
    assert gates(run_data.config(tmp_path / "run"))["tokenizer-fingerprint"].verdict == "PASS"
    gate = gates(config)["tokenizer-fingerprint"]
    assert gate.verdict == "UNKNOWN"
    assert gate.blocks
    assert "documents encode to their ids" in gate.found
    (waived,) = apply_waivers([gate], {gate.id: "made with this tokenizer, by the log"})
    assert not waived.blocks
    with pytest.raises(Refusal) as refused:
        pretrain(config)
    assert refused.value.id == "preflight.tokenizer-fingerprint"
    assert not (tmp_path / "run").exists()


def test_another_tokenizer_than_the_assumed_one_is_still_a_failure(
    run_data: RunData, tmp_path: Path, bare: Path
) -> None:
    other = tmp_path / "other"
    value = Tokenizer.load(run_data.tokenizer).json_bytes.replace(b'"NFC"', b'"NFD"')
    Tokenizer.from_json_bytes(value, eos_token="<|endoftext|>", where="x").save(other)
    config = run_data.config(tmp_path / "run", dataset=bare, tokenizer=other)
    assert gates(config)["tokenizer-fingerprint"].verdict == "FAIL"


def test_its_text_is_unknown_unless_it_is_degenerate(
    run_data: RunData, tmp_path: Path, bare: Path
) -> None:
    gate = gates(run_data.config(tmp_path / "run", dataset=bare))["data-degenerate"]
    assert gate.verdict == "UNKNOWN"
    assert "bare: a repaired manifest knows no original text" in gate.found
    ids = Tokenizer.load(run_data.tokenizer).encode("x = 1\n").tolist()
    separator = ShardReader.open(run_data.train).manifest.eos_token_id
    repeated = write_bare(tmp_path / "repeated", [*ids, separator or 0] * 3000)
    repair_manifest(repeated, tokenizer_path=run_data.tokenizer)
    gate = gates(run_data.config(tmp_path / "run", dataset=repeated))["data-degenerate"]
    assert gate.verdict == "FAIL"


def test_f14_its_ids_are_read_and_not_believed(
    run_data: RunData, tmp_path: Path, bare: Path
) -> None:
    config = run_data.config(tmp_path / "run", dataset=bare)
    assert gates(config)["id-range"].verdict == "PASS"
    assert (
        gates(run_data.config(tmp_path / "run", dataset=bare, vocab_size=300))["id-range"].verdict
        == "FAIL"
    )


def test_f21_shared_documents_are_found_and_their_absence_is_not_claimed(
    run_data: RunData, tmp_path: Path, bare: Path
) -> None:
    """This tokenizer normalizes: decoded text may have another hash than the original."""
    assert Tokenizer.load(run_data.tokenizer).definition.normalizer is not None
    apart = gates(run_data.config(tmp_path / "run", dataset=bare))["val-overlap"]
    assert apart.verdict == "UNKNOWN"
    held_out = bare_copy(run_data.val, tmp_path / "held-out")
    repair_manifest(held_out, tokenizer_path=run_data.tokenizer)
    both = run_data.config(tmp_path / "run", dataset=bare, val_shard=held_out)
    assert gates(both)["val-overlap"].verdict == "PASS"
    same = run_data.config(tmp_path / "run", dataset=bare, val_shard=run_data.train)
    assert gates(same)["val-overlap"].verdict == "FAIL"


def test_f21_shards_without_borders_have_no_documents_to_compare(
    run_data: RunData, tmp_path: Path
) -> None:
    sides: dict[str, Path] = {}
    for name, source in (("dataset", run_data.train), ("val_shard", run_data.val)):
        sides[name] = bare_copy(source, tmp_path / name)
        repair_manifest(sides[name], tokenizer_path=run_data.tokenizer, eos_policy="none")
    gate = gates(run_data.config(tmp_path / "run", **sides))["val-overlap"]
    assert gate.verdict == "UNKNOWN"


def test_with_every_waiver_named_a_run_may_start(
    run_data: RunData, tmp_path: Path, bare: Path
) -> None:
    reason = "made with this tokenizer, by the log of the encoding"
    unknown = (
        "tokenizer-fingerprint", "val-overlap", "split-certificate", "data-degenerate",
        "token-budget",
    )  # fmt: skip
    waivers = {f"preflight.{gate}": reason for gate in unknown}
    config = run_data.config(tmp_path / "run", dataset=bare, waive=waivers, num_steps=2)
    record = pretrain(config)
    waived = {gate["id"] for gate in record["gates"] if gate["waiver"]}
    assert waived == set(waivers)
    assert record["outcome"] == "budget_exhausted"
