"""What a fuzzer calls with bytes of its own: the safetensors reader, from header to last chunk."""

import tempfile
from pathlib import Path

from apr.convert.safetensors_file import SafetensorsFile
from apr.errors import Refusal


def fuzz_one(data: bytes) -> bool:
    """Read these bytes as a file; whether they were taken. Nothing but a refusal may be raised."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.safetensors"
        path.write_bytes(data)
        try:
            file = SafetensorsFile.open(path)
            for tensor in file.tensors().values():
                stored = sum(chunk.nbytes for chunk in tensor.chunks())
                assert stored == file.entries[tensor.name].size_bytes
        except Refusal:
            return False
        return True
