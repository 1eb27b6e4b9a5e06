"""The proof of one conversion: the product against the reference, and against transformers."""

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from apr.architecture import Architecture
from apr.convert.gguf.rows import is_turned, to_adjacent
from apr.convert.probes import Probes, find_special_ids, make_probes
from apr.convert.reference import Reference
from apr.convert.source import Source, SourceTensor
from apr.convert.weights import Values, Weights
from apr.errors import Refusal
from apr.jobs.fresh_process import ProcessDied, in_fresh_process
from apr.model.proof import TOLERANCE, Product, Proof, prove, relative_error
from apr.model.transformer import Block
from apr.model.transformers_peer import ask, why_not
from apr.progress import Progress, Report, silent

PEER_FAILED = "transformers cannot load it"
"""How the reason begins when it was asked and had no answer."""


@dataclass(frozen=True)
class SourceProof:
    """What was compared and how it came out."""

    reference: Proof
    transformers: Mapping[str, Any] | None
    """Version and largest relative error, where transformers could be asked."""
    transformers_reason: str | None
    """Why it was not."""
    num_rounded_tensors: int
    """Tensors whose values were rounded; each was compared within its format's bound."""
    elapsed_s: float

    def as_record(self) -> dict[str, Any]:
        """The proof as a container keeps it: nothing that depends on the time it took."""
        return {
            "reference": asdict(self.reference),
            "transformers": self.transformers and dict(self.transformers),
            "transformers_reason": self.transformers_reason,
            "num_rounded_tensors": self.num_rounded_tensors,
        }


def prove_source(
    source: Source,
    architecture: Architecture,
    tensors: Mapping[str, SourceTensor],
    *,
    rounded: Collection[str] = (),
    ask_transformers: bool = True,
    block: type[Block] = Block,
    progress: Report = silent,
) -> SourceProof:
    """Compare what goes into a container with what its source computes.

    `rounded` names tensors whose values were compared with the source's already
    (`convert.rounding`): the reference computes with these values too, and with the source's own
    for everything else.

    Refuses: proof.differs, proof.config-differs, proof.transformers-differs.
    """
    started_s = time.perf_counter()
    probes = source_probes(source)
    replaced = {name: _as_stored(tensors[name], source) for name in rounded}
    reference = Reference(source.reference, Weights({**source.stored, **replaced}))
    product = Product(architecture, Weights(tensors), block)
    proof, shown_logits_PV = prove(product, reference, probes, progress=progress)
    if not ask_transformers:
        answer, reason = None, "it was not asked for"
    elif source.format != "safetensors" or source.where.is_file():
        answer, reason = (
            None,
            f"it is asked about Hugging Face directories, not {source.where.name}",
        )
    elif rounded:
        answer, reason = None, "the model was rounded, and transformers would compute the source"
    else:
        progress(Progress("asking transformers", 0, None, "tokens"))
        answer, reason = _ask(source.where, architecture, probes, shown_logits_PV)
    return SourceProof(
        reference=proof,
        transformers=answer,
        transformers_reason=reason,
        num_rounded_tensors=len(rounded),
        elapsed_s=time.perf_counter() - started_s,
    )


def source_probes(source: Source) -> Probes:
    """The probes of a source: every special id its configuration or its tokenizer names."""
    return make_probes(
        vocab_size=source.reference.vocab_size,
        max_position_embeddings=source.architecture.max_position_embeddings,
        special_ids=find_special_ids(source.hf_config, source.tokenizer),
    )


def _as_stored(tensor: SourceTensor, source: Source) -> SourceTensor:
    """A tensor in split-half order with its rows as the source orders them."""
    if source.reference.rotary_pairs == "adjacent" and is_turned(tensor.name):
        return to_adjacent(tensor, head_dim=source.reference.head_dim)
    return tensor


def _ask(
    directory: Path, architecture: Architecture, probes: Probes, shown_logits_PV: Values
) -> tuple[dict[str, Any] | None, str | None]:
    reason = why_not(architecture.num_parameters)
    if reason is not None:
        return None, reason
    try:
        answer = in_fresh_process(ask, directory, probes.ids_BT, probes.shown)
    except ProcessDied:
        return None, "the process that asked it died, most likely for want of memory"
    except Refusal:
        raise
    except Exception as err:
        # A broken install, or a model it does not take: it proves nothing, and disproves nothing.
        return None, f"{PEER_FAILED}: {type(err).__name__}: {err!s:.200}"
    error = relative_error(shown_logits_PV, answer.logits_PV)
    if not error <= TOLERANCE:
        raise Refusal(
            "proof.transformers-differs",
            directory,
            found=f"logits that differ by {error:.2g}; " + "; ".join(answer.complaints),
            expected=f"those of transformers {answer.version}, within {TOLERANCE:g}",
            fix="nothing was written; report this with the refusal and config.json",
        )
    return {
        "version": answer.version,
        "max_relative_error": error,
        "complaints": list(answer.complaints),
        "is_tied": answer.is_tied,
    }, None
