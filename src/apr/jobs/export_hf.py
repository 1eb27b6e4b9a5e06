"""`apr export --format hf`: a container becomes a directory that Hugging Face's libraries load.

The directory is written under another name, opened again by a fresh process that knows only its
files, compared there with the container, and takes its name after that.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from apr.convert.apr_source import read_apr_source
from apr.convert.huggingface.directory import require_hf_writable, write_hf_directory
from apr.convert.huggingface.source import read_hf_source
from apr.convert.precision import FLOATS, converted
from apr.convert.rounding import Rounding
from apr.convert.source import Source
from apr.errors import Refusal
from apr.files import io_refusals, publish_directory, require_apart
from apr.jobs.exported import (
    ExportedModel,
    bits_per_weight,
    count_formats,
    judge,
    unchanged,
)
from apr.jobs.fresh_process import Runner, in_fresh_process
from apr.jobs.prove_source import PEER_FAILED, SourceProof
from apr.progress import Report, silent
from apr.staging import staging_directory

FloatFormat = Literal["f32", "f16", "bf16"]
_MAX_SHARD_BYTES = 5_000_000_000


def export_hf(
    path: Path,
    *,
    output: Path,
    float_format: FloatFormat | None = None,
    with_tokenizer: bool = True,
    max_shard_bytes: int = _MAX_SHARD_BYTES,
    overwrite: bool = False,
    ask_transformers: bool = True,
    run_proof: Runner = in_fresh_process,
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
    require_hf_writable(output, overwrite=overwrite)
    require_apart(output, [path])
    source = read_apr_source(path, progress=progress)
    if not with_tokenizer:
        source = replace(source, tokenizer=None)
    handed_over = between(source)
    tensors = {
        name: converted(tensor, float_format or _kept(tensor.dtype))
        for name, tensor in handed_over.tensors.items()
    }
    place = output.absolute().parent
    with io_refusals(output), staging_directory(place, output.name) as staging:
        staged = staging / "model"
        write_hf_directory(
            staged,
            architecture=handed_over.architecture,
            tensors=tensors,
            tokenizer=source.tokenizer,
            hf_config=_with_end_of_text(source),
            generation_config=source.generation_config,
            chat_template=source.chat_template,
            max_shard_bytes=max_shard_bytes,
            progress=progress,
        )
        asked_s = time.perf_counter()
        proof, roundings = run_proof(
            judge_hf, source, staged, ask_transformers=ask_transformers, progress=progress
        )
        proof = replace(proof, elapsed_s=time.perf_counter() - asked_s)
        files = sorted(file.name for file in staged.iterdir())
        size_bytes = sum(file.stat().st_size for file in staged.iterdir())
        publish_directory(staged, output, overwrite=overwrite)
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
    original: Source, directory: Path, *, ask_transformers: bool, progress: Report
) -> tuple[SourceProof, tuple[Rounding, ...]]:
    """Compare a written directory, read from disk, with the model it was made from.

    Refuses: as `export_hf`.
    """
    exported = read_hf_source(directory)
    proof, roundings = judge(
        original, exported, ask_transformers=ask_transformers, progress=progress
    )
    peer, reason = proof.transformers, proof.transformers_reason or ""
    is_tied = exported.architecture.tie_word_embeddings
    failed = reason if reason.startswith(PEER_FAILED) else ""
    if failed or (peer and (peer["complaints"] or peer["is_tied"] != is_tied)):
        raise Refusal(
            "export.not-loadable",
            directory.name,
            found=failed or "; ".join(peer["complaints"] if peer else ()) or f"tied={not is_tied}",
            expected="a directory that transformers loads without a warning",
            fix="nothing was kept; report this with the refusal",
        )
    return proof, roundings


def _with_end_of_text(source: Source) -> dict[str, Any]:
    """What config.json says beside the architecture; a declared separator is the end of a text."""
    config = dict(source.hf_config)
    if config.get("eos_token_id") is None and source.tokenizer is not None:
        config["eos_token_id"] = source.tokenizer.eos_token_id
    return config


def _kept(dtype: str) -> str:
    return dtype if dtype in FLOATS else "f32"
