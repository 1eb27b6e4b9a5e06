"""Do blocks that are computed again for their gradient give that of blocks that are kept."""

from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from apr.model.transformer import Transformer
from apr.train.batches import Batch
from apr.train.gates import Finding
from apr.train.gradients_gate import Gradients, measure_gradients
from apr.train.selftest.distances import LARGEST_GPU_DISTANCE, differing, farthest
from apr.train.selftest.small_run import size_of
from apr.train.step import SummedLoss

_FIX = "run with --no-activation-checkpointing and smaller micro-batches, and report this"


def check_recomputed(
    model: Transformer, batch: Batch, *, document_mask: bool, summed_loss: SummedLoss
) -> Finding:
    """Loss and every gradient with blocks computed twice, against those with activations kept.

    With the run's own loss, compiled where it compiles. Counted as well: that each block was
    computed twice, and once where it was kept; without that nothing was compared.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    expected = "every block twice and once, the same " + (
        "bits" if on_cpu else f"loss and gradients within {LARGEST_GPU_DISTANCE:g}"
    )
    wanted = model.model.recomputes_blocks
    try:
        found: list[Gradients] = []
        passes: list[list[int]] = []
        for recomputed in (True, False):
            model.model.recomputes_blocks = recomputed
            with _counting_passes(model) as counts:
                found.append(
                    measure_gradients(model, batch, summed_loss, document_mask=document_mask)
                )
            passes.append(counts)
    finally:
        model.model.recomputes_blocks = wanted
    again, kept = found
    num_blocks = len(model.model.layers)
    if passes != [[2] * num_blocks, [1] * num_blocks]:
        counted = f"blocks were computed {passes[0]} times, and {passes[1]} times where kept"
        return Finding("UNKNOWN", counted, expected, "report this: nothing was recomputed")
    apart_nats = abs(again.loss_nats - kept.loss_nats)
    distance = farthest(again.tensors, kept.tensors)
    if on_cpu:
        agrees = apart_nats == 0.0 and not differing(again.tensors, kept.tensors)
    else:
        agrees = max(apart_nats, distance.value) <= LARGEST_GPU_DISTANCE
    return Finding(
        "PASS" if agrees else "FAIL",
        f"{num_blocks} blocks computed twice; loss within {apart_nats:.1e} nats, "
        f"{distance.num_compared} gradients within {distance}, over {size_of(batch)}",
        expected,
        _FIX,
    )


@contextmanager
def _counting_passes(model: Transformer) -> Generator[list[int]]:
    """How often each block is computed inside, with a gradient or for one."""
    counts = [0] * len(model.model.layers)

    def count(number: int, *_: Any) -> None:
        counts[number] += torch.is_grad_enabled()

    handles = [
        block.register_forward_pre_hook(partial(count, number))
        for number, block in enumerate(model.model.layers)
    ]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()
