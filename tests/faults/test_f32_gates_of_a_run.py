"""Every preflight gate with its planted fault, its harmless twin, and its waiver (F05, F14, F21,
F24, F31, F32, F41).

Faults are planted in files or options; the gate is reached through `apr pretrain`'s own function.
"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.run_data import RunData
from tests.unit.train.batch_fixture import VOCAB_SIZE, random_batch, seeing, tiny_model

from apr.architecture import preset
from apr.errors import Refusal, UsageRefusal
from apr.jobs.pretrain import preflight, pretrain
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.shards.encode import encode_corpus
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.config import TrainConfig
from apr.train.gates import (
    NEVER_WAIVED,
    UPSTREAM_IDS,
    Finding,
    Gate,
    apply_waivers,
    judge,
    parse_waivers,
    require_passed,
)
from apr.train.gradients_gate import check_gradients
from apr.train.init_loss_gate import check_fresh_loss
from apr.train.inputs import open_inputs
from apr.train.loss import summed_loss
from apr.train.mixture import mix
from apr.train.preflight import check_files
from apr.train.row_losses import RowLosses
from apr.train.token_budget_gate import check_token_budget
from apr.train.validation import ValidationResult


def verdicts(config: TrainConfig) -> dict[str, Gate]:
    """The file gates of a run, by the last part of their id."""
    gates = check_files(config, open_inputs(config))
    return {gate.id.removeprefix("preflight."): gate for gate in gates}


def refused_by(config: TrainConfig) -> Refusal:
    """What `apr pretrain` says to a run, which must leave nothing behind."""
    with pytest.raises(Refusal) as refused:
        pretrain(config)
    assert refused.value.exit_code == 5
    assert not config.run_dir.exists()
    return refused.value


def test_the_harmless_twin_passes_every_gate(run_data: RunData, tmp_path: Path) -> None:
    plan = preflight(run_data.config(tmp_path / "run"))
    gates = plan.gates
    assert plan.may_start
    assert [gate.id for gate in gates] == [id for id in UPSTREAM_IDS if id not in NEVER_WAIVED]
    failed = [gate.id for gate in gates if gate.verdict != "PASS"]
    assert failed == ["preflight.token-budget"]
    assert [gate.waiver for gate in gates if gate.waiver] == [{"reason": "a test"}]
    assert not plan.config.run_dir.exists()


def _swap_two_ids(tokenizer: Tokenizer) -> bytes:
    document = json.loads(tokenizer.json_bytes)
    vocab = document["model"]["vocab"]
    first, second = (token for token, id in vocab.items() if id in (300, 301))
    vocab[first], vocab[second] = vocab[second], vocab[first]
    return json.dumps(document).encode()


@pytest.mark.parametrize("side", ["train", "val", "given"])
def test_f09_a_tokenizer_of_equal_size_with_two_ids_swapped(
    run_data: RunData, tmp_path: Path, side: str
) -> None:
    swapped = Tokenizer.from_json_bytes(
        _swap_two_ids(Tokenizer.load(run_data.tokenizer)), eos_token="<|endoftext|>", where="x"
    )
    assert swapped.vocab_size == Tokenizer.load(run_data.tokenizer).vocab_size
    swapped.save(tmp_path / "swapped")
    if side == "given":
        changes: dict[str, Any] = {"tokenizer": tmp_path / "swapped"}
    else:
        encode_corpus(
            [run_data.root / f"{side}.jsonl"],
            tokenizer=swapped,
            encoder="reference",
            output=tmp_path / "shards",
        )
        field = {"train": "dataset", "val": "val_shard"}[side]
        changes = {field: tmp_path / "shards"}
    refusal = refused_by(run_data.config(tmp_path / "run", **changes))
    assert refusal.id == "preflight.tokenizer-fingerprint"


@pytest.mark.parametrize("rows", [511, 513, 640])
def test_f14_from_scratch_the_model_has_one_row_per_id(
    run_data: RunData, tmp_path: Path, rows: int
) -> None:
    config = run_data.config(tmp_path / "run", vocab_size=rows)
    gate = verdicts(config)["vocab-size"]
    assert gate.verdict == "FAIL"
    assert gate.upstream_id == "GATE-ARCH-370M-011"
    assert f"{rows}" in gate.expected
    assert refused_by(config).id == "preflight.vocab-size"


def test_f14_an_id_beyond_the_model_rows(run_data: RunData, tmp_path: Path) -> None:
    config = run_data.config(
        tmp_path / "run",
        vocab_size=300,
        waive={"preflight.token-budget": "a test", "preflight.vocab-size": "a test"},
    )
    assert refused_by(config).id == "preflight.id-range"


def test_f21_held_out_shards_that_are_the_training_shards(
    run_data: RunData, tmp_path: Path
) -> None:
    config = run_data.config(tmp_path / "run", val_shard=run_data.train)
    assert refused_by(config).id == "preflight.val-overlap"


def test_f21_one_document_on_both_sides(run_data: RunData, tmp_path: Path) -> None:
    lines = (run_data.root / "val.jsonl").read_text().splitlines()
    planted = (run_data.root / "train.jsonl").read_text() + lines[0] + "\n"
    (tmp_path / "train.jsonl").write_text(planted)
    tokenizer = Tokenizer.load(run_data.tokenizer)
    encode_corpus(
        [tmp_path / "train.jsonl"],
        tokenizer=tokenizer,
        encoder="reference",
        output=tmp_path / "train",
    )
    config = run_data.config(tmp_path / "run", dataset=tmp_path / "train")
    gate = verdicts(config)["val-overlap"]
    assert gate.verdict == "FAIL"
    assert gate.found.startswith("1 contents on both sides")


def test_a_held_out_set_smaller_than_one_batch(run_data: RunData, tmp_path: Path) -> None:
    (tmp_path / "small.jsonl").write_text('{"content": "x = 1\\n", "source": "x.py"}\n')
    encode_corpus(
        [tmp_path / "small.jsonl"],
        tokenizer=Tokenizer.load(run_data.tokenizer),
        output=tmp_path / "small",
    )
    refusal = refused_by(run_data.config(tmp_path / "run", val_shard=tmp_path / "small"))
    assert refusal.id == "preflight.val-empty"
    assert refusal.upstream_id == "FALSIFY-PRETRAIN-VAL-SHARD-003"
    assert refusal.found.startswith("0 batches of 4 x 33 tokens")


def test_held_out_shards_that_are_missing(run_data: RunData, tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        pretrain(run_data.config(tmp_path / "run", val_shard=tmp_path / "nowhere"))
    assert refused.value.exit_code == 3
    assert refused.value.upstream_id == "FALSIFY-PRETRAIN-VAL-SHARD-001"


def test_f32_the_token_budget_and_its_waiver(run_data: RunData, tmp_path: Path) -> None:
    parameters = preset("tiny", tokenizer_vocab_size=512).num_parameters
    enough = math.ceil(20 * parameters / (4 * 32))

    inputs = open_inputs(run_data.config(tmp_path / "run"))
    (source,) = inputs.data.train.sources
    plenty = mix([replace(source, stop=1 << 40)], [None])
    inputs = replace(inputs, data=replace(inputs.data, train=plenty))

    def gate(num_steps: int) -> Finding:
        config = run_data.config(tmp_path / "run", num_steps=num_steps)
        return check_token_budget(config, inputs)

    assert gate(enough).verdict == "PASS"
    assert gate(enough - 1).verdict == "FAIL"
    assert "plateau" in gate(enough - 1).found
    assert "plateau" in gate(math.ceil(enough / 2)).found
    assert "degeneration" in gate(enough // 2 - 1).found
    assert f"train {enough} steps" in gate(8).fix
    assert refused_by(run_data.config(tmp_path / "run", waive={})).id == "preflight.token-budget"


@pytest.mark.parametrize(
    "text", ["preflight.token-budget", "preflight.token-budget= ", "preflight.nothing=because", ""]
)
def test_f32_a_waiver_needs_a_known_gate_and_a_reason(text: str) -> None:
    with pytest.raises(UsageRefusal) as refused:
        parse_waivers([text])
    assert refused.value.id == "config.waiver"


def test_f32_a_waiver_covers_its_own_gate_alone() -> None:
    failed = Gate("preflight.id-range", None, "FAIL", "x", "y", "z")
    (other,) = apply_waivers([failed], {"preflight.vocab-size": "why"})
    assert other.blocks
    (waived,) = apply_waivers([failed], {"preflight.id-range": "why"})
    assert not waived.blocks
    assert waived.as_record()["waiver"] == {"reason": "why"}
    (passed,) = apply_waivers([replace(failed, verdict="PASS")], {"preflight.id-range": "why"})
    assert passed.waiver is None


def test_f41_unknown_blocks_and_a_crashing_check_fails() -> None:
    def crash() -> Finding:
        raise ZeroDivisionError("planted")

    crashed = judge("preflight.id-range", crash)
    assert crashed.verdict == "FAIL"
    assert "planted" in crashed.found
    unknown = judge("preflight.id-range", lambda: Finding("UNKNOWN", "nothing", "something"))
    passed = judge("preflight.id-range", lambda: Finding("PASS", "x", "x"))
    with pytest.raises(Refusal):
        require_passed([passed, unknown], "run")
    require_passed([passed], "run")


def held_out(loss_nats: float) -> ValidationResult:
    rows = RowLosses(np.array([500 * loss_nats] * 2), np.array([500, 500]))
    return ValidationResult(loss_nats, None, 1000, "0" * 64, rows)


def test_f31_the_first_loss_lies_around_ln_v_on_both_sides() -> None:
    model, uniform = tiny_model(), math.log(VOCAB_SIZE)
    for loss in (uniform, uniform - 0.4, uniform + 0.4):
        assert check_fresh_loss(model, held_out(loss)).verdict == "PASS"
    for loss in (0.0008, -0.1, float("nan"), float("inf"), uniform - 0.6, uniform + 0.6, 40.0):
        assert check_fresh_loss(model, held_out(loss)).verdict == "FAIL"


def _real_gates(model: Transformer, **changes: Any) -> Finding:
    options: dict[str, Any] = {
        "accelerated_loss": summed_loss,
        "document_mask": True,
    }
    return check_gradients(model, random_batch(), **(options | changes))


def test_f05_weights_too_large_leave_the_band(run_data: RunData, tmp_path: Path) -> None:
    config = run_data.config(tmp_path / "run")
    inputs = open_inputs(config)
    model = Transformer(inputs.architecture)
    initialize(model, seed=1)
    batch = inputs.data.val.batch(torch.arange(4).numpy(), batch_size=4)

    def loss() -> float:
        tensors = (batch.input_ids_BT, batch.target_ids_BT, batch.document_numbers_BT)
        total = summed_loss(model, *(torch.from_numpy(array) for array in tensors)).sum()
        return float(total.detach()) / batch.num_counted_tokens

    assert check_fresh_loss(model, held_out(loss())).verdict == "PASS"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(30.0)
    assert check_fresh_loss(model, held_out(loss())).verdict == "FAIL"


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("model.embed_tokens.weight", 0.0),
        ("model.layers.1.mlp.down_proj.weight", 0.0),
        ("model.layers.0.input_layernorm.weight", float("nan")),
    ],
)
def test_f05_dead_or_broken_weights_are_seen_in_the_first_gradient(
    name: str, factor: float
) -> None:
    model = tiny_model()
    assert _real_gates(model).verdict == "PASS"
    with torch.no_grad():
        model.get_parameter(name).mul_(factor)
    finding = _real_gates(model)
    assert finding.verdict == "FAIL"
    assert "zero or not finite" in finding.found


def _scaled(*arguments: Any) -> torch.Tensor:
    loss = summed_loss(*arguments)
    return loss + 0.1 * (loss - loss.detach())


def _with_one_gradient_zeroed(*arguments: Any) -> torch.Tensor:
    model = arguments[0]
    model.get_parameter("model.layers.0.self_attn.k_proj.weight").register_hook(
        lambda gradient: gradient * (1e-9 if model.compute_dtype is torch.bfloat16 else 1.0)
    )
    return summed_loss(*arguments)


def _mask_off(model: Any, inputs: Any, targets: Any, documents: Any) -> torch.Tensor:
    everything = torch.ones(1, inputs.shape[1], inputs.shape[1]).bool()
    logits = seeing(model, everything)(inputs)
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="sum"
    )


@pytest.mark.parametrize("planted", [_scaled, _with_one_gradient_zeroed, _mask_off])
def test_f26_a_fast_path_that_differs_from_fp32_is_not_used(
    planted: Callable[..., torch.Tensor],
) -> None:
    def gate(loss_function: Callable[..., torch.Tensor]) -> Finding:
        model = tiny_model()
        with torch.no_grad():
            model.get_parameter("model.embed_tokens.weight").mul_(20.0)
        model.compute_dtype = torch.bfloat16
        return _real_gates(model, accelerated_loss=loss_function)

    assert gate(summed_loss).verdict == "PASS"
    finding = gate(planted)
    assert finding.verdict == "FAIL"
    assert "against eager fp32" in finding.found


def test_f26_eager_fp32_is_compared_with_all_logits_as_well() -> None:
    finding = _real_gates(tiny_model())
    assert finding.verdict == "PASS"
    assert "against eager fp32" in finding.found
    assert _real_gates(tiny_model(), accelerated_loss=_scaled).verdict == "FAIL"


def test_the_same_refusals_on_the_command_line(
    run_data: RunData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from apr.cli.main import run

    flags = run_data.flags(tmp_path / "run")
    flags[flags.index("--val-shard") + 1] = str(run_data.train)
    assert run(["pretrain", *flags, "--json"]) == 5
    answer = json.loads(capsys.readouterr().out)
    assert answer["refused"]["id"] == "preflight.val-overlap"
    assert answer["exit_code"] == 5
    assert run(["pretrain", *flags, "--dry-run", "--json"]) == 5
    answer = json.loads(capsys.readouterr().out)
    assert answer["may_start"] is False
    assert not (tmp_path / "run").exists()
    shutil.rmtree(tmp_path)
