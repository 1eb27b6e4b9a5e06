"""Every gate of a run looks at every source of its mixture, wherever in the list it stands.

Each fault is planted in one source alone; a gate that reads the first, or the last, lets it pass.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.run_data import RunData
from tests.shard_files import edit_manifest, ids_of, rewrite_shard

from apr.errors import Refusal
from apr.jobs.pretrain import pretrain
from apr.shards.encode import encode_corpus
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.gates import Finding, Gate, worst
from apr.train.inputs import open_inputs
from apr.train.preflight import check_files

Plant = Callable[[RunData, Path, Path], None]


def verdicts(data: RunData, run_dir: Path, datasets: list[Path], **changes: Any) -> dict[str, Gate]:
    config = data.config(run_dir, dataset=datasets, **changes)
    gates = check_files(config, open_inputs(config))
    return {gate.id.removeprefix("preflight."): gate for gate in gates}


def test_two_sound_sources_pass(
    run_data: RunData, sources: tuple[Path, Path], tmp_path: Path
) -> None:
    gates = verdicts(run_data, tmp_path / "run", list(sources))
    failed = {name for name, gate in gates.items() if gate.verdict != "PASS"}
    assert failed == {"token-budget"}, [gates[name].found for name in failed]
    assert str(sources[0]) in gates["tokenizer-fingerprint"].found
    assert str(sources[1]) in gates["split-certificate"].found


def _encode(data: RunData, lines: list[str], output: Path, tokenizer: Tokenizer) -> None:
    corpus = output.with_suffix(".jsonl")
    corpus.write_text("\n".join(lines) + "\n")
    encode_corpus([corpus], tokenizer=tokenizer, encoder="reference", output=output)


def _lines(data: RunData, name: str) -> list[str]:
    return (data.root / f"{name}.jsonl").read_text().splitlines()


def _foreign_tokenizer(data: RunData, _source: Path, planted: Path) -> None:
    value = json.loads((data.tokenizer / "tokenizer.json").read_bytes())
    value["model"]["vocab"] = {
        piece: {300: 301, 301: 300}.get(id, id) for piece, id in value["model"]["vocab"].items()
    }
    swapped = Tokenizer.from_json_bytes(
        json.dumps(value).encode(), eos_token="<|endoftext|>", where="x"
    )
    _encode(data, _lines(data, "train")[120:140], planted, swapped)


def _id_beyond_the_model(_data: RunData, source: Path, planted: Path) -> None:
    shutil.copytree(source, planted)
    edit_manifest(planted, vocab_size=4096)
    rewrite_shard(planted, -1, [4000, *ids_of(planted, -1)[1:]])


def _held_out_document(data: RunData, _source: Path, planted: Path) -> None:
    lines = _lines(data, "train")[120:140] + _lines(data, "val")[:1]
    _encode(data, lines, planted, Tokenizer.load(data.tokenizer))


def _without_certificate(data: RunData, _source: Path, planted: Path) -> None:
    _encode(data, _lines(data, "train")[120:140], planted, Tokenizer.load(data.tokenizer))


def _one_line_repeated(data: RunData, _source: Path, planted: Path) -> None:
    line = json.dumps({"content": "x = 1\n" * 5000, "source": "x"})
    _encode(data, [line], planted, Tokenizer.load(data.tokenizer))


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize(
    ("plant", "gate"),
    [
        (_foreign_tokenizer, "tokenizer-fingerprint"),
        (_id_beyond_the_model, "id-range"),
        (_held_out_document, "val-overlap"),
        (_without_certificate, "split-certificate"),
        (_one_line_repeated, "data-degenerate"),
    ],
)
def test_a_fault_in_one_source_is_found_wherever_it_stands(
    run_data: RunData,
    sources: tuple[Path, Path],
    tmp_path: Path,
    plant: Plant,
    gate: str,
    at: int,
) -> None:
    planted = tmp_path / "planted"
    plant(run_data, sources[1], planted)
    datasets = list(sources)
    datasets.insert(at, planted)
    found = verdicts(run_data, tmp_path / "run", datasets)[gate]
    assert found.verdict == "FAIL", found.found
    assert gate in ("id-range", "val-overlap") or "planted" in found.found


def test_a_run_with_a_foreign_source_does_not_start(
    run_data: RunData, sources: tuple[Path, Path], tmp_path: Path
) -> None:
    _foreign_tokenizer(run_data, sources[0], tmp_path / "planted")
    waived = {f"preflight.{id}": "a test" for id in ("token-budget", "split-certificate")}
    datasets = [sources[0], tmp_path / "planted"]
    config = run_data.config(tmp_path / "run", dataset=datasets, waive=waived)
    with pytest.raises(Refusal) as refused:
        pretrain(config)
    assert refused.value.id == "preflight.tokenizer-fingerprint"
    assert refused.value.found.startswith("planted ")
    assert not config.run_dir.exists()


def test_unique_tokens_are_those_of_all_sources(
    run_data: RunData, sources: tuple[Path, Path], tmp_path: Path
) -> None:
    one, other = (
        open_inputs(run_data.config(tmp_path / "run", dataset=source)).unique_train_tokens
        for source in sources
    )
    both = open_inputs(run_data.config(tmp_path / "run", dataset=list(sources)))
    assert both.unique_train_tokens == one + other
    assert min(one, other) > 0


PASSED, FAILED, UNKNOWN = (
    Finding("PASS", "good", "g"),
    Finding("FAIL", "bad", "b", "mend it"),
    Finding("UNKNOWN", "unclear", "u"),
)


@pytest.mark.parametrize(
    ("findings", "verdict", "found"),
    [
        ([PASSED, PASSED], "PASS", "good"),
        ([PASSED, UNKNOWN], "UNKNOWN", "unclear"),
        ([UNKNOWN, FAILED, PASSED], "FAIL", "bad"),
        ([], "UNKNOWN", "nothing to check"),
    ],
)
def test_the_worst_verdict_wins(findings: list[Finding], verdict: str, found: str) -> None:
    joined = worst(findings)
    assert (joined.verdict, joined.found) == (verdict, found)
