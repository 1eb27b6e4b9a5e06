"""What ranks do in the tests: each function runs on every rank, and returns what JSON can hold."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.run_data import RunData

from apr.architecture import Architecture, preset
from apr.errors import Interrupted, Refusal
from apr.jobs.pretrain import pretrain
from apr.jobs.record import first_record
from apr.jobs.resume import resume
from apr.jobs.shared_directory import require_shared
from apr.jobs.sitting import SILENT, Listener, sit
from apr.model.init import fresh_weights, initialize
from apr.model.transformer import Transformer
from apr.train.agreement import digest_of_tensors, digest_of_text, require_agreement
from apr.train.batches import IGNORED_TARGET, Batch
from apr.train.inputs import open_inputs
from apr.train.loss import summed_loss
from apr.train.optimizer import build_optimizer
from apr.train.parts import own_part, whole
from apr.train.prepare import Judgement, PreparedRun, prepare
from apr.train.ranks import Ranks
from apr.train.spread import spread
from apr.train.start import Weights
from apr.train.step import train_step
from apr.train.train_state import TrainState
from apr.train.units_gathered import ONE_UNIT_BYTES
from apr.train.validation import subset, validate

# Longer than a checkpoint of a small model takes.
_SLOW_DISK_S = 2.0


def said(refusal: Refusal) -> dict[str, Any]:
    return {"id": refusal.id, "where": refusal.where, "found": refusal.found}


def answers(ranks: Ranks) -> dict[str, Any]:
    """What the questions give."""
    return {
        "total": ranks.total(np.array([1.5, ranks.rank])).tolist(),
        "any": ranks.any(ranks.rank == 1, False),
        "gathered": ranks.gathered([ranks.rank, 2**62]),
        "same": ranks.same_as_first({"rank": ranks.rank, "text": "ä"}),
    }


def agree(ranks: Ranks, *, fault: str | None) -> dict[str, Any] | None:
    """Compare a small state after a fault on the last rank; the refusal, or nothing."""
    is_faulty = ranks.rank == ranks.world_size - 1
    model = Transformer(preset("tiny", tokenizer_vocab_size=64))
    initialize(model, seed=1)
    if fault == "one ulp" and is_faulty:
        weights = model.model.layers[1].mlp.up_proj.weight.detach().view(-1)  # pyright: ignore
        weights[3] = torch.nextafter(weights[3], torch.tensor(1e9))
    if fault == "two weights exchanged" and is_faulty:
        weights = model.head_weight.detach().view(-1)
        weights[5], weights[6] = float(weights[6]), float(weights[5])
    rate = 1e-3 + (1e-12 if fault == "rate" and is_faulty else 0.0)
    rows = [4, 2] if fault == "rows" and is_faulty else [2, 4]
    try:
        require_agreement(
            ranks,
            7,
            {
                "the parameters": digest_of_tensors(model.parameters()),
                "the learning rate": digest_of_text(str(rate)),
                "the next rows": digest_of_text(str(rows)),
            },
        )
    except Refusal as refusal:
        return said(refusal)
    return None


def share_a_directory(ranks: Ranks, *, directories: list[str]) -> dict[str, Any] | None:
    """Look for the first rank's record, each rank in the directory that is its own; the refusal."""
    run_dir = Path(directories[ranks.rank])
    if ranks.is_first:
        (run_dir / "run.json").write_text("of this run")
    ranks.wait()
    try:
        require_shared(run_dir, ranks, patience_s=0.2)
    except Refusal as refusal:
        return said(refusal)
    return None


def start_apart(ranks: Ranks, *, root: str, kind: str, fault: str | None) -> dict[str, Any] | None:
    """Spread a model of which the last rank has other weights; the refusal, or nothing."""
    is_faulty = ranks.rank == ranks.world_size - 1

    def weights(architecture: Architecture) -> Weights:
        for name, tensor in fresh_weights(architecture, seed=42):
            if fault == "read" and is_faulty and name == "model.embed_tokens.weight":
                tensor[0, 0] += 1e-6
            yield name, tensor

    run = prepared(ranks, root, kind, weights=weights)
    if fault == "held" and is_faulty:
        own_part(run.model.head_weight.detach())[0][0, 0] += 1e-6
    try:
        spread(run)
    except Refusal as refusal:
        return said(refusal)
    return None


def prepared(
    ranks: Ranks,
    root: str,
    kind: str,
    *,
    weights: Callable[[Architecture], Weights] | None = None,
    **changes: Any,
) -> PreparedRun:
    """A run of a small corpus, not yet spread; `fsdp by block` as if its model were large."""
    changes |= {"data_parallel": kind.removesuffix(" by block")}
    config = RunData(Path(root)).config(Path(root) / "nowhere", **changes)
    inputs = open_inputs(config)
    return prepare(
        config,
        inputs,
        ranks=ranks,
        notify=lambda _text: None,
        weights=weights(inputs.architecture) if weights else None,
        one_unit_bytes=0 if kind.endswith("by block") else ONE_UNIT_BYTES,
    )


