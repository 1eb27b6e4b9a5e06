"""F13: degenerate data accepted, at the gate before training.

What passes every check of an encoding may still be no text. `preflight.data-degenerate` reads the
statistics and the text itself, on both sides, before a weight exists.
"""

import base64
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.run_data import RunData
from tests.shard_files import edit_manifest, ids_of, manifest_value, rewrite_shard

from apr.corpus.reading.jsonl import write_rows
from apr.errors import Refusal
from apr.jobs.pretrain import pretrain
from apr.shards.encode import encode_corpus
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.config import TrainConfig
from apr.train.gates import Gate
from apr.train.inputs import open_inputs
from apr.train.preflight import check_data, check_files
from apr.train.resolved_config import resolve_config


def gate(config: TrainConfig) -> Gate:
    gates = check_files(config, open_inputs(config))
    return next(each for each in gates if each.id == "preflight.data-degenerate")


def encoded(run_data: RunData, output: Path, texts: list[str]) -> Path:
    corpus = output.with_suffix(".jsonl")
    write_rows(corpus, [(text, str(number)) for number, text in enumerate(texts)])
    tokenizer = Tokenizer.load(run_data.tokenizer)
    encode_corpus([corpus], encoder="reference", tokenizer=tokenizer, output=output)
    return output


def base64_blobs() -> list[str]:
    chance = random.Random(1)
    return [base64.b64encode(chance.randbytes(3000)).decode() for _ in range(12)]


FAULTS: dict[str, tuple[Callable[[], list[str]], str]] = {
    "one line repeated": (lambda: ["    return self.value\n"] * 2000, "compression_ratio"),
    "a file of zero bytes": (lambda: ["\0" * 30_000], "unigram_entropy_bits"),
    "base64 blobs": (base64_blobs, "compression_ratio"),
}


@pytest.mark.parametrize("side", ["dataset", "val_shard"])
@pytest.mark.parametrize("name", FAULTS)
def test_no_text_is_refused_on_either_side(
    run_data: RunData, tmp_path: Path, name: str, side: str
) -> None:
    texts, value = FAULTS[name]
    planted = encoded(run_data, tmp_path / "planted", texts())
    config = run_data.config(tmp_path / "run", **{side: planted})
    found = gate(config)
    assert found.verdict == "FAIL"
    assert found.found.startswith("planted: ")
    assert value in found.found
    assert f"{value} from" in found.expected
    assert gate(run_data.config(tmp_path / "run")).verdict == "PASS"


def test_the_run_is_refused_and_a_waiver_is_a_reason(run_data: RunData, tmp_path: Path) -> None:
    planted = encoded(run_data, tmp_path / "planted", base64_blobs())
    waived = run_data.options(tmp_path / "run", dataset=planted)
    # Of ids that this corpus has not, a small held-out set says little.
    waived["waive"] |= {"preflight.val-size": "a test"}
    with pytest.raises(Refusal) as refused:
        pretrain(resolve_config(waived))
    assert refused.value.id == "preflight.split-certificate"
    assert refused.value.found.endswith("; not passed either: preflight.data-degenerate")
    waived["waive"] |= {"preflight.split-certificate": "a test"}
    with pytest.raises(Refusal) as refused:
        pretrain(resolve_config(waived))
    assert refused.value.id == "preflight.data-degenerate"
    assert refused.value.exit_code == 5
    assert not (tmp_path / "run").exists()


def test_a_corpus_of_unknown_tokens_is_refused_by_its_figures(
    run_data: RunData, tmp_path: Path
) -> None:
    """A hex vocabulary: 99.99 % unknown. No such corpus is encoded here, so it is written down."""
    planted = shutil.copytree(run_data.train, tmp_path / "planted")
    statistics = manifest_value(planted)["statistics"]
    statistics |= {"unk_rate": 0.9999, "unigram_entropy_bits": 0.001, "bytes_per_token": 0.5}
    edit_manifest(planted, statistics=statistics)
    found = gate(run_data.config(tmp_path / "run", dataset=planted))
    assert found.verdict == "FAIL"
    for value in ("unk_rate 0.9999", "unigram_entropy_bits 0.001", "bytes_per_token 0.5"):
        assert value in found.found


def test_a_document_that_decodes_to_another_character_is_refused(
    run_data: RunData, tmp_path: Path
) -> None:
    planted = shutil.copytree(run_data.train, tmp_path / "planted")
    letter = json.loads((run_data.tokenizer / "vocab.json").read_bytes())["a"]
    ids = ids_of(planted, 0)
    assert ids[0] != letter
    rewrite_shard(planted, 0, [letter, *ids[1:]])
    found = gate(run_data.config(tmp_path / "run", dataset=planted))
    assert found.verdict == "FAIL"
    assert "document 0 decodes to" in found.found


def test_text_that_cannot_be_decoded_is_unknown(run_data: RunData, tmp_path: Path) -> None:
    inputs = open_inputs(run_data.config(tmp_path / "run"))
    value = json.loads(inputs.tokenizer.json_bytes)
    value["normalizer"] = {"type": "NFD"}
    data = json.dumps(value).encode()
    other = Tokenizer.from_json_bytes(data, eos_token=None, where="x")
    assert other.fingerprint != inputs.tokenizer.fingerprint
    finding = check_data(replace(inputs, tokenizer=other))
    assert finding.verdict == "UNKNOWN"
    assert "another tokenizer" in finding.found


def test_the_figures_of_sound_data_stand_beside_the_verdict(
    run_data: RunData, tmp_path: Path
) -> None:
    found = gate(run_data.config(tmp_path / "run"))
    assert found.verdict == "PASS"
    for name in ("train: ", "val: ", "bytes_per_token", "longest_run", "8 of 8 documents decode"):
        assert name in found.found
