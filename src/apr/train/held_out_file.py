"""RUN/held-out.safetensors: the loss of every held-out row under the best checkpoint.

With it two runs on one set can be compared row by row, which shows far smaller differences than
their two means do. It holds sums and counts, no text and no ids.
"""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from apr.convert.huggingface.safetensors_file import SafetensorsFile
from apr.errors import DamagedFile
from apr.files import parse_json, sha256_bytes, sha256_file, write_bytes
from apr.train.row_losses import RowLosses

ROWS_FILE = "held-out.safetensors"
_SCHEMA = "apr-held-out-v1"
_ABOUT = "apr_held_out"
_NATS, _NUM_TOKENS = "row_nats", "row_num_tokens"
_DTYPES = {_NATS: ("F64", "<f8"), _NUM_TOKENS: ("I64", "<i8")}


def write_rows(path: Path, rows: RowLosses, *, set_sha256: str, step: int) -> str:
    """Write the losses of all rows, in the order of the set; return the file's sha256.

    Refuses: files.io-failed.
    Writes: `path`, whole or not at all.
    """
    tensors = {
        _NATS: rows.nats.astype("<f8"),
        _NUM_TOKENS: rows.num_tokens.astype("<i8"),
    }
    about = {"schema": _SCHEMA, "set_sha256": set_sha256, "step": step}
    # One key: the library writes several in any order, and the same rows have the same bytes.
    data = save(tensors, {_ABOUT: json.dumps(about, sort_keys=True)})
    write_bytes(path, data)
    return sha256_bytes(data)


def read_rows(path: Path, *, sha256: str, set_sha256: str) -> RowLosses:
    """The losses of all rows, out of the file that a run recorded.

    Refuses: run.rows-damaged when it is another file, of another set, or holds what no
    validation gives; files.not-found, files.io-failed, safetensors.*.
    """
    file = SafetensorsFile.open(path)
    found = sha256_file(path)
    if found != sha256:
        raise _damaged(path, f"sha256 {found}", f"{sha256}, as run.json says")
    about = _about(file)
    if about.get("schema") != _SCHEMA or about.get("set_sha256") != set_sha256:
        told = f"{about.get('schema')!r:.40}, set {about.get('set_sha256')!r:.80}"
        raise _damaged(path, told, f"{_SCHEMA} of set {set_sha256:.64}")
    nats, num_tokens = (_array(file, name) for name in (_NATS, _NUM_TOKENS))
    rows = RowLosses(nats.astype(np.float64), num_tokens.astype(np.int64))
    if len(rows.nats) != len(rows.num_tokens) or not len(rows.nats):
        told = f"{len(rows.nats)} losses for {len(rows.num_tokens)} rows"
        raise _damaged(path, told, "one loss for each row")
    if not np.isfinite(rows.nats).all() or (rows.num_tokens < 1).any():
        raise _damaged(path, "a row without a finite loss or without a token", "neither")
    return rows


def _about(file: SafetensorsFile) -> dict[str, Any]:
    try:
        about = parse_json(file.metadata.get(_ABOUT, "{}"))
    except ValueError as err:
        raise _damaged(file.path, f"{_ABOUT}: {err}", "one JSON object") from err
    return cast(dict[str, Any], about) if isinstance(about, dict) else {}


def _array(file: SafetensorsFile, name: str) -> NDArray[np.float64] | NDArray[np.int64]:
    dtype, numpy_dtype = _DTYPES[name]
    entry = file.entries.get(name)
    if entry is None or entry.dtype != dtype or len(entry.shape) != 1:
        told = "nothing" if entry is None else f"{entry.dtype} {list(entry.shape)}"
        raise _damaged(file.path, f"{name}: {told}", f"one dimension of {dtype}")
    return np.frombuffer(b"".join(file.tensor(name).chunks()), numpy_dtype)


def _damaged(path: Path, found: str, expected: str) -> DamagedFile:
    return DamagedFile(
        "run.rows-damaged",
        path,
        found=found,
        expected=expected,
        fix="restore the file as the run wrote it; without it runs are compared by their means",
    )
