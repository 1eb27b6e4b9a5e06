"""What a run holds of a host's memory besides its model: the interpreter, and what was read."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from apr.train.hidden_matrices import num_moments
from apr.train.workload import FP32_BYTES, Workload

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
    """What lies in the memory that the model is in, besides the model."""
    return _around(work, 1) if work.on_cpu else {}


def beside_the_devices(work: Workload, num_local_ranks: int) -> dict[str, int]:
    """What the ranks of one host hold in its memory while CUDA devices hold their models.

    The first rank copies all weights for a checkpoint, and whoever has moments copies those. What
    a compiler's own processes take for a while is not counted.
    """
    shape = work.architecture
    moments = FP32_BYTES * num_moments(shape, work.optimizer)
    here = min(num_local_ranks, work.num_shards)
    return _around(work, num_local_ranks) | {
        "checkpoint snapshot": FP32_BYTES * shape.num_parameters + moments * here // work.num_shards
    }


def _around(work: Workload, num_processes: int) -> dict[str, int]:
    compiler = 0 if work.compiled is False else _COMPILER_BYTES
    vocabulary = _VOCABULARY_ENTRY_BYTES * work.architecture.vocab_size
    return {
        "interpreter": num_processes * (_interpreter_bytes(work.on_cpu) + compiler),
        "tokenizer and documents": num_processes
        * (vocabulary + _DOCUMENT_BYTES * work.num_documents),
    }


@cache
def _interpreter_bytes(on_cpu: bool) -> int:
    # Asked of the files, because nothing here loads torch.
    torch = find_spec("torch")
    folders = [] if torch is None else torch.submodule_search_locations or []
    has_cuda = any(list(Path(folder).glob("lib/*torch_cuda.*")) for folder in folders)
    return _INTERPRETER_BYTES + (_CUDA_LIBRARIES_BYTES if has_cuda or not on_cpu else 0)
