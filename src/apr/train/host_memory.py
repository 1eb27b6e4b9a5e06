"""What a run holds of a host's memory besides its model: the interpreter, and what was read."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from apr.train.workload import Workload

_MIB = 1 << 20
# Python, torch and its threads, measured; a compiler comes on top (docs/log.md).
_INTERPRETER_BYTES = 370 * _MIB
_COMPILER_BYTES = 80 * _MIB
# What a build of torch with CUDA takes more, whatever it computes on.
_CUDA_LIBRARIES_BYTES = 310 * _MIB
# A vocabulary held by the encoder and by our own tables, per entry.
_VOCABULARY_ENTRY_BYTES = 600
_DOCUMENT_BYTES = 24


def around_the_model(work: Workload) -> dict[str, int]:
    """What is there besides the model."""
    if not work.on_cpu:
        return {}
    shape = work.architecture
    return {
        "interpreter": _interpreter_bytes() + (0 if work.compiled is False else _COMPILER_BYTES),
        "tokenizer and documents": _VOCABULARY_ENTRY_BYTES * shape.vocab_size
        + _DOCUMENT_BYTES * work.num_documents,
    }


@cache
def _interpreter_bytes() -> int:
    # Asked of the files, because nothing here loads torch.
    torch = find_spec("torch")
    folders = [] if torch is None else torch.submodule_search_locations or []
    has_cuda = any(list(Path(folder).glob("lib/*torch_cuda.*")) for folder in folders)
    return _INTERPRETER_BYTES + (_CUDA_LIBRARIES_BYTES if has_cuda else 0)
