"""`apr export --format hf`: a container becomes a directory that Hugging Face's libraries load.

The directory is written under another name, opened again by a fresh process that knows only its
files, compared there with the container, and takes its name after that.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from apr.convert.apr_source import read_apr_source
from apr.convert.hf_directory import MAX_SHARD_BYTES, write_hf_files
from apr.convert.hf_source import read_hf_source
from apr.convert.precision import FLOATS, converted
from apr.convert.rounding import Rounding, check_rounding
from apr.convert.source import Source, SourceTensor
from apr.convert.weights import stored_bytes
from apr.errors import Refusal
from apr.files import atomic_directory, require_absent, require_apart, require_replaceable
from apr.jobs.fresh_process import in_fresh_process
from apr.jobs.prove_source import SourceProof, prove_source
from apr.progress import Report, silent

FloatFormat = Literal["f32", "f16", "bf16"]
_FILES = (
    r"(config|generation_config|tokenizer|tokenizer_config|vocab|special_tokens_map|manifest)\.json"
    r"|merges\.txt|chat_template\.jinja|model(-\d{5}-of-\d{5})?\.safetensors"
    r"|model\.safetensors\.index\.json"
)


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


def export_hf(
    path: Path,
    *,
    output: Path,
    float_format: FloatFormat | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
    ask_transformers: bool = True,
    between: Callable[[Source], Source] = unchanged,
    progress: Report = silent,
) -> ExportedModel:
    """Write the model in an `.apr` file as a directory for `from_pretrained`.

    Without `float_format` floats keep their format, to the byte, and quantised blocks become the
    fp32 values they stand for. `between` is the seam where a test plants a fault.

    Refuses: container.*, convert.*, proof.*, import.* (what was written cannot be read), files.*,
    export.not-loadable.
    Writes: `output`, whole or not at all: config.json, generation_config.json, the tokenizer's
    files, model.safetensors or its shards with their index.
    """
    started_s = time.perf_counter()
    require_absent(output, overwrite=overwrite)
    require_apart(output, [path])
    require_replaceable(output, names=_FILES, what="a model directory")
    source = read_apr_source(path, progress=progress)
    handed_over = between(source)
    tensors = {
        name: converted(tensor, float_format or _kept(tensor.dtype))
        for name, tensor in handed_over.tensors.items()
    }
    with atomic_directory(output, overwrite=overwrite) as staged:
        write_hf_files(
            staged,
            architecture=handed_over.architecture,
            tensors=tensors,
            tokenizer=source.tokenizer,
            hf_config=source.hf_config,
            generation_config=source.generation_config,
            chat_template=source.chat_template,
            max_shard_bytes=max_shard_bytes,
            progress=progress,
        )
        proof, roundings = in_fresh_process(
            judge_hf, path, staged, ask_transformers=ask_transformers
        )
        files = sorted(file.name for file in staged.iterdir())
        size_bytes = sum(file.stat().st_size for file in staged.iterdir())
    return ExportedModel(
        path=output,
        source=path,
        format="hf",
        files=tuple(files),
        size_bytes=size_bytes,
        formats=count_formats(tensors),
        bits_per_weight=bits_per_weight(tensors),
        roundings=roundings,
        proof=proof,
        independent_reader=None,
        notes=source.notes,
        elapsed_s=time.perf_counter() - started_s,
    )


def judge_hf(
    path: Path, directory: Path, *, ask_transformers: bool
) -> tuple[SourceProof, tuple[Rounding, ...]]:
    """Compare a written directory with the container it was made from, both read from disk.

    Refuses: as `export_hf`.
    """
    exported = read_hf_source(directory)
    proof, roundings = judge(read_apr_source(path), exported, ask_transformers=ask_transformers)
    peer = proof.transformers
    if peer and (
        peer["complaints"] or peer["is_tied"] != exported.architecture.tie_word_embeddings
    ):
        raise Refusal(
            "export.not-loadable",
            directory.name,
            found="; ".join(peer["complaints"]) or f"tied={peer['is_tied']}",
            expected=f"a directory that transformers {peer['version']} loads without a warning",
            fix="nothing was kept; report this with the refusal",
        )
    return proof, roundings


def judge(
    original: Source, exported: Source, *, ask_transformers: bool
) -> tuple[SourceProof, tuple[Rounding, ...]]:
    """Prove that what was exported, read back as a source of its own, is the original model.

    The original is the product here, the exported files are what the reference computes. Values
    that were rounded are compared within their format's bound, and then taken from the export on
    both sides.
    """
    roundings = check_rounding(original.tensors, exported.tensors)
    rounded = {each.name: exported.tensors[each.name] for each in roundings}
    proof = prove_source(
        exported,
        original.architecture,
        {**original.tensors, **rounded},
        ask_transformers=ask_transformers,
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


def _kept(dtype: str) -> str:
    return dtype if dtype in FLOATS else "f32"
