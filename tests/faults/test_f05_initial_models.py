"""F03, F04, F05: a run that starts from weights which are not what they are said to be.

Every fault is planted in the `.apr` file or in an option; the verdict is the one that
`apr pretrain --dry-run` gives, and nothing is written.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.container_models import ModelFile, hashes
from tests.hf_models import hf_model
from tests.run_data import RunData
from tests.source_models import QUICK

from apr.container import free_keys
from apr.container.embedded_tokenizer import embed_tokenizer
from apr.container.metadata import metadata_from_architecture
from apr.container.reader import Container
from apr.container.stamp import Claims, stamp
from apr.errors import Refusal
from apr.jobs.import_model import import_model
from apr.jobs.pretrain import preflight, pretrain
from apr.model.weights import end_of_text_ids, load_model
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.gates import Gate
from apr.train.init_file import read_init
from apr.train.init_loss_gate import check_initial_loss
from apr.train.row_losses import RowLosses
from apr.train.tokenizer_gate import check_vocab_size
from apr.train.validation import ValidationResult
from apr.units import format_count

DOWN = "model.layers.0.mlp.down_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
Arrays = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def base(run_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned a little, with its loss on the held-out set on record."""
    run_dir = tmp_path_factory.mktemp("base") / "run"
    pretrain(
        run_data.config(
            run_dir, num_steps=60, eval_every=60, learning_rate=3e-3, warmup_steps=6, batch_size=8
        )
    )
    return run_dir / "model.apr"


def verdicts(run_data: RunData, tmp_path: Path, init: Path, **changes: Any) -> dict[str, Gate]:
    """The gates of a run from `init`, by the last part of their id; nothing may be written."""
    config = run_data.config(tmp_path / "run", **({"init": init, "arch": None} | changes))
    plan = preflight(config)
    assert not config.run_dir.exists()
    gates = {gate.id.removeprefix("preflight."): gate for gate in plan.gates}
    assert plan.may_start == all(g.verdict == "PASS" or g.waiver for g in gates.values())
    return gates


def rewritten(
    base: Path,
    target: Path,
    change: Callable[[Arrays], None] = lambda _arrays: None,
    free: dict[str, Any] | None = None,
    named: dict[str, Any] | None = None,
) -> Path:
    """A copy with other tensors or metadata, sound in every byte, its hashes made anew."""
    loaded = load_model(base)
    arrays: Arrays = {
        name: parameter.detach().numpy().copy()
        for name, parameter in loaded.model.named_parameters()
    }
    change(arrays)
    file = ModelFile(loaded.model.architecture, arrays, loaded.metadata)
    file.set_free(hashes(arrays) | (free or {}))
    file.set(**(named or {}))
    return file.write(target)


def test_the_harmless_twin_passes_and_compares_with_the_recorded_loss(
    run_data: RunData, tmp_path: Path, base: Path
) -> None:
    gates = verdicts(run_data, tmp_path, base)
    waived = {name for name, gate in gates.items() if gate.verdict != "PASS"}
    assert waived == {"token-budget"}
    assert "as the file records on this set" in gates["init-loss"].expected
    assert gates["vocab-size"].upstream_id == "FALSIFY-APR-PRETRAIN-ARCH-009"
    copied = verdicts(run_data, tmp_path, rewritten(base, tmp_path / "copy.apr"))
    assert copied["init-tensors"].verdict == copied["init-loss"].verdict == "PASS"


