"""`apr export --format gguf`: a container becomes a GGUF file that llama.cpp reads as it is meant.

The file is written under another name, opened again by a fresh process that knows only its bytes,
and compared there with the container: by a forward pass in GGUF's own conventions, and, where
gguf-py is installed, byte by byte through that library. Then it takes its name.
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from apr.container.layout import DTYPES
from apr.convert.apr_source import read_apr_source
from apr.convert.gguf.export import file_type, gguf_fields, gguf_tensors
from apr.convert.gguf.reader import read_gguf
from apr.convert.gguf.source import read_gguf_source
from apr.convert.gguf.writer import write_gguf
from apr.convert.precision import FLOATS, converted
from apr.convert.rounding import Rounding
from apr.convert.source import Source, SourceTensor
from apr.errors import Refusal
from apr.files import (
    io_refusals,
    require_absent,
    require_apart,
    require_no_directory,
    require_writable_place,
    sync_directory,
)
from apr.jobs.exported import ExportedModel, bits_per_weight, count_formats, judge, unchanged
from apr.jobs.fresh_process import Runner, in_fresh_process
from apr.jobs.prove_source import SourceProof
from apr.progress import Report, silent
from apr.quantization.formats import block_sizes
from apr.staging import staging_directory

GgufFormat = Literal["f32", "f16", "bf16", "q8_0", "q4_k"]
_ENDS = ("model.embed_tokens.weight", "lm_head.weight")


def export_gguf(
    path: Path,
    *,
    output: Path,
    quantize: GgufFormat | None = None,
    overwrite: bool = False,
    run_proof: Runner = in_fresh_process,
    between: Callable[[Source], Source] = unchanged,
    progress: Report = silent,
) -> ExportedModel:
    """Write the model in an `.apr` file as a GGUF file.

    Without `quantize` matrices keep their number format where GGUF has it; what it lacks (AprQ8,
    AprQ4) becomes the fp32 values it stands for. Norms and biases are always f32. `between` is the
    seam where a test plants a fault.

    Refuses: container.*, convert.*, gguf.*, proof.*, files.*.
    Writes: `output`, whole or not at all.
    """
    started_s = time.perf_counter()
    require_absent(output, overwrite=overwrite)
    require_writable_place(output)
    require_no_directory(output)
    require_apart(output, [path])
    source = read_apr_source(path, progress=progress)
    handed_over = between(source)
    tensors = {
        name: converted(tensor, gguf_format(tensor, quantize))
        for name, tensor in handed_over.tensors.items()
    }
    described = gguf_fields(
        handed_over.architecture,
        source.tokenizer,
        source.hf_config,
        file_type=file_type(tensors.values()),
        chat_template=source.chat_template,
        name=path.stem,
        license=source.said.get("license"),
    )
    with io_refusals(output), staging_directory(output.parent, output.name) as staged:
        written = staged / "model.gguf"
        write_gguf(
            written,
            fields=described.fields,
            tensors=gguf_tensors(handed_over.architecture, tensors),
            progress=progress,
        )
        asked_s = time.perf_counter()
        proof, roundings, reader = run_proof(judge_gguf, source, written, progress=progress)
        proof = replace(proof, elapsed_s=time.perf_counter() - asked_s)
        require_absent(output, overwrite=overwrite)
        os.replace(written, output)
        sync_directory(output.parent)
    return ExportedModel(
        path=output,
        source=path,
        format="gguf",
        files=(output.name,),
        size_bytes=output.stat().st_size,
        formats=count_formats(tensors),
        bits_per_weight=bits_per_weight(tensors),
        roundings=roundings,
        proof=proof,
        independent_reader=reader,
        notes=(*source.notes, *described.notes),
        elapsed_s=time.perf_counter() - started_s,
    )


def gguf_format(tensor: SourceTensor, quantize: GgufFormat | None) -> str:
    """The number format of one tensor in a GGUF file.

    Vectors are f32, as llama.cpp demands. With q4_k the embedding and the head become q8_0, and so
    does a matrix whose rows 256 does not divide; rows that 32 does not divide become f16.
    """
    if len(tensor.shape) != 2:
        return "f32"
    if quantize is None:
        is_known = tensor.dtype in FLOATS or DTYPES[tensor.dtype].is_row_blocked
        return tensor.dtype if is_known else "f32"
    if quantize in FLOATS:
        return quantize
    wanted = "q8_0" if tensor.name in _ENDS else quantize
    for each in (wanted, "q8_0"):
        if tensor.shape[1] % block_sizes(each)[0] == 0:
            return each
    return "f16"


def judge_gguf(
    original: Source, written: Path, *, progress: Report
) -> tuple[SourceProof, tuple[Rounding, ...], Mapping[str, str] | None]:
    """Compare a written GGUF file, read from disk, with the model it was made from.

    Refuses: as `export_gguf`, and gguf.reader-differs.
    """
    reader = _compare_with_gguf_py(written)
    exported = read_gguf_source(written)
    proof, roundings = judge(original, exported, ask_transformers=False, progress=progress)
    if exported.tokenizer is not None and original.tokenizer is not None:
        _require_same_tokenizer(original, exported, written)
    return proof, roundings, reader


def _require_same_tokenizer(original: Source, exported: Source, written: Path) -> None:
    assert original.tokenizer is not None
    assert exported.tokenizer is not None
    ours, theirs = original.tokenizer.vocabulary, exported.tokenizer.vocabulary
    if ours == theirs[: len(ours)] and original.tokenizer.merges == exported.tokenizer.merges:
        return
    raise Refusal(
        "gguf.tokenizer-differs",
        written.name,
        found="other pieces or merges",
        expected="those of the model's tokenizer",
        fix="nothing was kept; report this with the refusal",
    )


def _compare_with_gguf_py(written: Path) -> dict[str, str] | None:
    """Read the file with the library of GGUF's authors and compare what it finds with ours."""
    if find_spec("gguf") is None:
        return None
    from importlib.metadata import version

    from gguf import GGUFReader

    ours, theirs = read_gguf(written), GGUFReader(written)
    found: dict[str, Any] = {
        tensor.name: (
            tuple(int(size) for size in reversed(tensor.shape)),
            tensor.tensor_type.name.lower(),
            hashlib.sha256(tensor.data.tobytes()).hexdigest(),
        )
        for tensor in theirs.tensors
    }
    expected = {
        info.name: (info.shape, info.type.dtype, _sha256(ours, info.name))
        for info in ours.tensors.values()
    }
    keys = {key for key in theirs.fields if not key.startswith("GGUF.")}
    if found == expected and keys == set(ours.fields) and found:
        return {"name": "gguf-py", "version": version("gguf")}
    differing = sorted(
        {name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)}
        | (keys ^ set(ours.fields))
    )
    raise Refusal(
        "gguf.reader-differs",
        written.name,
        found=f"{len(differing)} differences, the first in {differing[0] if differing else 'all'}",
        expected="the same tensors and fields through gguf-py",
        fix="nothing was kept; report this with the refusal",
    )


def _sha256(file: Any, name: str) -> str:
    digest = hashlib.sha256()
    for chunk in file.chunks(name)():
        digest.update(chunk)
    return digest.hexdigest()
