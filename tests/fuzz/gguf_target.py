"""What a fuzzer feeds to the GGUF reader: any bytes are read or refused, and nothing else."""

import atexit
import shutil
import tempfile
from pathlib import Path

from apr.convert.gguf.source import read_gguf_source
from apr.errors import Refusal

_DIRECTORY = Path(tempfile.mkdtemp(prefix="apr-fuzz-gguf-"))
_PATH = _DIRECTORY / "fuzzed.gguf"
atexit.register(shutil.rmtree, _DIRECTORY, ignore_errors=True)


def fuzz_one(data: bytes) -> None:
    """Read bytes as a GGUF file, and its tensors when it is one."""
    _PATH.write_bytes(data)
    try:
        source = read_gguf_source(_PATH)
        for tensor in source.tensors.values():
            for _ in tensor.chunks():
                pass
    except Refusal:
        return
