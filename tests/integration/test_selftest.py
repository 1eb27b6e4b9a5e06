"""`apr selftest` as a command: its verdicts, what does not apply, and a skipped step replayed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.run_data import VOCAB_SIZE, RunData
from tests.unit.train.batch_fixture import random_batch
from tests.unit.train.selftest.planted import model_with_biases

from apr.cli.main import run as apr
from apr.errors import Refusal
from apr.jobs.selftest import Selftest, selftest
from apr.model.transformer import Transformer
from apr.train.batches import Batch
from apr.train.gates import UPSTREAM_IDS, parse_waivers
from apr.train.loss import summed_loss
from apr.train.replay import replay_skipped
from apr.train.skipped_step import SkippedFacts, load_skipped_step, save_skipped_step
from apr.train.step import accumulate_batch

PROOFS = [
    "selftest.causal-leak",
    "selftest.document-leak",
    "selftest.cross-entropy",
    "selftest.linear-cross-entropy",
    "selftest.compiled",
    "selftest.bf16",
    "selftest.activation-checkpointing",
    "selftest.parameters-change",
    "selftest.micro-batches",
    "selftest.optimizer",
    "selftest.overfit",
    "selftest.save-load",
    "selftest.resume",
]


def files_below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


@pytest.fixture(scope="module")
def proven(run_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Selftest:
    """A bf16 run in two micro-batches, whose blocks are computed again."""
    run_dir = tmp_path_factory.mktemp("proven") / "run"
    before = torch.get_rng_state()
    result = selftest(
        run_data.config(
            run_dir,
            precision="bf16",
            grad_accum=2,
            seq_length=64,
            activation_checkpointing=True,
        )
    )
    assert torch.get_rng_state().equal(before)
    assert files_below(run_dir.parent) == []
    return result


def test_every_proof_has_a_verdict_or_a_reason(proven: Selftest) -> None:
    judged = {gate.id for gate in proven.gates}
    assert judged | {*proven.proofs.not_applicable} == {*PROOFS}
    assert not judged & {*proven.proofs.not_applicable}
    assert [gate.id for gate in proven.gates] == [id for id in PROOFS if id in judged]
    assert {gate.id: gate.found for gate in proven.gates if gate.verdict != "PASS"} == {}
    assert proven.passed
    assert proven.proofs.not_applicable == {
        "selftest.compiled": "the run computes with eager kernels"
    }


def test_how_much_was_compared_is_said(proven: Selftest) -> None:
    found = {gate.id.removeprefix("selftest."): gate.found for gate in proven.gates}
    assert "2 rows of 64 tokens" in found["causal-leak"]
    assert "2 blocks computed twice" in found["activation-checkpointing"]
    assert "20 parameters" in found["micro-batches"]
    assert "4 rows of 64 tokens" in found["micro-batches"]
    assert "2 + 2 steps of 2 rows of 64 tokens: 80 tensors" in found["resume"]


def test_nothing_judged_is_no_success(proven: Selftest) -> None:
    assert not replace(proven, proofs=replace(proven.proofs, gates=[])).passed


def test_proofs_cannot_be_waived() -> None:
    assert not {*PROOFS} & {*UPSTREAM_IDS}
    with pytest.raises(Refusal, match=r"config\.waiver"):
        parse_waivers(["selftest.causal-leak=I know"])


def test_an_id_without_a_row_is_refused_before_anything_is_proven(
    run_data: RunData, tmp_path: Path
) -> None:
    with pytest.raises(Refusal) as refused:
        selftest(run_data.config(tmp_path / "run", vocab_size=300))
    assert refused.value.id == "preflight.id-range"


def test_the_command(run_data: RunData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f'dataset = "{run_data.train}"\nval_shard = "{run_data.val}"\n'
        f'tokenizer = "{run_data.tokenizer}"\nrun_dir = "{tmp_path / "run"}"\narch = "tiny"\n'
        'seq_length = 32\nbatch_size = 2\nnum_steps = 8\neval_every = 8\ndevice = "cpu"\n'
    )
    flags = ["--config", str(config), "--precision", "fp32", "--no-compile"]
    assert apr(["selftest", *flags]) == 0
    told = capsys.readouterr().out
    assert "PASS     selftest.resume: " in told
    assert "10 of 10 proofs passed" in told
    assert "not applicable: selftest.bf16: the run computes in fp32" in told
    assert told.endswith(f"next:\n  apr pretrain {' '.join(flags)}\n")
    assert files_below(tmp_path) == ["run.toml"]
    # At a rate that fp32 rounds away the norms would never be learnt.
    assert apr(["selftest", *flags, "--lr", "1e-9", "--no-document-mask", "--json"]) == 5
    said = json.loads(capsys.readouterr().out)
    failed = [gate["id"] for gate in said["gates"] if gate["verdict"] != "PASS"]
    assert "selftest.parameters-change" in failed
    assert said["passed"] is False
    assert len(said["gates"]) == 9
    assert "on purpose" in said["not_applicable"]["selftest.document-leak"]
    assert len(said["not_applicable"]) == 4


def facts(loss_nats: float, grad_norm: float, **changes: Any) -> SkippedFacts:
    values: dict[str, Any] = {"step": 3, "rows": [0, 1, 2, 3], "precision": "bf16"}
    values |= {"document_mask": True, "grad_accum": 2, "what": "planted"}
    return SkippedFacts(loss_nats=loss_nats, grad_norm=grad_norm, **values | changes)


def skipped(directory: Path, model: Transformer, found: SkippedFacts) -> Path:
    save_skipped_step(
        directory,
        model.architecture,
        dict(model.named_parameters()),
        None,
        random_batch(),
        found,
        [{"what": "planted"}],
    )
    return directory


def overflowing() -> Transformer:
    """Finite weights whose second layer overflows: 1e30 times 1e30 is infinite in fp32 too."""
    model = model_with_biases(VOCAB_SIZE)
    with torch.no_grad():
        model.model.layers[1].mlp.gate_proj.weight.mul_(1e30)
        model.model.layers[1].mlp.up_proj.weight.mul_(1e30)
    return model


def test_a_step_that_overflowed_is_computed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = skipped(tmp_path / "s", overflowing(), facts(float("nan"), float("nan")))
    assert apr(["selftest", "--replay", str(directory), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["reproduced"] is True
    assert said["recorded"] == {"loss_nats": "nan", "grad_norm": "nan", "precision": "bf16"}
    assert [each["precision"] for each in said["computed"]] == ["bf16", "fp32"]
    for each in said["computed"]:
        assert each["first_not_finite"] == "model.layers.1.mlp"
        assert "model.layers.1.mlp.up_proj.weight" in each["parameters_not_finite"]
    assert apr(["selftest", "--replay", str(directory)]) == 0
    told = capsys.readouterr().out
    assert "the first output that is not finite: model.layers.1.mlp" in told
    assert "the recorded finding was reproduced" in told


def measured(model: Transformer, batch: Batch) -> tuple[float, float]:
    """Loss and gradient norm as a step in fp32 has them."""
    loss_nats = accumulate_batch(model, batch, summed_loss, document_mask=True, num_parts=2)
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])  # pyright: ignore
    return loss_nats, float(norm)


@pytest.mark.parametrize(
    ("change", "reproduced"),
    [
        (lambda loss, norm: (loss, norm), True),
        (lambda loss, norm: (loss, 1.2 * norm), False),
        (lambda loss, norm: (loss + 0.2, norm), False),
        (lambda loss, norm: (loss, float("inf")), False),
        (lambda loss, norm: (float("nan"), norm), False),
    ],
)
def test_a_finite_step_is_held_against_its_record(
    tmp_path: Path, change: Callable[[float, float], tuple[float, float]], reproduced: bool
) -> None:
    model = model_with_biases(VOCAB_SIZE)
    found = facts(*change(*measured(model, random_batch())), precision="fp32")
    replayed = replay_skipped(load_skipped_step(skipped(tmp_path / "s", model, found)))
    assert replayed.reproduced is reproduced
    (computed,) = replayed.computed
    assert computed.first_not_finite is None
    assert computed.parameters_not_finite == []


def test_what_only_bf16_cannot_hold_is_finite_in_fp32(tmp_path: Path) -> None:
    model = model_with_biases(VOCAB_SIZE)
    # It rounds to infinity in bf16; nothing reads it, but infinity times zero is no number.
    with torch.no_grad():
        model.model.layers[0].self_attn.v_proj.bias[0] = 3.397e38
        model.model.layers[0].self_attn.o_proj.weight[:, [0, 16]] = 0.0
    directory = skipped(tmp_path / "s", model, facts(float("nan"), float("nan")))
    replayed = replay_skipped(load_skipped_step(directory))
    assert replayed.reproduced
    assert replayed.computed[0].first_not_finite == "model.layers.0.self_attn"
    assert replayed.computed[1].first_not_finite is None


def test_replay_refuses_damage_and_other_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = skipped(tmp_path / "s", model_with_biases(VOCAB_SIZE), facts(4.0, 1.0))
    assert apr(["selftest", "--replay", str(directory), "--lr", "1"]) == 2
    assert "no option of a run" in capsys.readouterr().err
    assert apr(["selftest", "--replay", str(directory), "--device", "cpu", "--quiet"]) == 5
    assert "not reproduced" in capsys.readouterr().out
    (directory / "batch.safetensors").unlink()
    assert apr(["selftest", "--replay", str(directory)]) == 4
    assert "skipped.damaged" in capsys.readouterr().err
    assert apr(["selftest", "--replay", str(tmp_path / "nowhere")]) == 3
