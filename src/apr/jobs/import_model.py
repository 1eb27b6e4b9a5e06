"""`apr import`: a model from elsewhere becomes a container, once it is proved to be the same model.

The order is what makes the promise: read and check the source, change formats, compare every
rounded value, compute the probes on both sides, and only then write. The writer reads its file back
from disk, every byte of it, before the file takes its name.
"""

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import apr
from apr.architecture import Architecture
from apr.container import free_keys
from apr.container.embedded_tokenizer import embed_tokenizer
from apr.container.layout import DTYPES
from apr.container.metadata import architecture_from_metadata, metadata_from_architecture
from apr.container.named_keys import Metadata
from apr.container.named_keys import Quantization as QuantizationKey
from apr.container.provenance import chained
from apr.container.spdx import require_spdx
from apr.container.writer import TensorSource, write_container
from apr.convert.precision import Quantization, chosen_formats, converted
from apr.convert.rounding import Rounding, check_rounding
from apr.convert.source import Source, SourceTensor
from apr.convert.spool import spooled
from apr.convert.values import check_values
from apr.errors import Refusal, UsageRefusal
from apr.files import (
    io_refusals,
    require_absent,
    require_no_directory,
    require_writable_place,
    sha256_chunks,
    sha256_file,
)
from apr.jobs.exported import bits_per_weight, count_formats, unchanged
from apr.jobs.fresh_process import Runner, in_fresh_process
from apr.jobs.prove_source import SourceProof, prove_source
from apr.jobs.read_source import read_source
from apr.progress import Progress, Report, silent
from apr.staging import staging_directory
from apr.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class ImportedModel:
    """What was written, and how it was proved."""

    path: Path
    source: Path
    source_format: str
    architecture: Architecture
    num_tensors: int
    size_bytes: int
    formats: Mapping[str, int]
    """Tensors per number format."""
    bits_per_weight: float
    roundings: tuple[Rounding, ...]
    proof: SourceProof
    tokenizer: Tokenizer | None
    notes: tuple[str, ...]
    elapsed_s: Mapping[str, float]
    """Seconds of every part; `proof` apart from the rest."""

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr import --json` prints."""
        return {
            "path": str(self.path),
            "source": str(self.source),
            "source_format": self.source_format,
            "architecture": asdict(self.architecture)
            | {"hf_architecture": self.architecture.hf_architecture},
            "num_parameters": self.architecture.num_parameters,
            "num_tensors": self.num_tensors,
            "size_bytes": self.size_bytes,
            "formats": dict(self.formats),
            "bits_per_weight": self.bits_per_weight,
            "max_relative_rms_error": max(
                (each.relative_rms_error for each in self.roundings), default=0.0
            ),
            "proof": self.proof.as_record(),
            "tokenizer": self.tokenizer and {"fingerprint": self.tokenizer.fingerprint},
            "notes": list(self.notes),
            "elapsed_s": dict(self.elapsed_s),
        }


def import_model(
    source: Path,
    *,
    output: Path,
    quantize: Quantization | None = None,
    tokenizer: Path | None = None,
    provenance: Mapping[str, str] | None = None,
    overwrite: bool = False,
    ask_transformers: bool = True,
    run_proof: Runner = in_fresh_process,
    between: Callable[[Source], Source] = unchanged,
    progress: Report = silent,
) -> ImportedModel:
    """Read a model in another format and write it as an `.apr` file that is proved equal.

    `source` is a Hugging Face directory, a safetensors file beside its config.json, a GGUF or an
    `.apr` file; `tokenizer` stands in for the one it brings. `provenance` may hold license,
    data_source and data_license. `between` is the seam where a test plants a fault.

    Refuses: import.*, convert.*, proof.*, safetensors.*, gguf.*, container.*, tokenizer.*, files.*,
    stamp.not-spdx.
    Writes: `output`, whole or not at all.
    """
    require_absent(output, overwrite=overwrite)
    require_writable_place(output)
    require_no_directory(output)
    said = _checked_provenance(provenance or {})
    clock = _Clock()
    found = read_source(source, progress=progress)
    if tokenizer is not None:
        file = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
        found = replace(
            found,
            tokenizer=Tokenizer.load(tokenizer),
            files=(*found.files, file),
            notes=(*found.notes, f"the tokenizer is that of {tokenizer}, as was asked for"),
        )
    _require_another_file(output, found.files)
    _require_tokenizer_fits(found)
    clock.lap("read")
    handed_over = between(found)
    place = output.absolute().parent
    with io_refusals(output), staging_directory(place, output.name) as staging:
        tensors = _in_their_formats(handed_over, quantize, staging / "tensors", progress)
        clock.lap("formats")
        _require_exact_tensors(tensors, handed_over.architecture, where=source)
        hashes, files = _checked(found, tensors, progress)
        clock.lap("check")
        roundings = check_rounding(found.tensors, tensors, progress=progress)
        clock.lap("rounding")
        # A process of its own: this one stays small, and whatever it holds proves nothing.
        proof = run_proof(
            prove_source,
            found,
            handed_over.architecture,
            tensors,
            rounded=[each.name for each in roundings],
            ask_transformers=ask_transformers,
            progress=progress,
        )
        clock.lap("proof")
        proof = replace(proof, elapsed_s=clock.laps["proof"])
        metadata = _metadata(found, handed_over.architecture, tensors, hashes, proof, files, said)
        _require_says_what_was_proved(metadata, tensors, handed_over.architecture)
        write_container(
            output,
            metadata=metadata,
            tensors=[
                TensorSource(tensor.name, tensor.dtype, tensor.shape, tensor.chunks)
                for tensor in tensors.values()
            ],
            overwrite=overwrite,
            progress=progress,
        )
        clock.lap("write")
    size_bytes = output.stat().st_size
    return ImportedModel(
        path=output,
        source=source,
        source_format=found.format,
        architecture=handed_over.architecture,
        num_tensors=len(tensors),
        size_bytes=size_bytes,
        formats=count_formats(tensors),
        bits_per_weight=bits_per_weight(tensors),
        roundings=tuple(roundings),
        proof=proof,
        tokenizer=found.tokenizer,
        notes=found.notes,
        elapsed_s=clock.laps,
    )


class _Clock:
    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last_s = time.perf_counter()

    def lap(self, name: str) -> None:
        now_s = time.perf_counter()
        self.laps[name] = now_s - self._last_s
        self._last_s = now_s


def _checked_provenance(provenance: Mapping[str, str]) -> dict[str, str]:
    """What the owner says of origin and licence, licences in their canonical spelling."""
    return {
        key: require_spdx(text, where=f"--provenance {key}") if key.endswith("license") else text
        for key, text in provenance.items()
    }


def _require_tokenizer_fits(found: Source) -> None:
    rows = found.architecture.vocab_size
    if found.tokenizer is None or found.tokenizer.vocab_size <= rows:
        return
    raise Refusal(
        "import.tokenizer-too-large",
        found.tokenizer.where,
        found=f"{found.tokenizer.vocab_size} token ids",
        expected=f"at most {rows}, the rows of the model's embedding",
        fix="give the tokenizer that belongs to the model: --tokenizer DIR",
    )


def _require_exact_tensors(
    tensors: Mapping[str, SourceTensor], architecture: Architecture, *, where: Path
) -> None:
    """What goes into the file is the architecture's tensors; readers have checked what came in."""
    expected = architecture.parameter_shapes()
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if found == expected:
        return
    differing = sorted(
        name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
    )
    raise Refusal(
        "import.tensors-differ",
        where,
        found=f"{differing[0]} of shape {found.get(differing[0])}",
        expected=f"shape {expected.get(differing[0])}, from the architecture",
        fix="nothing was written; report this with the refusal",
    )


def _in_their_formats(
    source: Source, quantize: Quantization | None, spool: Path, progress: Report
) -> dict[str, SourceTensor]:
    """Every tensor in the format a container will have it in; quantised ones are kept on disk."""
    formats = chosen_formats(source.tensors, quantize)
    tensors = {name: converted(each, formats[name]) for name, each in source.tensors.items()}
    costly = {
        name: each
        for name, each in tensors.items()
        if each.dtype != source.tensors[name].dtype and DTYPES[each.dtype].is_quantized
    }
    return {**tensors, **spooled(costly, spool, progress=progress)} if costly else tensors


def _checked(
    source: Source, tensors: Mapping[str, SourceTensor], progress: Report
) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """The sha256 of every tensor and of every file that was read, once their values are sound."""
    with ThreadPoolExecutor(max_workers=2) as others:
        # Hashing lets other threads run: the files are hashed while the tensors are.
        files = [others.submit(_file_record, file) for file in source.files]
        values = others.submit(check_values, source)
        total = sum(tensor.num_elements for tensor in tensors.values())
        done, hashes = 0, dict[str, str]()
        for name in sorted(tensors, key=str.encode):
            hashes[name] = sha256_chunks(tensors[name].chunks())
            done += tensors[name].num_elements
            progress(Progress("checking tensors", done, total, "values"))
        values.result()
        return hashes, [file.result() for file in files]


def _file_record(file: Path) -> dict[str, Any]:
    return {"name": file.name, "size_bytes": file.stat().st_size, "sha256": sha256_file(file)}


def _metadata(
    found: Source,
    architecture: Architecture,
    tensors: Mapping[str, SourceTensor],
    hashes: Mapping[str, str],
    proof: SourceProof,
    files: list[dict[str, Any]],
    provenance: Mapping[str, str],
) -> Metadata:
    entry = {
        "what": f"import from {found.format}",
        "apr_version": apr.__version__,
        "files": files,
    }
    earlier = found.provenance
    free: dict[str, Any] = {
        free_keys.TENSOR_SHA256: dict(hashes),
        free_keys.PROOF: proof.as_record(),
        free_keys.PROVENANCE: [*earlier, chained(earlier, entry)],
    }
    if found.hf_config:
        free[free_keys.HF_CONFIG] = dict(found.hf_config)
    if found.generation_config is not None:
        free[free_keys.GENERATION_CONFIG] = dict(found.generation_config)
    if found.pretraining_tokens is not None:
        free[free_keys.PRETRAINING_TOKENS] = found.pretraining_tokens
    if found.tokenizer is not None:
        free |= embed_tokenizer(found.tokenizer)
    metadata = metadata_from_architecture(
        architecture,
        num_parameters=sum(tensor.num_elements for tensor in tensors.values()),
        free=free,
    )
    named: dict[str, Any] = {**found.said, **provenance}
    named["original_format"] = found.format
    named["chat_template"] = found.chat_template
    named["quantization"] = _quantization(tensors)
    return metadata.model_copy(update=named)


def _quantization(tensors: Mapping[str, SourceTensor]) -> QuantizationKey | None:
    """How most of the quantised tensors are, as the format has room for one answer."""
    counts = {name: n for name, n in count_formats(tensors).items() if DTYPES[name].is_quantized}
    if not counts:
        return None
    name = max(counts, key=lambda each: counts[each])
    bits, block_size, symmetric = {
        "q8": (8, None, True),
        "q4": (4, 32, True),
        "q4_k": (4, 256, False),
        "q6_k": (6, 256, True),
    }[name]
    return QuantizationKey(quant_type=name, bits=bits, block_size=block_size, symmetric=symmetric)


def _require_says_what_was_proved(
    metadata: Metadata, tensors: Mapping[str, SourceTensor], architecture: Architecture
) -> None:
    """What a reader will make of the metadata is the model that was proved."""
    said = architecture_from_metadata(metadata, tensors, "metadata to be written")
    if said != architecture:
        raise Refusal(
            "import.architecture-differs",
            "metadata to be written",
            found=str(said),
            expected=str(architecture),
            fix="nothing was written; report this with the refusal",
        )


def _require_another_file(output: Path, files: tuple[Path, ...]) -> None:
    if os.path.realpath(output) in {os.path.realpath(file) for file in files}:
        raise UsageRefusal(
            "files.output-overlaps-input",
            output,
            found="the file that is read",
            expected="another file",
            fix="name another output",
        )
