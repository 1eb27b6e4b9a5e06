"""What ranks that each hold a part of a model do in the tests, and what they held meanwhile."""

import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tests.ranks.checks import said
from tests.run_data import RunData
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from apr.architecture import Architecture, preset
from apr.convert.probes import find_special_ids, make_probes
from apr.errors import Refusal
from apr.model.transformer import Transformer
from apr.train.checkpoint import weights_of
from apr.train.device_memory import DeviceMemory
from apr.train.division import divided
from apr.train.gradient_sketch import measure_sketches, sketch
from apr.train.gradients_gate import measure_gradients
from apr.train.guards import require_finite_weights
from apr.train.init_file import read_init
from apr.train.inputs import open_inputs
from apr.train.loss import summed_loss
from apr.train.optimizer import build_optimizer
from apr.train.parts import own_part
from apr.train.prepare import PreparedRun, judge_gradients, judge_model, prepare
from apr.train.ranks import Ranks
from apr.train.spread import spread
from apr.train.start import Weights
from apr.train.step import SummedLoss, train_step
from apr.train.units_gathered import ONE_UNIT_BYTES, units_of

SEED = 42


def deep(tiny: Architecture) -> Architecture:
    """A shape most of whose weights are in its blocks, none of which is much of the whole."""
    return replace(tiny, hidden_size=128, intermediate_size=352, num_hidden_layers=8)


def prepared(
    ranks: Ranks,
    root: str,
    *,
    source: str = "fresh",
    kind: str = "fsdp",
    is_deep: bool = False,
    by_block: bool = True,
    **changes: Any,
) -> PreparedRun:
    """A run whose weights come from there; `whole first` builds the model before it is dealt out.

    A source that is a path is an initial file, or the directory of a checkpoint.
    """
    is_init = source.endswith(".apr")
    options: dict[str, Any] = {"data_parallel": kind, "seed": SEED} | changes
    if is_init:
        options |= {"init": Path(source), "arch": None}
    config = RunData(Path(root)).config(Path(root) / "nowhere", **options)
    init = read_init(Path(source)) if is_init else None
    inputs = open_inputs(config, init=init, verify=False)
    if is_deep and init is None:
        inputs = replace(inputs, architecture=deep(inputs.architecture))
    weights: Weights | None = None
    if source == "whole first":
        plain = prepare(config, inputs, notify=lambda _text: None)
        weights = plain.model.named_parameters()
    elif not is_init and source != "fresh":
        weights = weights_of(Path(source), inputs.architecture)
    return prepare(
        config,
        inputs,
        ranks=ranks,
        notify=lambda _text: None,
        weights=weights,
        one_unit_bytes=0 if by_block else ONE_UNIT_BYTES,
    )


class Peak(TorchDispatchMode):
    """The most bytes that tensors made within had at once, whoever held them: a context manager.

    Looked at whenever an operation has made a large one.
    """

    _LARGE = 1 << 15

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0
        self._made: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = [
            # Of a tensor that is dealt out, what is here.
            getattr(each, "_local_tensor", each)
            for each in tree_leaves(made)
            if isinstance(each, Tensor) and not each.is_meta
        ]
        self._made += map(weakref.ref, tensors)
        if any(each.untyped_storage().nbytes() >= self._LARGE for each in tensors):
            self._look()
        return made

    def _look(self) -> None:
        living = [(ref, tensor) for ref in self._made if (tensor := ref()) is not None]
        self._made = [ref for ref, _ in living]
        storages = [tensor.untyped_storage() for _, tensor in living]
        sizes = {storage._cdata: storage.nbytes() for storage in storages}
        self.num_bytes = max(self.num_bytes, sum(sizes.values()))


def held(ranks: Ranks, *, root: str, source: str, by_block: bool) -> dict[str, Any]:
    """Bytes of weights on this rank, and the most it had while it built, judged and stepped."""
    # What torch sets up once, with a model that is gone afterwards.
    few: dict[str, Any] = {"seq_length": 8, "eval_tokens": 32}
    judge_gradients(prepared(ranks, root, **few))
    with Peak() as building:
        run = prepared(ranks, root, source=source, is_deep=True, by_block=by_block, **few)
    with Peak() as judging:
        gate = judge_model(run, held_out=run.periodic_set).gates[-1]
    with Peak() as starting:
        run = spread(run)
    optimizer = build_optimizer(run.model, run.config)
    with Peak() as stepping:
        step(run, optimizer, num_micro_batches=1)
    # The moments are there now, and the gradients are not.
    run.model.zero_grad(set_to_none=True)
    with Peak() as accumulating:
        step(run, optimizer, num_micro_batches=2)
    parts = [own_part(each)[0] for each in run.model.parameters()]
    units = units_of(run.inputs.architecture, one_unit_bytes=0)
    return {
        "whole": 4 * run.inputs.architecture.num_parameters,
        "own": sum(part.untyped_storage().nbytes() for part in parts),
        "largest_tensor": 4 * max(each.numel() for each in run.model.parameters()),
        "passing": units.backward_bytes,
        "building": building.num_bytes,
        "judging": judging.num_bytes,
        "starting": starting.num_bytes,
        "stepping": stepping.num_bytes,
        "accumulating": accumulating.num_bytes,
        "verdict": gate.verdict,
    }


