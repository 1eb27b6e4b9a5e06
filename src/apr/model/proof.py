"""The proof that a converted model computes what its source does.

Two forward passes over the same probes: the product's own blocks, fed with what goes into the
file, and the reference of `convert.reference`, fed with what the source stores. They run side by
side, one layer in memory at a time, so that the first layer after which they differ is known, and
within it the first operation. Logits are compared over the whole vocabulary.
"""

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from apr.architecture import Architecture
from apr.convert.probes import Probes
from apr.convert.reference import Reference
from apr.convert.weights import Values, Weights
from apr.errors import Refusal
from apr.model.attention import plain
from apr.model.operations import operations
from apr.model.proof_causes import differing_fields, differing_tensors
from apr.model.rotary import rotary_tables
from apr.model.transformer import Block, RMSNorm
from apr.progress import Progress, Report, silent

TOLERANCE = 1e-4
"""Largest difference of two vectors, relative to the reference's length, position by position."""


@dataclass(frozen=True)
class Proof:
    """What was compared, and how far the two sides were apart."""

    probe_sha256: str
    num_tokens: int
    num_layers: int
    max_relative_error: float
    """Over the logits of every position; what `tolerance` bounds."""
    tolerance: float
    loss_nats: float
    """Mean over the probes' next tokens, by the product; the probes are no text."""
    reference_loss_nats: float
    versions: dict[str, str]


@dataclass(frozen=True)
class Product:
    """The converted side: what a container says, and the tensors that go into it."""

    architecture: Architecture
    weights: Weights
    block: type[Block] = Block
    """The block that is proved; a test plants its faults here."""


@torch.inference_mode()
# A number that leaves fp32 on one side is a difference; it is found as one, without a warning.
@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def prove(
    product: Product, reference: Reference, probes: Probes, *, progress: Report = silent
) -> tuple[Proof, Values]:
    """Compare two models on the probes, layer by layer and in their logits.

    With the proof come the product's logits at the probes' `shown` positions.

    Memory: one layer of either side, and one block of rows of the output head.

    Refuses: proof.differs, naming the first operation that does; proof.config-differs, when the
    numbers agree and the two configurations do not.
    """
    walk = _Walk(product, reference, probes, progress)
    walk.layers()
    proof, shown_logits_PV = walk.head()
    if differing := differing_fields(product.architecture, reference):
        raise _refused("proof.config-differs", "configuration", "; ".join(differing))
    return proof, shown_logits_PV


def relative_error(found: Values, expected: Values) -> float:
    """The largest difference of any position's vector, relative to its length; NaN if one is."""
    if found.shape != expected.shape:
        return float("inf")
    squared_error = np.square(found - expected, dtype=np.float64).sum(-1)
    squared_length = np.square(expected, dtype=np.float64).sum(-1)
    return _largest_share(squared_error, squared_length)