@pytest.mark.parametrize(
    ("damage", "upstream_id"),
    [
        (None, "FALSIFY-APR-PRETRAIN-INIT-003"),
        (lambda data: b"", "FALSIFY-APR-PRETRAIN-INIT-004"),
        (lambda data: data[:3], "FALSIFY-APR-PRETRAIN-INIT-004"),
        (lambda data: b"GGUF" + data[4:], "FALSIFY-APR-PRETRAIN-INIT-004"),
        (lambda data: b"\x80\x04pickle" + data, "FALSIFY-APR-PRETRAIN-INIT-004"),
        (lambda data: data[: len(data) // 2], "FALSIFY-APR-PRETRAIN-INIT-006"),
        (lambda data: data.replace(b'"hidden_size":64', b'"hidden_size":6.'), None),
        (lambda data: data[:-9000] + b"\x01" + data[-8999:], "FALSIFY-APR-PRETRAIN-INIT-006"),
    ],
    ids=["missing", "empty", "three bytes", "GGUF", "pickle", "half", "metadata", "one byte"],
)
def test_a_file_that_is_not_what_it_says(
    run_data: RunData,
    tmp_path: Path,
    base: Path,
    damage: Callable[[bytes], bytes] | None,
    upstream_id: str | None,
) -> None:
    planted = tmp_path / "planted.apr"
    if damage is not None:
        data = base.read_bytes()
        assert damage(data) != data
        planted.write_bytes(damage(data))
    gates = verdicts(run_data, tmp_path, planted)
    assert gates["init-file"].verdict == "FAIL"
    assert upstream_id in (None, gates["init-file"].upstream_id)
    others = {gate.verdict for name, gate in gates.items() if name != "init-file"}
    assert others == {"UNKNOWN"}
    with pytest.raises(Refusal) as refused:
        pretrain(run_data.config(tmp_path / "run", init=planted, arch=None))
    assert (refused.value.id, refused.value.exit_code) == ("preflight.init-file", 5)


def test_a_directory_is_no_initial_file(run_data: RunData, tmp_path: Path) -> None:
    gate = verdicts(run_data, tmp_path, tmp_path)["init-file"]
    assert (gate.verdict, gate.upstream_id) == ("FAIL", "FALSIFY-APR-PRETRAIN-INIT-003")


@pytest.mark.parametrize(
    ("named", "verdict", "upstream_id"),
    [
        (
            {"hf_model_type": "bert", "hf_architecture": "BertModel", "architecture": "bert"},
            "FAIL",
            "FALSIFY-APR-PRETRAIN-ARCH-007",
        ),
        (
            {
                "hf_model_type": "qwen2",
                "hf_architecture": "Qwen2ForCausalLM",
                "architecture": "qwen2",
            },
            "FAIL",
            "FALSIFY-INIT-ARCH-MATCH-001",
        ),
        ({"hf_architecture": "MistralForCausalLM"}, "FAIL", "FALSIFY-INIT-ARCH-MATCH-001"),
        (
            {"hf_model_type": "mamba", "hf_architecture": "MambaForCausalLM"},
            "UNKNOWN",
            "FALSIFY-APR-PRETRAIN-INIT-005",
        ),
        (
            {"hf_model_type": None, "hf_architecture": None},
            "UNKNOWN",
            "FALSIFY-APR-PRETRAIN-INIT-005",
        ),
        ({"rope_theta": None}, "UNKNOWN", "FALSIFY-APR-PRETRAIN-INIT-005"),
    ],
    ids=["encoder", "qwen2 claimed", "two names", "unknown family", "no family", "no theta"],
)
def test_a_family_that_is_not_that_of_the_tensors(
    run_data: RunData,
    tmp_path: Path,
    base: Path,
    named: dict[str, Any],
    verdict: str,
    upstream_id: str,
) -> None:
    gates = verdicts(run_data, tmp_path, rewritten(base, tmp_path / "x.apr", named=named))
    assert gates["init-file"].verdict == "PASS"
    assert (gates["init-family"].verdict, gates["init-family"].upstream_id) == (
        verdict,
        upstream_id,
    )
    assert gates["init-tensors"].verdict == gates["init-loss"].verdict == "UNKNOWN"


def drop(name: str) -> Callable[[Arrays], None]:
    def change(arrays: Arrays) -> None:
        del arrays[name]

    return change


def swap_dimensions(arrays: Arrays) -> None:
    arrays[DOWN] = np.ascontiguousarray(arrays[DOWN].T)


def extra_bias(arrays: Arrays) -> None:
    arrays["model.layers.0.self_attn.o_proj.bias"] = np.zeros(64, "<f4")


def one_row_more(arrays: Arrays) -> None:
    arrays[EMBEDDING] = np.vstack([arrays[EMBEDDING], arrays[EMBEDDING][:1]])


@pytest.mark.parametrize(
    "change",
    [drop("model.norm.weight"), drop(DOWN), swap_dimensions, extra_bias, one_row_more],
    ids=["no final norm", "no down_proj", "dimensions swapped", "extra bias", "one row more"],
)
def test_tensors_that_are_not_the_architectures(
    run_data: RunData, tmp_path: Path, base: Path, change: Callable[[Arrays], None]
) -> None:
    gates = verdicts(run_data, tmp_path, rewritten(base, tmp_path / "x.apr", change))
    assert gates["init-family"].verdict == "PASS"
    assert gates["init-tensors"].verdict == "FAIL"
    assert gates["init-tensors"].upstream_id == "FALSIFY-APR-PRETRAIN-INIT-007"


def shuffle_rows(arrays: Arrays) -> None:
    arrays[DOWN] = arrays[DOWN][np.random.default_rng(0).permutation(len(arrays[DOWN]))]


def shift_embedding(arrays: Arrays) -> None:
    arrays[EMBEDDING] = np.roll(arrays[EMBEDDING], 1, axis=0)


def zero_head(arrays: Arrays) -> None:
    arrays[EMBEDDING][:] = 0.0


def times_thirty(arrays: Arrays) -> None:
    for array in arrays.values():
        array *= 30.0


@pytest.mark.parametrize("change", [shuffle_rows, shift_embedding, zero_head, times_thirty])
def test_f05_weights_that_were_changed_have_another_loss(
    run_data: RunData, tmp_path: Path, base: Path, change: Callable[[Arrays], None]
) -> None:
    gates = verdicts(run_data, tmp_path, rewritten(base, tmp_path / "x.apr", change))
    assert gates["init-tensors"].verdict == "PASS"
    assert gates["init-loss"].verdict == "FAIL"


def test_f31_without_a_record_the_loss_lies_in_a_band_with_two_ends(
    run_data: RunData, tmp_path: Path, base: Path
) -> None:
    """0.7 ln V is 4.3668 for 512 ids: what sixty steps have learned is not enough."""
    unsaid = rewritten(base, tmp_path / "x.apr", free={free_keys.PROVENANCE: []})
    gate = verdicts(run_data, tmp_path, unsaid)["init-loss"]
    assert gate.verdict == "FAIL"
    assert gate.expected.startswith("0.1 to 4.3668 (0.7 ln V)")


def test_f09_a_tokenizer_that_the_model_has_not_learned(
    run_data: RunData, tmp_path: Path, base: Path
) -> None:
    document = json.loads(Tokenizer.load(run_data.tokenizer).json_bytes)
    vocab = document["model"]["vocab"]
    first, second = (token for token, id in vocab.items() if id in (300, 301))
    vocab[first], vocab[second] = vocab[second], vocab[first]
    other = Tokenizer.from_json_bytes(
        json.dumps(document).encode(), eos_token="<|endoftext|>", where="x"
    )
    planted = rewritten(base, tmp_path / "x.apr", free=embed_tokenizer(other))
    gate = verdicts(run_data, tmp_path, planted)["tokenizer-fingerprint"]
    assert gate.verdict == "FAIL"
    assert gate.found.startswith("x.apr ")


def test_f41_a_model_without_a_tokenizer_cannot_be_compared(
    run_data: RunData, tmp_path: Path, base: Path
) -> None:
    loaded = load_model(base)
    arrays = {name: p.detach().numpy() for name, p in loaded.model.named_parameters()}
    architecture = loaded.model.architecture
    metadata = metadata_from_architecture(
        architecture, num_parameters=architecture.num_parameters, free=hashes(arrays)
    )
    planted = ModelFile(architecture, arrays, metadata).write(tmp_path / "x.apr")
    gates = verdicts(run_data, tmp_path, planted)
    assert gates["tokenizer-fingerprint"].verdict == "UNKNOWN"
    assert "x.apr: the file carries none" in gates["tokenizer-fingerprint"].found
    assert gates["token-budget"].verdict == "UNKNOWN"
    stamped = tmp_path / "stamped.apr"
    stamp(
        planted,
        Claims(tokenizer=run_data.tokenizer, pretraining_tokens=10**9),
        output=stamped,
    )
    gates = verdicts(run_data, tmp_path, stamped)
    assert gates["tokenizer-fingerprint"].verdict == gates["token-budget"].verdict == "PASS"


@pytest.mark.parametrize(("rows", "verdict"), [(512, "PASS"), (600, "PASS"), (511, "FAIL")])
def test_f14_a_model_may_have_spare_rows_and_no_row_too_few(
    run_data: RunData, rows: int, verdict: str
) -> None:
    """Qwen2.5 is the known case: 151,665 ids for 151,936 rows."""
    entries = Tokenizer.load(run_data.tokenizer).vocab_size
    finding = check_vocab_size(entries, rows, is_initial=True)
    assert finding.verdict == verdict
    expected = {"PASS": "FALSIFY-APR-PRETRAIN-ARCH-009", "FAIL": "FALSIFY-APR-PRETRAIN-ARCH-010"}
    assert finding.upstream_id == expected[verdict]


def test_a_continued_run_carries_its_origin(run_data: RunData, tmp_path: Path, base: Path) -> None:
    record = pretrain(run_data.config(tmp_path / "run", init=base, arch=None, num_steps=4))
    with Container.open(base) as container:
        before = container.metadata.free[free_keys.PROVENANCE]
    seen = json.loads((base.parent / "run.json").read_text())["tokens_seen"]
    assert record["inputs"]["init"]["tokens_seen"] == seen > 59 * 8 * 32
    assert record["config"]["mode"] == "finetune"
    with Container.open(tmp_path / "run" / "model.apr") as container:
        *carried, entry = container.metadata.free[free_keys.PROVENANCE]
    assert carried == before
    assert entry["init_sha256"] == record["inputs"]["init"]["sha256"]
    assert entry["tokens_seen_before"] == seen
    # And the next run can tell how much the weights have seen in all.
    gates = verdicts(run_data, tmp_path / "next", tmp_path / "run" / "model.apr")
    assert f"after {format_count(seen + record['tokens_seen'])} that" in gates["token-budget"].found


@pytest.mark.parametrize("kind", ["bias zeroed", "heads permuted", "norm doubled", "sound"])
def test_f01_weights_changed_after_their_import_have_another_loss_on_its_probes(
    tmp_path: Path, kind: str
) -> None:
    """Sound in every byte and every hash, and in a band that says nothing: the proof remembers."""
    source = hf_model("qwen2")
    for array in source.arrays.values():
        # Far from zero, as in a model that has learned: near it, every loss is ln V.
        array *= 8.0
    import_model(source.write(tmp_path / "hf"), output=tmp_path / "base.apr", **QUICK)

    def change(arrays: Arrays) -> None:
        if kind == "bias zeroed":
            arrays["model.layers.0.self_attn.v_proj.bias"][:] = 0.0
        if kind == "heads permuted":
            name = "model.layers.1.self_attn.q_proj.weight"
            arrays[name] = np.roll(arrays[name], 4, axis=0)
        if kind == "norm doubled":
            arrays["model.norm.weight"] *= 2.0

    init = read_init(rewritten(tmp_path / "base.apr", tmp_path / "x.apr", change))
    assert {gate.verdict for gate in init.gates} == {"PASS"}
    model = load_model(init.path).model
    in_band = 0.5 * math.log(model.architecture.vocab_size)
    rows = RowLosses(np.array([in_band]), np.array([1]))
    held_out = ValidationResult(in_band, None, 1, "0" * 64, rows)
    finding = check_initial_loss(model, init, held_out)
    assert "on the import's probes" in finding.found
    assert finding.verdict == ("PASS" if kind == "sound" else "FAIL")


def test_what_the_source_said_beyond_its_shape_is_carried_on(
    run_data: RunData, tmp_path: Path, base: Path
) -> None:
    """The ids that end a text, for one, which a continued model still has to stop at."""
    said = {free_keys.HF_CONFIG: {"eos_token_id": [0, 7]}}
    record = pretrain(
        run_data.config(
            tmp_path / "run",
            init=rewritten(base, tmp_path / "x.apr", free=said),
            arch=None,
            num_steps=2,
        )
    )
    assert record["outcome"] == "budget_exhausted"
    for file in ("model.apr", "checkpoints/step-00000002/model.apr"):
        assert end_of_text_ids(load_model(tmp_path / "run" / file)) >= {0, 7}


def test_f05_a_checkpoint_is_not_judged_by_the_loss_of_what_it_started_from(
    run_data: RunData, tmp_path: Path, base: Path
) -> None:
    config = run_data.config(tmp_path / "run", init=base, arch=None, num_steps=2)
    pretrain(config)
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000002" / "model.apr"
    assert read_init(base).recorded_loss is not None
    assert read_init(checkpoint).recorded_loss is None
    assert read_init(tmp_path / "run" / "model.apr").recorded_loss is not None
