"""safetensors files put together by hand, so that a test can lie in every field."""

import json
from typing import Any


def raw_file(header: bytes, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A file of this header text; `length` is what it claims to be long."""
    claimed = len(header) if length is None else length
    return claimed.to_bytes(8, "little") + header + data


def file_of(entries: dict[str, Any], data: bytes = b"") -> bytes:
    """A file whose header is these entries as JSON."""
    return raw_file(json.dumps(entries).encode(), data)


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}