def step_of_unequal_rows(
    ranks: Ranks,
    *,
    root: str,
    kind: str,
    counted: list[int],
    num_micro_batches: int = 1,
    mean_of_means: bool = False,
) -> dict[str, Any]:
    """One step on rows of which each counts so many targets; what it found and what it changed."""
    run = spread(prepared(ranks, root, kind))
    rng = np.random.default_rng(0)
    inputs, targets = (rng.integers(256, size=(len(counted), 16)) for _ in range(2))
    for row, count in enumerate(counted):
        targets[row, count:] = IGNORED_TARGET
    rows = Batch(inputs, targets, np.zeros_like(inputs), tuple(range(len(counted))))
    mine = rows.split(ranks.world_size)[ranks.rank]
    loss = run.shared_loss or run.summed_loss
    # Each rank's mean over its own tokens, averaged: what divides by the wrong number.
    factor = sum(counted) / (mine.num_counted_tokens * ranks.world_size) if mean_of_means else 1.0
    result = train_step(
        run.model,
        build_optimizer(run.model, run.config),
        mine.split(num_micro_batches),
        step=1,
        learning_rate=1e-2,
        max_grad_norm=1.0,
        document_mask=True,
        summed_loss=lambda *batch: factor * loss(*batch),
        exchange=run.exchange,
    )
    weights = torch.cat([whole(each).flatten() for each in run.model.parameters()])
    return {
        "loss_nats": result.loss_nats,
        "grad_norm": result.grad_norm,
        "num_tokens": result.num_tokens,
        "weights": weights.detach().double()[::97].tolist(),
    }


def places_of_gradients(ranks: Ranks, *, root: str, let_go: bool = False) -> dict[str, Any]:
    """Where gradients lie before the last micro-batch of a second step, and at the end of it."""
    run = spread(prepared(ranks, root, "ddp"))
    exchange = replace(run.exchange, keeps_gradients=run.exchange.keeps_gradients and not let_go)
    rng, optimizer = np.random.default_rng(0), build_optimizer(run.model, run.config)
    before_last: list[list[int]] = []

    def places() -> list[int]:
        return [p.grad.data_ptr() for p in run.model.parameters() if p.grad is not None]

    def loss(*batch: Any) -> torch.Tensor:
        before_last.append(places())
        return (run.shared_loss or run.summed_loss)(*batch)

    for step in (1, 2):
        before_last.clear()
        rows = [rng.integers(256, size=(4, 16)) for _ in range(2)]
        batch = Batch(*rows, np.zeros_like(rows[0]), tuple(range(4)))
        train_step(
            run.model, optimizer, batch.split(2), step=step, learning_rate=1e-2, max_grad_norm=1.0,
            document_mask=True, summed_loss=loss, exchange=exchange,
        )  # fmt: skip
    return {"before the last": before_last[-1], "at the end": places()}


def held_out_loss(ranks: Ranks, *, root: str, batch_size: int, max_tokens: int) -> dict[str, Any]:
    """The loss of one model on held-out rows of a run's data."""
    run = prepared(ranks, root, "ddp")
    rows, tokenizer = run.inputs.data.val, run.inputs.tokenizer
    result = validate(
        run.model,
        subset(rows, tokenizer, max_tokens=max_tokens),
        batch_size=batch_size,
        document_mask=True,
        summed_loss=summed_loss,
        ranks=ranks,
    )
    return {
        "loss_nats": result.loss_nats,
        "num_tokens": result.num_tokens,
        "set_sha256": result.set_sha256,
    }


def killed_run(ranks: Ranks, *, root: str, run_dir: str, rank: int, after: int) -> Any:
    """Train until one rank is killed; what the others are told."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        if ranks.rank == rank and asked > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return False

    config = RunData(Path(root)).config(Path(run_dir), eval_every=8, checkpoint_every=2)
    try:
        pretrain(config, ranks=ranks, listener=Listener(should_stop=should_stop))
    except Refusal as refusal:
        return said(refusal)
    return None


def stopped_run(ranks: Ranks, *, root: str, run_dir: str, kind: str, after: int) -> Any:
    """Train until the second rank alone is asked to stop; the word it ends with."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        # Once before step 1, then before each.
        return ranks.rank == 1 and asked > after + 1

    config = RunData(Path(root)).config(
        Path(run_dir), grad_accum=2, checkpoint_every=2, data_parallel=kind, eval_tokens=None
    )
    try:
        pretrain(config, ranks=ranks, listener=Listener(should_stop=should_stop))
    except Interrupted as ending:
        return ending.message
    return None


def drifting_run(ranks: Ranks, *, root: str, run_dir: str, at_call: int | None) -> Any:
    """Train while one weight of the last rank moves by one ulp; the refusal, or nothing."""
    run = prepared(ranks, root, "ddp", checkpoint_every=2, eval_every=8)
    run = spread(replace(run, config=run.config.model_copy(update={"run_dir": Path(run_dir)})))
    shared, calls = run.shared_loss, 0
    assert shared is not None

    def drifting(model: Transformer, *batch: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == at_call and ranks.rank == ranks.world_size - 1:
            weights = model.head_weight.detach().view(-1)
            weights[0] = torch.nextafter(weights[0], torch.tensor(1e9))
        return shared(model, *batch)

    run = replace(run, shared_loss=drifting)
    record = first_record(run, [], Judgement([], None), None)
    try:
        sit(run, record, build_optimizer(run.model, run.config), TrainState(), listener=SILENT)
    except Refusal as refusal:
        return said(refusal)
    return None


def resumed_run(ranks: Ranks, *, run_dir: str, late: str | None) -> Any:
    """Go on with other moments; what ranks of an earlier sitting leave too late turns up then.

    The second rank has a slow disk, so that its own share comes after that one.
    """
    is_late = False

    def should_stop() -> bool:
        nonlocal is_late
        if ranks.is_first and late and not is_late:
            is_late = True
            shutil.copytree(late, Path(run_dir) / "checkpoints" / Path(late).name)
        return False

    def slowly(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal is_late
        if event == "os.mkdir" and str(arguments[0]).endswith(".shares") and not is_late:
            is_late = True
            time.sleep(_SLOW_DISK_S)

    if late and ranks.rank == 1:
        sys.addaudithook(slowly)
    changes = {"adam_beta1": 0.8}
    try:
        resume(
            Path(run_dir), changes=changes, ranks=ranks, listener=Listener(should_stop=should_stop)
        )
    except Refusal as refusal:
        return said(refusal)
    return None