class _Walk:
    """Both sides at the same place in the model."""

    def __init__(
        self, product: Product, reference: Reference, probes: Probes, progress: Report
    ) -> None:
        self._product, self._reference, self._probes = product, reference, probes
        self._progress = progress
        self._num_layers = product.architecture.num_hidden_layers
        device = torch.device("cpu")
        length = probes.ids_BT.shape[1]
        self._rotary = rotary_tables(product.architecture, 0, length, device=device)
        rows = product.weights.rows("model.embed_tokens.weight", probes.ids_BT.ravel())
        self._x = torch.from_numpy(rows.reshape(*probes.ids_BT.shape, -1))
        self._attend = plain(self._x, None)
        self._expected = reference.embed(probes.ids_BT)
        self._compare("embedding", None, self._x, self._expected)

    def layers(self) -> None:
        """Run and compare every layer."""
        for number in range(self._num_layers):
            self._report(number)
            block = self._loaded_block(number)
            x = block.compute(self._x, self._attend, self._rotary, None)
            *_, (_, expected) = self._reference.layer(number, self._expected)
            if not relative_error(x.numpy(), expected) <= TOLERANCE:
                self._refuse_layer(number, block)
            self._x, self._expected = x, expected
        self._report(self._num_layers)

    def head(self) -> tuple[Proof, Values]:
        """Compare final norm and logits; what both sides came to, and some logits."""
        norm = RMSNorm(
            self._product.architecture.hidden_size, self._product.architecture.rms_norm_eps
        )
        norm.weight.copy_(torch.from_numpy(self._product.weights.whole("model.norm.weight")))
        x = norm(self._x).flatten(0, 1)
        expected = self._reference.final_norm(self._expected)
        expected = expected.reshape(-1, expected.shape[-1])
        self._compare("final norm", None, x, expected)
        tied = self._product.architecture.tie_word_embeddings
        name = "model.embed_tokens.weight" if tied else "lm_head.weight"
        ours, theirs = _Logits(self._probes), _Logits(self._probes)
        squared_error = np.zeros(len(expected))
        squared_length = np.zeros(len(expected))
        shown = list[Values]()
        blocks = zip(
            self._product.weights.row_blocks(name),
            self._reference.weights.row_blocks(self._reference.head_name),
            strict=True,
        )
        for (start, rows), (start_of_reference, reference_rows) in blocks:
            assert start == start_of_reference
            logits = (x @ _tensor(rows).T).numpy()
            wanted = expected @ reference_rows.T
            squared_error += np.square(logits - wanted, dtype=np.float64).sum(-1)
            squared_length += np.square(wanted, dtype=np.float64).sum(-1)
            shown.append(logits[self._probes.shown])
            ours.add(start, logits)
            theirs.add(start, wanted)
        error = _largest_share(squared_error, squared_length)
        if not error <= TOLERANCE:
            self._refuse("logits", None, error)
        proof = Proof(
            probe_sha256=self._probes.sha256,
            num_tokens=self._probes.ids_BT.size,
            num_layers=self._num_layers,
            max_relative_error=error,
            tolerance=TOLERANCE,
            loss_nats=ours.loss_nats(),
            reference_loss_nats=theirs.loss_nats(),
            versions={"torch": torch.__version__, "numpy": np.__version__},
        )
        return proof, np.concatenate(shown, axis=1)

    def _report(self, layer: int) -> None:
        self._progress(Progress("proving", layer, self._num_layers, "layers"))

    def _loaded_block(self, number: int) -> Block:
        block = self._product.block(self._product.architecture, number)
        for name, parameter in block.named_parameters():
            values = self._product.weights.whole(f"model.layers.{number}.{name}")
            parameter.copy_(_tensor(values))
        return block

    def _compare(self, name: str, layer: int | None, found: Tensor, expected: Values) -> None:
        error = relative_error(found.numpy(), expected)
        if not error <= TOLERANCE:
            self._refuse(name, layer, error)

    def _refuse_layer(self, number: int, block: Block) -> NoReturn:
        """Walk both sides through a layer whose results differ, operation by operation."""
        ours = operations(block, self._x, self._attend, self._rotary)
        theirs = self._reference.layer(number, self._expected)
        error = float("nan")
        for (name, found), (_, expected) in zip(ours, theirs, strict=True):
            error = relative_error(found.numpy(), expected)
            if not error <= TOLERANCE:
                self._refuse(name, number, error)
        self._refuse("residual stream", number, error)

    def _refuse(self, name: str, layer: int | None, error: float) -> NoReturn:
        place = name if layer is None else f"layer {layer}, {name}"
        causes = [
            *differing_fields(self._product.architecture, self._reference),
            *differing_tensors(name, layer, self._product.weights, self._reference),
        ]
        why = "; ".join(causes) or "configuration and tensors agree: the computation itself differs"
        raise _refused("proof.differs", place, f"a relative difference of {error:.2g}; {why}")


class _Logits:
    """The loss of logits that come in blocks of the vocabulary."""

    def __init__(self, probes: Probes) -> None:
        self._targets = np.roll(probes.ids_BT, -1, axis=1).ravel()
        # The last position of every row has no next token.
        self._is_scored = (np.arange(probes.ids_BT.size) + 1) % probes.ids_BT.shape[1] != 0
        self._largest = np.full(probes.ids_BT.size, -np.inf)
        self._sum = np.zeros(probes.ids_BT.size)
        self._at_target = np.zeros(probes.ids_BT.size)

    def add(self, start: int, logits: Values) -> None:
        largest = np.maximum(self._largest, logits.max(-1))
        self._sum = self._sum * np.exp(self._largest - largest) + np.exp(
            logits - largest[:, None]
        ).sum(-1)
        self._largest = largest
        inside = (self._targets >= start) & (self._targets < start + logits.shape[1])
        rows = np.flatnonzero(inside)
        self._at_target[rows] = logits[rows, self._targets[rows] - start]

    def loss_nats(self) -> float:
        losses = self._largest + np.log(self._sum) - self._at_target
        return float(losses[self._is_scored].mean())


def _tensor(values: Values) -> Tensor:
    # torch has no read-only tensors and warns of what could be written to by mistake.
    return torch.from_numpy(np.require(values, requirements="W"))


def _largest_share(
    squared_error: np.ndarray[Any, np.dtype[np.float64]],
    squared_length: np.ndarray[Any, np.dtype[np.float64]],
) -> float:
    share = np.sqrt(squared_error / np.maximum(squared_length, np.finfo(np.float64).tiny))
    # NaN must not hide among numbers: max() would pass over it in some orders.
    return float("nan") if np.isnan(share).any() else float(share.max(initial=0.0))


def _refused(id: str, where: str, found: str) -> Refusal:
    return Refusal(
        id,
        where,
        found=found,
        expected=f"what the source computes, within {TOLERANCE:g}",
        fix="nothing was written; report this with the refusal and the source's config",
        upstream_id="FALSIFY-INIT-ARCH-MATCH-001" if id == "proof.config-differs" else None,
    )