def step(run: PreparedRun, optimizer: torch.optim.Optimizer, *, num_micro_batches: int) -> None:
    batch = run.order.batch(1, part=run.ranks.rank, num_parts=run.ranks.world_size)
    train_step(
        run.model,
        optimizer,
        # As often as asked, however few rows a rank has.
        [batch] * num_micro_batches,
        step=1,
        learning_rate=1e-3,
        max_grad_norm=1.0,
        document_mask=True,
        summed_loss=run.shared_loss or run.summed_loss,
        exchange=run.exchange,
    )


def seen(ranks: Ranks, *, root: str, by_block: bool, recomputes: bool) -> float:
    """How far projections differ from those of the same rows' gradients in a whole model."""
    run = prepared(ranks, root, by_block=by_block, activation_checkpointing=recomputes)
    assert run.dealt is not None
    alone = prepared(Ranks(), root, kind="auto")
    batch = run.order.batch(1, part=ranks.rank, num_parts=ranks.world_size)
    found = measure_sketches(run.dealt, run.model, batch, summed_loss, document_mask=True)
    exact = measure_gradients(alone.model, batch, summed_loss, document_mask=True)
    assert found.loss_nats == exact.loss_nats
    return max(
        float((found.tensors[name] - sketch(name, gradient)).norm() / found.norms[name])
        for name, gradient in exact.tensors.items()
    )


def _faulty(loss: SummedLoss, fault: str) -> SummedLoss:
    def spoilt(model: Transformer, ids: Tensor, *more: Any) -> Tensor:
        right, weights = loss(model, ids, *more), model.head_weight
        if fault == "another loss":
            return right + 0.02 * ids.shape[1]
        if fault == "one gradient":
            return right + 0.5 * (weights - weights.detach()).sum()
        if fault == "no gradient":
            return right.detach() + 0.0 * right
        if fault == "no number":
            return right + (0.0 * weights).sum().sqrt()
        raise ArithmeticError("planted")

    return spoilt


def first_gradient(ranks: Ranks, *, root: str, fault: str | None, by_block: bool) -> dict[str, Any]:
    """The gate on gradients where the last rank alone computes something else."""
    run = prepared(ranks, root, by_block=by_block)
    assert run.dealt is not None
    if fault and ranks.rank == ranks.world_size - 1:
        own_loss = _faulty(run.dealt.own_loss, fault)
        run = replace(run, dealt=replace(run.dealt, own_loss=own_loss))
    try:
        gate = judge_gradients(run)
    except Refusal as refusal:
        return said(refusal)
    return {"verdict": gate.verdict, "found": gate.found}


def initial_loss(ranks: Ranks, *, root: str, source: str, kind: str) -> str:
    """What the gate on an initial model finds, its loss on probes included."""
    run = prepared(ranks, root, source=source, kind=kind, eval_tokens=64)
    init = run.inputs.init
    assert init is not None
    architecture = run.inputs.architecture
    probes = make_probes(
        vocab_size=architecture.vocab_size,
        max_position_embeddings=architecture.max_position_embeddings,
        special_ids=find_special_ids(init.hf_config, init.tokenizer),
    )
    proof = {"reference": {"loss_nats": 1.0, "probe_sha256": probes.sha256}}
    run = replace(run, inputs=replace(run.inputs, init=replace(init, proof=proof)))
    return judge_model(run, held_out=run.periodic_set).gates[0].found


def spoilt_weight(ranks: Ranks, *, root: str, at_rank: int | None) -> dict[str, Any] | None:
    """Look for weights that are not finite where one rank holds one; the refusal, or nothing."""
    run = prepared(ranks, root)
    if ranks.rank == at_rank:
        own_part(run.model.head_weight.detach())[0][-1, -1] = float("nan")
    try:
        require_finite_weights(run.model, step=3, ranks=ranks)
    except Refusal as refusal:
        return said(refusal)
    return None


def chosen_kind(ranks: Ranks, *, root: str, preset_name: str, available_bytes: int) -> str:
    """Who holds the model by itself, on devices of so much memory."""
    options = {"grad_accum": 1, "activation_checkpointing": False}
    config = RunData(Path(root)).config(Path(root) / "nowhere", **options)
    shape = preset(preset_name, tokenizer_vocab_size=512)
    device = DeviceMemory(available_bytes, "a test", on_cpu=False)
    return divided(config, shape, ranks=ranks, device=device).data_parallel
