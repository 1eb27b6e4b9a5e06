"""Tensors that took long to make, kept on disk until they are written where they belong.

A conversion reads each tensor several times: to hash it, to compare it with its original, for the
proof, and to write it. What was quantised once is not quantised again.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from apr.convert.source import SourceTensor
from apr.convert.weights import chunk_bytes
from apr.files import io_refusals, read_chunks
from apr.progress import Progress, Report, silent


def spooled(
    tensors: Mapping[str, SourceTensor], file: Path, *, progress: Report = silent
) -> dict[str, SourceTensor]:
    """The same tensors, read from a file that they are written into one after the other.

    Refuses: convert.overflow, convert.not-finite, files.io-failed.
    Writes: `file`, for the caller to delete.
    """
    kept: dict[str, SourceTensor] = {}
    total = sum(tensor.num_elements for tensor in tensors.values())
    done = at = 0
    with io_refusals(file), file.open("wb") as target:
        for name, tensor in tensors.items():
            size_bytes = 0
            for chunk in tensor.chunks():
                size_bytes += target.write(chunk)
            chunks = partial(
                read_chunks,
                file,
                start=at,
                size_bytes=size_bytes,
                chunk_bytes=chunk_bytes(tensor.dtype),
            )
            kept[name] = SourceTensor(name, tensor.dtype, tensor.shape, chunks)
            at += size_bytes
            done += tensor.num_elements
            progress(Progress("changing number formats", done, total, "values"))
    return kept
