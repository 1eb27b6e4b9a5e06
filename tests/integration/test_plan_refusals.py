"""`apr plan` says what `apr pretrain` would refuse of the same inputs, in the same words.

Each fault is planted in a file or an option; the gates of the run itself are the reference.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.container_models import model_file
from tests.run_data import VOCAB_SIZE, RunData

from apr.architecture import preset
from apr.cli.main import run
from apr.corpus.reading.jsonl import write_rows
from apr.errors import Refusal
from apr.jobs.plan import plan
from apr.jobs.pretrain import pretrain
from apr.shards.encode import encode_corpus
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.config import TrainConfig
from apr.train.gates import apply_waivers
from apr.train.init_file import read_init
from apr.train.inputs import open_inputs
from apr.train.preflight import check_files
from apr.train.resolved_config import resolve_config

Captured = pytest.CaptureFixture[str]
IDENTITY = ["preflight.tokenizer-fingerprint", "preflight.vocab-size"]
THIS = Path(__file__).read_text(encoding="utf-8")
HELD_OUT = ["preflight.val-empty", "preflight.val-overlap", "preflight.split-certificate"]


@dataclass(frozen=True)
class Faulty:
    """What faults are made of: beside the data, another tokenizer, its shards, and two models."""

    data: RunData
    tokenizer: Path
    shards: Path
    model: Path
    no_tokenizer: Path

    def options(self, run_dir: Path, **changes: Any) -> dict[str, Any]:
        return {
            name: value
            for name, value in self.data.options(run_dir, waive={}, **changes).items()
            if value is not None
        }


@pytest.fixture(scope="module")
def faulty(run_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Faulty:
    root = tmp_path_factory.mktemp("faulty")
    value = json.loads((run_data.tokenizer / "tokenizer.json").read_bytes())
    value["model"]["vocab"] = {
        piece: {300: 301, 301: 300}.get(id, id) for piece, id in value["model"]["vocab"].items()
    }
    swapped = Tokenizer.from_json_bytes(
        json.dumps(value).encode(), eos_token="<|endoftext|>", where="swapped"
    )
    swapped.save(root / "tokenizer")
    lines = (run_data.root / "train.jsonl").read_bytes().splitlines(keepends=True)
    (root / "part.jsonl").write_bytes(b"".join(lines[120:160]))
    encode_corpus(
        [root / "part.jsonl"], tokenizer=swapped, encoder="reference", output=root / "shards"
    )
    pretrain(run_data.config(root / "run"))
    bare = model_file(preset("tiny", tokenizer_vocab_size=VOCAB_SIZE))
    return Faulty(
        run_data,
        root / "tokenizer",
        root / "shards",
        root / "run" / "model.apr",
        bare.write(root / "bare.apr"),
    )


def gates_of_the_run(config: TrainConfig) -> list[dict[str, Any]]:
    init = read_init(config.init) if config.init else None
    gates = check_files(config, open_inputs(config, init=init))
    return [gate.as_record() for gate in apply_waivers(gates, config.waive)]


Change = Callable[[Faulty, Path], dict[str, Any]]
FAULTS: dict[str, tuple[Change, list[str]]] = {
    "the harmless twin": (lambda _faulty, _tmp: {}, []),
    "documents set aside": (lambda _faulty, _tmp: {"val_shard": None}, []),
    "from a model": (lambda faulty, _tmp: {"init": faulty.model, "arch": None}, []),
    "another tokenizer": (lambda faulty, _tmp: {"tokenizer": faulty.tokenizer}, IDENTITY[:1]),
    "shards of another": (
        lambda faulty, _tmp: {"dataset": [faulty.data.train, faulty.shards]},
        [IDENTITY[0], HELD_OUT[2]],
    ),
    "a model that has learned another": (
        lambda faulty, _tmp: {
            "init": faulty.model,
            "arch": None,
            "dataset": faulty.shards,
            "val_shard": None,
            "tokenizer": faulty.tokenizer,
            "batch_size": 1,
        },
        IDENTITY[:1],
    ),
    "a model without a tokenizer": (
        lambda faulty, _tmp: {"init": faulty.no_tokenizer, "arch": None},
        IDENTITY[:1],
    ),
    "spare rows": (lambda _faulty, _tmp: {"vocab_size": 600}, IDENTITY[1:]),
    "a preset of other rows": (lambda _faulty, _tmp: {"arch": "qwen2-0.5b"}, IDENTITY[1:]),
    "too little held out": (lambda _faulty, _tmp: {"batch_size": 4096}, HELD_OUT[:1]),
    "held out is trained on": (
        lambda faulty, _tmp: {"val_shard": faulty.data.train},
        HELD_OUT[1:],
    ),
    "no certificate": (
        lambda faulty, tmp: {"val_shard": encoded(faulty, tmp, THIS)},
        HELD_OUT[2:],
    ),
    "copies across the border": (
        lambda faulty, tmp: {
            "dataset": encoded(faulty, tmp, "\0" * 500, times=300),
            "val_shard": None,
        },
        [HELD_OUT[1], "preflight.data-degenerate"],
    ),
}


def encoded(faulty: Faulty, tmp_path: Path, text: str, *, times: int = 1) -> Path:
    """Shards of one text, so many times over."""
    corpus = tmp_path / "other.jsonl"
    write_rows(corpus, [(text, f"{number}.py") for number in range(times)])
    encode_corpus(
        [corpus],
        tokenizer=Tokenizer.load(faulty.data.tokenizer),
        encoder="reference",
        output=tmp_path / "other",
    )
    return tmp_path / "other"


@pytest.mark.parametrize("name", FAULTS)
def test_a_plan_foresees_the_gates_of_the_run(faulty: Faulty, tmp_path: Path, name: str) -> None:
    change, expected = FAULTS[name]
    options = faulty.options(tmp_path / "run", **change(faulty, tmp_path))
    found = plan(options)
    run_gates = {gate["id"]: gate for gate in gates_of_the_run(resolve_config(options))}
    # Statistics are the part of that gate that needs no token.
    foreseen = {gate["id"]: gate for gate in found.facts["gates"]}
    text = foreseen.pop("preflight.data-degenerate", None)
    if text is not None:
        assert text["verdict"] == run_gates["preflight.data-degenerate"]["verdict"] == "FAIL"
    assert foreseen == {id: run_gates[id] for id in foreseen}
    assert {*IDENTITY, *HELD_OUT[:2]} <= set(foreseen)
    blocking = [id for id, gate in foreseen.items() if gate["verdict"] != "PASS"]
    blocking += ["preflight.data-degenerate"] if text else []
    assert blocking == expected
    assert [id for id in found.facts["would_be_refused_by"] if id in blocking] == expected
    assert (found.refusal.id if found.refusal else None) == (expected or [None])[0]


def test_too_little_to_set_aside_is_foreseen(faulty: Faulty, tmp_path: Path) -> None:
    options = faulty.options(tmp_path / "run", val_shard=None, batch_size=1024)
    with pytest.raises(Refusal) as refused:
        open_inputs(resolve_config(options))
    (gate,) = [gate for gate in plan(options).facts["gates"] if gate["verdict"] != "PASS"]
    assert gate["id"] == refused.value.id == "preflight.val-empty"
    assert refused.value.found in gate["found"]
    assert gate["upstream_id"] == refused.value.upstream_id


def foreseen(**options: Any) -> dict[str, str]:
    """Verdicts of a plan that knows nothing but these options."""
    given = {"arch": "tiny", "num_steps": 8, "batch_size": 1, "seq_length": 32} | options
    found = plan({name: value for name, value in given.items() if value is not None})
    return {gate["id"]: gate["verdict"] for gate in found.facts["gates"]}


def test_inputs_are_compared_with_each_other_where_no_tokenizer_is_given(faulty: Faulty) -> None:
    own = faulty.data.train
    fingerprint, vocab_size = IDENTITY
    assert fingerprint not in foreseen(dataset=own)
    assert foreseen(dataset=[own, faulty.data.val])[fingerprint] == "PASS"
    assert foreseen(dataset=[own, faulty.shards])[fingerprint] == "FAIL"
    continued: dict[str, Any] = {"arch": None, "init": faulty.model}
    assert foreseen(dataset=own, **continued)[fingerprint] == "PASS"
    assert foreseen(dataset=faulty.shards, **continued)[fingerprint] == "FAIL"
    assert foreseen(tokenizer=faulty.tokenizer, **continued)[fingerprint] == "FAIL"
    assert foreseen(tokenizer=faulty.data.tokenizer, **continued)[fingerprint] == "PASS"
    bare = foreseen(dataset=own, arch=None, init=faulty.no_tokenizer)
    assert bare[fingerprint] == "UNKNOWN"
    assert foreseen(dataset=own, vocab_size=600)[vocab_size] == "FAIL"
    assert foreseen(dataset=own, vocab_size=VOCAB_SIZE)[vocab_size] == "PASS"
    assert foreseen(vocab_size=600) == {}


def test_a_manifest_alone_is_enough(faulty: Faulty, tmp_path: Path) -> None:
    shutil.copy(faulty.data.train / "manifest.json", tmp_path)
    found = foreseen(dataset=tmp_path, tokenizer=faulty.data.tokenizer)
    assert found == dict.fromkeys(IDENTITY, "PASS")
    assert foreseen(dataset=tmp_path, tokenizer=faulty.tokenizer)[IDENTITY[0]] == "FAIL"


def words_of(faulty: Faulty, **changes: Path) -> list[str]:
    """A plan as it is typed, all that a run needs being named."""
    paths = {
        "dataset": faulty.data.train,
        "val-shard": faulty.data.val,
        "tokenizer": faulty.data.tokenizer,
    } | {name.replace("_", "-"): path for name, path in changes.items()}
    typed = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    shape = ["--arch", "tiny", "--num-steps", "8", "--batch-size", "4", "--seq-length", "32"]
    return ["plan", "--device", "cpu", *shape, *typed]


def test_a_plan_that_would_be_refused_answers_and_ends_with_5(
    faulty: Faulty, tmp_path: Path, capsys: Captured
) -> None:
    place = {"run_dir": tmp_path / "run"}
    assert run(words_of(faulty, **place)) == 0
    assert "\nnext:\n  apr pretrain --dry-run" in capsys.readouterr().out
    assert run(words_of(faulty, tokenizer=faulty.tokenizer, **place)) == 5
    said = capsys.readouterr()
    assert "this run: preflight.tokenizer-fingerprint, preflight.token-budget\n" in said.out
    assert "parameters  " in said.out
    assert "next:" not in said.out
    assert f"refused[preflight.tokenizer-fingerprint] {place['run_dir']}\n" in said.err
    assert run([*words_of(faulty, tokenizer=faulty.tokenizer), "--json"]) == 5
    answer = json.loads(capsys.readouterr().out)
    assert answer["refused"]["id"] == "preflight.tokenizer-fingerprint"
    assert answer["exit_code"] == 5
    assert answer["planned_tokens"] == 8 * 4 * 32


def test_a_waived_gate_is_not_foreseen(faulty: Faulty, tmp_path: Path, capsys: Captured) -> None:
    run_file = tmp_path / "run.toml"
    reasons = {IDENTITY[0]: "a test", "preflight.token-budget": "a test"}
    lines = [f'"{id}" = "{reason}"' for id, reason in reasons.items()]
    run_file.write_text("\n".join(["[waive]", *lines]))
    words = [*words_of(faulty, tokenizer=faulty.tokenizer), "--config", str(run_file), "--json"]
    assert run(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["would_be_refused_by"] == []
    assert answer["gates"][0]["waiver"] == {"reason": "a test"}


def test_a_place_that_cannot_hold_the_run_is_foreseen(
    faulty: Faulty, tmp_path: Path, capsys: Captured
) -> None:
    assert run([*words_of(faulty, run_dir=faulty.model.parent), "--json"]) == 5
    answer = json.loads(capsys.readouterr().out)
    assert answer["refused"]["id"] == answer["would_be_refused_by"][0] == "run.exists"
    assert answer["num_parameters"] > 0
    (tmp_path / "file").touch()
    assert run([*words_of(faulty, run_dir=tmp_path / "file"), "--json"]) == 7
    assert json.loads(capsys.readouterr().out)["refused"]["id"] == "files.io-failed"
    assert run(words_of(faulty, run_dir=tmp_path / "run")) == 0


def test_one_directory_is_one_source(faulty: Faulty, capsys: Captured) -> None:
    again = ["--dataset", str(faulty.data.train), "--json"]
    assert run([*words_of(faulty), *again]) == 2
    assert json.loads(capsys.readouterr().out)["refused"]["id"] == "config.mixture-repeated"
