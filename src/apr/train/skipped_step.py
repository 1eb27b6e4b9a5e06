"""A step that was not applied, kept so that it can be computed again: weights, batch, finding.

RUN/skipped/step-NNNNNNNN/ holds `model.apr` (the weights before the step), `batch.safetensors`
(the ids, targets and document numbers of all its micro-batches) and `skipped.json` (what was found,
and every other file with size and sha256).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from apr.architecture import Architecture
from apr.errors import DamagedFile
from apr.files import (
    atomic_directory,
    io_refusals,
    read_json,
    require_exists,
    sha256_file,
    write_json,
)
from apr.model.transformer import Transformer
from apr.model.weights import load_model, save_weights
from apr.progress import Report, silent
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.batches import IGNORED_TARGET, Batch

_SCHEMA = "apr-skipped-step-v1"
_FACTS_LIMIT_BYTES = 1 << 20
_FILES = ("batch.safetensors", "model.apr")
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _from_json(value: Any) -> Any:
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def json_number(value: float) -> float | str:
    """A number as JSON can hold it; one that is not finite becomes `nan`, `inf` or `-inf`."""
    return value if math.isfinite(value) else str(value)


AnyFloat = Annotated[float, BeforeValidator(_from_json), PlainSerializer(json_number)]


class SkippedFacts(BaseModel):
    """What was found when the step was computed; the measured values may be NaN or infinite.

    `rows` are the training rows of the batch, `what` says in words why the step was not applied.

    Units: nats per counted token; the norm is the global 2-norm before clipping.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    step: Annotated[int, Field(ge=1)]
    loss_nats: AnyFloat
    grad_norm: AnyFloat
    rows: list[int]
    precision: Literal["fp32", "bf16"]
    document_mask: bool
    grad_accum: Annotated[int, Field(ge=1)]
    what: str


@dataclass(frozen=True)
class SkippedStep:
    """A skipped step, read back and verified; the model computes in fp32 until told otherwise."""

    directory: Path
    facts: SkippedFacts
    model: Transformer
    tokenizer: Tokenizer | None
    batch: Batch


def skipped_step_dir(run_dir: Path, step: int) -> Path:
    """Where a skipped step of a run lies."""
    return run_dir / "skipped" / f"step-{step:08d}"


def save_skipped_step(
    directory: Path,
    architecture: Architecture,
    weights: Mapping[str, Tensor],
    tokenizer: Tokenizer | None,
    batch: Batch,
    facts: SkippedFacts,
    provenance: list[dict[str, Any]],
) -> None:
    """Write a step that is not applied: the weights before it, its whole batch, the finding.

    The batch is that of the optimizer step, before it is split into `facts.grad_accum` parts. A
    step that is skipped again, after a resume, takes the place of the older one.

    Refuses: files.io-failed, model.non-finite.
    Writes: `directory`, atomically.
    """
    arrays = {
        "input_ids_BT": batch.input_ids_BT,
        "target_ids_BT": batch.target_ids_BT,
        "document_numbers_BT": batch.document_numbers_BT,
    }
    with atomic_directory(directory, overwrite=True) as staged:
        save_weights(
            staged / "model.apr", architecture, weights, tokenizer=tokenizer, provenance=provenance
        )
        _save_arrays(staged / "batch.safetensors", arrays)
        listing = {name: _identity(staged / name) for name in _FILES}
        said = {"schema": _SCHEMA} | facts.model_dump(mode="json") | {"files": listing}
        write_json(staged / "skipped.json", said)


def load_skipped_step(
    directory: Path, *, device: str = "cpu", progress: Report = silent
) -> SkippedStep:
    """Read a skipped step back after verifying every byte of it.

    Refuses: files.not-found, skipped.damaged, container.*.
    """
    require_exists(directory, "the directory of a skipped step")
    facts = _read_facts(directory)
    batch = _read_batch(directory, facts)
    loaded = load_model(directory / "model.apr", device=device, progress=progress)
    _require_ids(directory, batch, vocab_size=loaded.model.architecture.vocab_size)
    return SkippedStep(directory, facts, loaded.model, loaded.tokenizer, batch)


def _save_arrays(path: Path, arrays: Mapping[str, NDArray[np.int64]]) -> None:
    # The writer reads memory in order, whatever the strides of a slice say.
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)


def _identity(path: Path) -> dict[str, int | str]:
    return {"size_bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _read_facts(directory: Path) -> SkippedFacts:
    said = read_json(
        directory / "skipped.json",
        limit_bytes=_FACTS_LIMIT_BYTES,
        id="skipped.damaged",
        what="what was found of a skipped step",
    )
    if not isinstance(said, dict) or said.pop("schema", None) != _SCHEMA:
        raise _damaged(directory, f"skipped.json is not of the schema {_SCHEMA}")
    listing = said.pop("files", None)
    if not isinstance(listing, dict) or sorted(listing) != sorted(_FILES):
        raise _damaged(directory, f"skipped.json does not list {' and '.join(_FILES)}")
    for name, identity in listing.items():
        path = directory / name
        if not path.is_file():
            raise _damaged(directory, f"{name} is not there")
        with io_refusals(path):
            if _identity(path) != identity:
                raise _damaged(directory, f"{name} is not the file that was written")
    try:
        return SkippedFacts.model_validate(said)
    except ValidationError as err:
        problem = err.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        raise _damaged(directory, f"skipped.json: {field}: {problem['msg']}") from err


def _read_batch(directory: Path, facts: SkippedFacts) -> Batch:
    try:
        arrays = load_file(directory / "batch.safetensors")
        batch = Batch(
            arrays.pop("input_ids_BT"),
            arrays.pop("target_ids_BT"),
            arrays.pop("document_numbers_BT"),
            tuple(facts.rows),
        )
    except (SafetensorError, KeyError, OSError) as err:
        raise _damaged(directory, f"batch.safetensors: {type(err).__name__}: {err}") from err
    parts = (batch.input_ids_BT, batch.target_ids_BT, batch.document_numbers_BT)
    shapes = {part.shape for part in parts}
    if arrays or len(shapes) != 1 or any(part.dtype != np.int64 for part in parts):
        raise _damaged(directory, "batch.safetensors holds other tensors than three of one shape")
    (shape,) = shapes
    if len(shape) != 2 or not shape[1] or not len(facts.rows) == shape[0]:
        raise _damaged(directory, f"a batch of shape {shape} for {len(facts.rows)} rows")
    if not batch.num_counted_tokens:
        raise _damaged(directory, "no target that counts")
    if shape[0] % facts.grad_accum:
        raise _damaged(directory, f"{shape[0]} rows, which {facts.grad_accum} does not divide")
    return batch


def _require_ids(directory: Path, batch: Batch, *, vocab_size: int) -> None:
    """An id without a row in the embedding would be a crash of the device, not an error."""
    counted = batch.target_ids_BT[batch.target_ids_BT != IGNORED_TARGET]
    for ids in (batch.input_ids_BT, counted):
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
            raise _damaged(directory, f"ids {ids.min()} to {ids.max()} for {vocab_size} rows")


def _damaged(directory: Path, found: str) -> DamagedFile:
    return DamagedFile(
        "skipped.damaged",
        directory,
        found=found,
        expected="a skipped step as a run wrote it: skipped.json, batch.safetensors, model.apr",
        fix="name another directory below skipped/ of the run",
    )
