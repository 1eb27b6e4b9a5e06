"""Walks through a training step and what surrounds it, on a GPU that is not there.

    python -m tests.unit.train.walks_on_a_fake_gpu

Prints an object: for each walk, how it ended and the places that waited for the device.
"""

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tests.fake_gpu import GPU, fake_gpu, on_the_gpu
from tests.faults.test_f22_validation_drift import SMALL, held_out
from tests.unit.train.batch_fixture import VOCAB_SIZE, random_batch
from torch import Tensor

from apr.architecture import preset
from apr.model.attention import causal_mask, masked
from apr.model.generate import generate
from apr.model.transformer import Transformer
from apr.train.acceleration import Acceleration
from apr.train.agreement import digest_of_tensors
from apr.train.attention_choice import WAYS
from apr.train.gradients_gate import check_gradients
from apr.train.guards import require_finite_weights
from apr.train.loss import masked_hidden_states, summed_loss
from apr.train.optimizer import build_optimizer, load_state_tensors
from apr.train.resolved_config import resolve_config
from apr.train.snapshot import SnapshotMemory, take_snapshot
from apr.train.step import SummedLoss, train_step
from apr.train.train_state import TrainState
from apr.train.validation import validate

_CPU = torch.device("cpu")
# Built before anything is fake, which modules are not made for; each walk gives it new parameters.
_MODEL = Transformer(preset("tiny", tokenizer_vocab_size=max(VOCAB_SIZE, SMALL.vocab_size)))
_MICRO_BATCHES = 2
_PARTS = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer")


def main() -> None:
    """All walks, one after the other."""
    ends: dict[str, Any] = {}
    for name, walk in walks().items():
        with fake_gpu() as places:
            try:
                walk(places)
                ended = "done"
            except Exception as err:
                ended = f"{type(err).__name__}: {str(err).partition(chr(10))[0]:.200}"
        ends[name] = {"ended": ended, "waits": sorted(places)}
    print(json.dumps(ends, indent=1))


def walks() -> dict[str, Callable[[list[str]], None]]:
    """What is walked through, by name; each clears the places of what only prepares it."""
    steps: dict[str, dict[str, Any]] = {
        **{
            f"step: {way}, {'documents' if mask else 'whole rows'}": {
                "attention": way,
                "document_mask": mask,
            }
            for way in WAYS
            for mask in ((True, False) if way in ("flash", "varlen") else (True,))
        },
        "step: muon": {"optimizer": "muon"},
        "step: recomputed": {"recomputes": True},
        "planted: a factor on the CPU": {"loss": partial(summed_loss, hidden_states=_times_cpu)},
        "planted: a mask on the CPU": {"way": _masked_on_the_cpu},
        "planted: a loss that is looked at": {"loss": _looked_at},
    }
    rows, chosen = random_batch(), held_out(Path(tempfile.mkdtemp()))
    return {
        **{name: partial(_step, **options) for name, options in steps.items()},
        "snapshot": _snapshot,
        "validation": lambda _: _discarded(
            validate(
                _model(), chosen, batch_size=4, document_mask=True,
                summed_loss=summed_loss,
            )
        ),
        "gradients gate": lambda _: _discarded(
            check_gradients(
                _model("varlen"), rows, accelerated_loss=summed_loss, document_mask=True
            )
        ),
        "finite weights": lambda _: require_finite_weights(_model(), step=1),
        "agreement": lambda _: _discarded(digest_of_tensors(_model().parameters())),
        **{
            f"generation: {name}": lambda _, o=options: _discarded(
                generate(_model(), [1, 2, 3], num_token_ids=VOCAB_SIZE, max_new_tokens=2, **o)
            )
            for name, options in {
                "greedy": {},
                "sampled": {"temperature": 0.7, "top_k": 5, "top_p": 0.9},
            }.items()
        },
    }  # fmt: skip


def _step(
    places: list[str],
    *,
    attention: str = "pieces",
    document_mask: bool = True,
    optimizer: str = "adamw",
    recomputes: bool = False,
    loss: SummedLoss = summed_loss,
    way: Callable[..., Any] | None = None,
) -> tuple[Transformer, torch.optim.Optimizer]:
    """Two steps, of which the second is what every later one is like."""
    nowhere = Path("nowhere")
    config = resolve_config(
        {"dataset": nowhere, "tokenizer": nowhere, "run_dir": nowhere, "optimizer": optimizer}
    )
    model = _model(attention)
    model.attention = way or model.attention
    model.model.recomputes_blocks = recomputes
    chosen = build_optimizer(model, config)
    for step in (1, 2):
        places.clear()
        train_step(
            model,
            chosen,
            random_batch().split(_MICRO_BATCHES),
            step=step,
            learning_rate=1e-3,
            max_grad_norm=1.0,
            document_mask=document_mask,
            summed_loss=loss,
        )
    return model, chosen


def _snapshot(places: list[str]) -> None:
    """A copy is taken, taken again into the same memory, and put back."""
    model, optimizer = _step(places)
    state = TrainState(step=2, tokens_seen=1)
    memory = SnapshotMemory()
    take_snapshot(model, optimizer, state, memory=memory)
    again = take_snapshot(model, optimizer, state, memory=memory)
    for copies in (again.weights, again.share.tensors):
        assert {tensor.device for tensor in copies.values()} == {_CPU}
    kept = {name: copy for name, copy in again.share.tensors.items() if name.endswith(_PARTS)}
    load_state_tensors(model, optimizer, kept)
    assert {part.device for state in optimizer.state.values() for part in state.values()} == {GPU}


def _model(attention: str = "pieces") -> Transformer:
    Acceleration(GPU, torch.bfloat16, False, (), attention).apply_to(_MODEL)
    return on_the_gpu(_MODEL)


def _times_cpu(model: Transformer, ids_BT: Tensor, documents_BT: Tensor | None) -> Tensor:
    x_BTD = masked_hidden_states(model, ids_BT, documents_BT)
    return x_BTD * torch.ones(x_BTD.shape[-1], dtype=x_BTD.dtype)


def _masked_on_the_cpu(x_BTD: Tensor, _documents_BT: Tensor | None) -> Any:
    return masked(causal_mask(0, x_BTD.shape[1], device=_CPU))


def _looked_at(*arguments: Any) -> Tensor:
    losses_B = summed_loss(*arguments)
    assert bool((losses_B >= 0).all())
    return losses_B


def _discarded(_result: object) -> None:
    pass


if __name__ == "__main__":
    main()
