"""preflight.init-loss: whether the model's loss before step 1 is the one its origin says.

A fresh model knows nothing, which is a number; an initial one knows what its file recorded, or at
least something. Each is a band with two ends: a loss that is too good is a leak.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from apr.convert.probes import find_special_ids, make_probes
from apr.model.init import undeclared_parameter
from apr.model.switches import in_plain_fp32
from apr.model.transformer import Transformer
from apr.train.gates import Finding
from apr.train.init_file import InitFile
from apr.train.parts import whole
from apr.train.step import SummedLoss
from apr.train.validation import ValidationResult

_FIX_FRESH = "the initial weights or the data are not what they should be; look at the first batch"
_FIX_INIT = (
    "the weights are not those that were measured, or this is not their kind of text: import the "
    "model again, check the tokenizer, or --waive preflight.init-loss=REASON"
)
# Upstream's bound for a continued model, and what no model of real text has been seen to reach.
_KNOWS_SOMETHING, _TOO_GOOD_NATS = 0.7, 0.1
_SAME_WEIGHTS_NATS, _ROUNDED_WEIGHTS_NATS = 0.02, 0.1
_SAME_PROBE_LOSS_NATS = 1e-3


def check_fresh_loss(model: Transformer, held_out: ValidationResult) -> Finding:
    """Before step 1 a fresh model knows nothing: its held-out loss lies around ln V.

    Logits of a fresh model have a small variance that grows with the width and raises the loss
    by half of itself; that, and half a nat, is the band's upper half. Below ln V by more than
    half a nat, the targets have leaked into the inputs. And every parameter is what a fresh one
    is, which a loss hardly shows.
    """
    uniform_nats = math.log(model.architecture.vocab_size)
    lower = uniform_nats - 0.5
    upper = uniform_nats + 0.5 + 0.5 * 0.02**2 * model.architecture.hidden_size
    # Of a model that is dealt out one parameter after the other is put together.
    weights = ((name, whole(parameter)) for name, parameter in model.named_parameters())
    problem = undeclared_parameter(model.architecture, weights)
    return Finding(
        "PASS" if lower <= held_out.loss_nats <= upper and problem is None else "FAIL",
        f"{held_out.loss_nats:.4f} nats over {held_out.num_tokens} tokens"
        + (f"; {problem}" if problem else ""),
        f"{lower:.4f} to {upper:.4f} (ln V is {uniform_nats:.4f}), and parameters as declared",
        _FIX_FRESH,
    )


def check_initial_loss(
    model: Transformer,
    init: InitFile,
    held_out: ValidationResult,
    *,
    through: Callable[[SummedLoss], SummedLoss] = lambda loss: loss,
) -> Finding:
    """An initial model has the loss that its file records, or one that knows something.

    A loss recorded on the same held-out set is compared in both directions; otherwise the loss
    lies between a tenth of a nat and 0.7 ln V. A file with the proof of its import has its loss on
    the proof's probes as well, which no held-out text can hide. `through` gathers the weights for a
    loss where they are dealt out.
    """
    loss_nats = held_out.loss_nats
    recorded = init.recorded_loss
    found = f"{loss_nats:.4f} nats over {held_out.num_tokens} tokens"
    if recorded is not None and recorded.set_sha256 == held_out.set_sha256:
        margin = _ROUNDED_WEIGHTS_NATS if init.is_rounded else _SAME_WEIGHTS_NATS
        passed = abs(loss_nats - recorded.loss_nats) <= margin
        expected = f"{recorded.loss_nats:.4f} within {margin:g}, as the file records on this set"
    else:
        upper = _KNOWS_SOMETHING * math.log(model.architecture.vocab_size)
        passed = _TOO_GOOD_NATS <= loss_nats <= upper
        expected = f"{_TOO_GOOD_NATS:g} to {upper:.4f} (0.7 ln V); no loss on this set is recorded"
    probes = _compare_probes(model, init, through(_probe_loss))
    return Finding(
        "PASS" if passed and probes.agrees else "FAIL",
        f"{found}; {probes.found}",
        expected + (f"; {probes.expected}" if probes.expected else ""),
        _FIX_INIT,
        upstream_id="FALSIFY-APR-PRETRAIN-INIT-FINETUNE-003",
    )


@dataclass(frozen=True)
class _OnProbes:
    agrees: bool
    found: str
    expected: str = ""


def _compare_probes(model: Transformer, init: InitFile, loss: SummedLoss) -> _OnProbes:
    """The loss on the probes of the import, against the one that the proof recorded there."""
    proof = (init.proof or {}).get("reference")
    if not isinstance(proof, dict) or not isinstance(proof.get("loss_nats"), float):
        return _OnProbes(True, "no proof of an import to compare with")
    architecture = model.architecture
    probes = make_probes(
        vocab_size=architecture.vocab_size,
        max_position_embeddings=architecture.max_position_embeddings,
        special_ids=find_special_ids(init.hf_config, init.tokenizer),
    )
    if probes.sha256 != proof.get("probe_sha256"):
        return _OnProbes(True, "the probes of the import cannot be made again")
    ids_BT = torch.from_numpy(probes.ids_BT).to(model.head_weight.device)
    loss_nats, recorded_nats = _mean_loss(model, ids_BT, loss), proof["loss_nats"]
    return _OnProbes(
        abs(loss_nats - recorded_nats) <= _SAME_PROBE_LOSS_NATS,
        f"{loss_nats:.4f} on the import's probes",
        f"{recorded_nats:.4f} within {_SAME_PROBE_LOSS_NATS:g} there",
    )


@torch.no_grad()
def _mean_loss(model: Transformer, ids_BT: Tensor, loss: SummedLoss) -> float:
    """In fp32, whatever the run computes in: the proof did."""
    with in_plain_fp32(model):
        total_nats = num_tokens = 0
        for ids_1T in ids_BT.split(1):
            total_nats += float(loss(model, ids_1T[:, :-1], ids_1T[:, 1:], None))
            num_tokens += ids_1T.shape[1] - 1
        return total_nats / num_tokens


def _probe_loss(model: Transformer, ids_1T: Tensor, targets_1T: Tensor, _: Tensor | None) -> Tensor:
    return functional.cross_entropy(model(ids_1T)[0], targets_1T[0], reduction="sum")
