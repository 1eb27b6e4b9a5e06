"""Every proof of a run, in the order from what a batch is to what a resume is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from apr.progress import Progress, Report, silent
from apr.train.batches import Batch
from apr.train.gates import Finding, Gate, judge
from apr.train.loss import summed_loss
from apr.train.prepare import PreparedRun
from apr.train.repeatable import cuda_devices
from apr.train.selftest.continuation import Continuing, check_resume, check_save_load
from apr.train.selftest.cross_entropy import check_cross_entropy
from apr.train.selftest.fast_paths import check_bf16, check_compiled
from apr.train.selftest.head import check_head
from apr.train.selftest.leaks import check_causal_leak, check_document_leak, packed_rows
from apr.train.selftest.micro_batches import check_micro_batches, rows_to_divide
from apr.train.selftest.overfit import check_overfit
from apr.train.selftest.parameters import check_parameters_change
from apr.train.selftest.recomputation import check_recomputed
from apr.train.selftest.small_run import SmallRun, small_run
from apr.train.selftest.update import check_optimizer
from apr.train.step import train_step

_LEAK_ROWS = 2
_OVERFIT_ROWS, _OVERFIT_TOKENS = 2, 64
_STEPS_WITH_PACKED_ROWS = 4


@dataclass(frozen=True)
class Proofs:
    """The verdicts, and the ids that do not apply to this run, each with the reason."""

    gates: list[Gate]
    not_applicable: dict[str, str]


@dataclass(frozen=True)
class _Proof:
    """A check that has not been made yet."""

    id: str
    check: Callable[[], Finding]

    def judged(self) -> Gate:
        return judge(self.id, self.check)


def prove(run: PreparedRun, *, progress: Report = silent) -> Proofs:
    """Run every proof that applies, one after another, on copies of the model.

    Random numbers are left as they were. Memory: that of training, and a copy of the weights.
    """
    small, skipped = small_run(run), _not_applicable(run)
    gates: list[Gate] = []
    proofs = [proof for proof in _proofs(small, progress) if proof.id not in skipped]
    with torch.random.fork_rng(cuda_devices(str(run.acceleration.device))):
        for done, proof in enumerate(proofs):
            progress(Progress("proving", done, len(proofs), "proofs", proof.id))
            gates.append(proof.judged())
        progress(Progress("proving", len(proofs), len(proofs), "proofs"))
    return Proofs(gates, skipped)


def _not_applicable(run: PreparedRun) -> dict[str, str]:
    skipped: dict[str, str] = {}
    if not run.config.document_mask:
        skipped["selftest.document-leak"] = (
            "document_mask is off: the documents of a row see each other, on purpose"
        )
    if not run.acceleration.compiled:
        skipped["selftest.compiled"] = "the run computes with eager kernels"
    if run.acceleration.compute_dtype is not torch.bfloat16:
        skipped["selftest.bf16"] = "the run computes in fp32"
    if not run.model.model.recomputes_blocks:
        skipped["selftest.activation-checkpointing"] = "the run keeps its activations"
    return skipped


def _proofs(small: SmallRun, progress: Report) -> Iterator[_Proof]:
    yield from _of_the_loss(small)
    yield from _of_the_update(small, progress)


def _of_the_loss(small: SmallRun) -> Iterator[_Proof]:
    model, mask, batch = small.model, small.config.document_mask, small.micro_batches(1)[0]
    few = small.rows_of(1, rows=_LEAK_ROWS, length=small.leak_length)
    yield _Proof(
        "selftest.causal-leak",
        lambda: check_causal_leak(
            model,
            few,
            batch,
            document_mask=mask,
            logits=small.logits,
            summed_loss=small.summed_loss,
        ),
    )
    yield _Proof(
        "selftest.document-leak",
        lambda: check_document_leak(
            model, _packed(small), batch, logits=small.logits, summed_loss=small.summed_loss
        ),
    )
    yield _Proof(
        "selftest.cross-entropy",
        lambda: check_cross_entropy(
            model, batch, document_mask=mask, summed_loss=small.summed_loss
        ),
    )
    yield _Proof(
        "selftest.linear-cross-entropy",
        lambda: check_head(model, small.whole_micro_batch(1), head_loss=small.head_loss),
    )
    yield _Proof(
        "selftest.compiled",
        lambda: check_compiled(model, batch, document_mask=mask, compiled_loss=small.summed_loss),
    )
    yield _Proof(
        "selftest.bf16",
        lambda: check_bf16(model, batch, document_mask=mask, accelerated_loss=small.summed_loss),
    )
    yield _Proof(
        "selftest.activation-checkpointing",
        lambda: check_recomputed(model, batch, document_mask=mask, summed_loss=small.summed_loss),
    )


def _of_the_update(small: SmallRun, progress: Report) -> Iterator[_Proof]:
    model, config, batch = small.model, small.config, small.micro_batches(1)[0]
    continuing = Continuing(
        config, small.tokenizer, small.micro_batches, train_step, small.summed_loss
    )
    yield _Proof(
        "selftest.parameters-change",
        lambda: check_parameters_change(
            model, batch, config, step=train_step, summed_loss=small.summed_loss
        ),
    )
    yield _Proof(
        "selftest.micro-batches",
        lambda: check_micro_batches(
            model, rows_to_divide(batch), config, step=train_step, summed_loss=summed_loss
        ),
    )
    yield _Proof(
        "selftest.optimizer",
        lambda: check_optimizer(
            model, _two_batches(small), config, step=train_step, summed_loss=small.summed_loss
        ),
    )
    yield _Proof(
        "selftest.overfit",
        lambda: check_overfit(
            model,
            small.rows_of(1, rows=_OVERFIT_ROWS, length=_OVERFIT_TOKENS),
            config,
            is_fresh=config.init is None,
            step=train_step,
            summed_loss=summed_loss,
            progress=progress,
        ),
    )
    yield _Proof("selftest.save-load", lambda: check_save_load(model, continuing))
    yield _Proof("selftest.resume", lambda: check_resume(model, continuing))


def _packed(small: SmallRun) -> Batch:
    batches = [
        small.rows_of(step, rows=small.config.batch_size, length=small.leak_length)
        for step in range(1, _STEPS_WITH_PACKED_ROWS + 1)
    ]
    return packed_rows(batches, most_rows=_LEAK_ROWS)


def _two_batches(small: SmallRun) -> list[Batch]:
    return [small.micro_batches(step)[0] for step in (1, 2)]
