"""What an export wrote, and the judgement on it that both formats share."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apr.convert.rounding import Rounding, check_rounding
from apr.convert.source import Source, SourceTensor
from apr.convert.weights import stored_bytes
from apr.errors import Refusal
from apr.jobs.prove_source import SourceProof, prove_source
from apr.progress import Report


@dataclass(frozen=True)
class ExportedModel:
    """What was written, and how it was proved."""

    path: Path
    source: Path
    format: str
    files: tuple[str, ...]
    size_bytes: int
    formats: Mapping[str, int]
    """Tensors per number format."""
    bits_per_weight: float
    roundings: tuple[Rounding, ...]
    proof: SourceProof
    independent_reader: Mapping[str, str] | None
    """Another library that read the result and found the same bytes, and its version."""
    notes: tuple[str, ...]
    elapsed_s: float

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr export --json` prints."""
        return {
            "path": str(self.path),
            "source": str(self.source),
            "format": self.format,
            "files": list(self.files),
            "size_bytes": self.size_bytes,
            "formats": dict(self.formats),
            "bits_per_weight": self.bits_per_weight,
            "max_relative_rms_error": max(
                (each.relative_rms_error for each in self.roundings), default=0.0
            ),
            "proof": self.proof.as_record(),
            "independent_reader": self.independent_reader and dict(self.independent_reader),
            "notes": list(self.notes),
            "elapsed_s": {"all": self.elapsed_s, "proof": self.proof.elapsed_s},
        }


def unchanged(source: Source) -> Source:
    """No fault between a container and what is written of it."""
    return source


def judge(
    original: Source, exported: Source, *, ask_transformers: bool, progress: Report
) -> tuple[SourceProof, tuple[Rounding, ...]]:
    """Prove that what was exported, read back as a source of its own, is the original model.

    The original is the product here, the exported files are what the reference computes. Values
    that were rounded are compared within their format's bound, and then taken from the export on
    both sides.
    """
    # A head that only one side has is the proof's to name: it says what comes of it.
    shared = {name: each for name, each in exported.tensors.items() if name in original.tensors}
    roundings = check_rounding(original.tensors, shared, progress=progress)
    rounded = {each.name: exported.tensors[each.name] for each in roundings}
    proof = prove_source(
        exported,
        original.architecture,
        {**original.tensors, **rounded},
        ask_transformers=ask_transformers,
        progress=progress,
    )
    if one_sided := sorted(exported.tensors.keys() ^ original.tensors.keys()):
        raise Refusal(
            "proof.config-differs",
            exported.where.name,
            found=f"only one of model and export has {one_sided[0]}, though they compute the same",
            expected="the tensors of the model",
            fix="nothing was kept; report this with the refusal",
        )
    return replace(proof, num_rounded_tensors=len(rounded)), tuple(roundings)


def count_formats(tensors: Mapping[str, SourceTensor]) -> dict[str, int]:
    """How many tensors there are of each number format."""
    counts: dict[str, int] = {}
    for tensor in tensors.values():
        counts[tensor.dtype] = counts.get(tensor.dtype, 0) + 1
    return counts


def bits_per_weight(tensors: Mapping[str, SourceTensor]) -> float:
    """Stored bits over the number of values."""
    num_values = sum(tensor.num_elements for tensor in tensors.values())
    return 8 * sum(map(stored_bytes, tensors.values())) / num_values
