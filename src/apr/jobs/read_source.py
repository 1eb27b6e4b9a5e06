"""Which of the three doors a path is, and what comes through it."""

from pathlib import Path

from apr.container import layout
from apr.convert.apr_source import read_apr_source
from apr.convert.gguf.source import read_gguf_source
from apr.convert.huggingface.source import read_hf_source
from apr.convert.source import Source
from apr.errors import DamagedFile
from apr.files import io_refusals, require_exists
from apr.progress import Report, silent

_MAGIC_BYTES = 4


def read_source(path: Path, *, progress: Report = silent) -> Source:
    """Read a Hugging Face directory, a safetensors file, a GGUF or a container.

    The kind is told by the first bytes, never by the name. Nothing in a directory is run.

    Refuses: files.not-found, import.unknown-kind, and what `read_hf_source`, `read_gguf_source`
    and `read_apr_source` refuse.
    """
    require_exists(path, "a model directory, a safetensors file, a GGUF or an .apr file")
    if path.is_dir():
        return read_hf_source(path)
    if not path.is_file():
        raise _unknown(path, "something that is neither a file nor a directory")
    with io_refusals(path), path.open("rb") as source:
        start = source.read(2 * _MAGIC_BYTES + 1)
    if start[:_MAGIC_BYTES] == b"GGUF":
        return read_gguf_source(path)
    if start[:3] == layout.MAGIC[:3]:
        return read_apr_source(path, progress=progress)
    # Eight bytes of length, then a JSON object.
    if start[8:9] == b"{":
        return read_hf_source(path)
    kinds = {b"PK": "a zip archive, as PyTorch pickles are", b"\x80\x02": "a pickle"}
    raise _unknown(path, kinds.get(start[:2], f"a file that starts with {start[:4]!r}"))


def _unknown(path: Path, found: str) -> DamagedFile:
    return DamagedFile(
        "import.unknown-kind",
        path,
        found=found,
        expected="a Hugging Face directory, a .safetensors, .gguf or .apr file",
        fix="pickles are never opened: save the model as safetensors where it was made, "
        "model.save_pretrained(DIR, safe_serialization=True)",
    )
