"""Which files of a Hugging Face directory hold the weights, and every tensor in exactly one.

A directory may come from anywhere: the names in its index are names of files inside it and nothing
else, and the index and the shards must say the same.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from apr.convert.huggingface.safetensors_file import SafetensorsFile
from apr.convert.source import SourceTensor
from apr.errors import DamagedFile, PathNotFound, Refusal
from apr.files import io_refusals, read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_INDEX_LIMIT_BYTES = 64 << 20
_SHARDS_LIMIT = 4096
# What Python unpickles, and so could run; nothing of it is opened.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class Weights:
    """The tensors of a directory, and the files they are in."""

    tensors: Mapping[str, SourceTensor]
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def read_weights(directory: Path, *, only: Path | None = None) -> Weights:
    """Every tensor of a model directory, or of one file in it.

    Refuses: import.weights-missing, import.pickle, import.weights-twice, import.one-shard,
    import.index-damaged, import.index-path, import.shard-missing, import.index-differs,
    import.tensor-repeated, and as `SafetensorsFile.open`.
    """
    index = directory / INDEX
    if only is not None:
        if index.exists() and only.name in set(_weight_map(index)[0].values()) - {WEIGHTS}:
            raise Refusal(
                "import.one-shard",
                only,
                found=f"one of the files that {INDEX} lists",
                expected="the whole model",
                fix=f"name the directory: {directory}",
            )
        return Weights(SafetensorsFile.open(only).tensors(), (only,), ())
    single = directory / WEIGHTS
    if not index.exists():
        if not single.exists():
            _refuse_no_weights(directory)
        notes = _unread(directory, {WEIGHTS})
        return Weights(SafetensorsFile.open(single).tensors(), (single,), notes)
    return _sharded(directory, index)


def _sharded(directory: Path, index: Path) -> Weights:
    weight_map, total_bytes = _weight_map(index)
    names = sorted(set(weight_map.values()))
    if (directory / WEIGHTS).exists() and names != [WEIGHTS]:
        raise Refusal(
            "import.weights-twice",
            directory,
            found=f"{WEIGHTS}, and {INDEX} that names {names[0]}",
            expected="one of the two: libraries differ in which they read",
            fix="delete the one that is out of date",
        )
    shards = {name: _open_shard(directory, name, index) for name in names}
    _require_index_agrees(index, weight_map, shards)
    tensors = {name: shards[file].tensor(name) for name, file in weight_map.items()}
    notes = _unread(directory, set(names))
    stored = sum(entry.size_bytes for file in shards.values() for entry in file.entries.values())
    # Writers count a shared tensor once or twice, so the number decides nothing.
    if total_bytes not in (None, stored):
        notes += (f"{INDEX} says {total_bytes} bytes of tensors, the files hold {stored}",)
    return Weights(tensors, (index, *(directory / name for name in names)), notes)


def _weight_map(index: Path) -> tuple[dict[str, str], Any]:
    what = f"a {INDEX} with a weight_map from tensors to files"
    value: Any = read_json(
        index, limit_bytes=_INDEX_LIMIT_BYTES, id="import.index-damaged", what=what
    )
    if isinstance(value, dict):
        fields = cast(dict[str, Any], value)
        weight_map, metadata = fields.get("weight_map"), fields.get("metadata")
        if isinstance(weight_map, dict) and weight_map:
            pairs = cast(dict[str, Any], weight_map)
            if all(isinstance(file, str) for file in pairs.values()):
                total = cast(dict[str, Any], metadata) if isinstance(metadata, dict) else {}
                return pairs, total.get("total_size")
    raise DamagedFile(
        "import.index-damaged",
        index,
        found=f"{value!r:.80}",
        expected=what,
        fix="restore the file from its source",
    )


def _open_shard(directory: Path, name: str, index: Path) -> SafetensorsFile:
    if not name.endswith(".safetensors") or set(name) & {"/", "\\", "\0"} or name.startswith("."):
        _refuse_path(index, f"the file {name!r:.120}")
    path = directory / name
    if not os.path.lexists(path):
        raise PathNotFound(
            "import.shard-missing",
            index,
            found=f"no {name}",
            expected="every file that the index names",
            fix="download the rest of the model",
        )
    real = Path(os.path.realpath(path))
    home = Path(os.path.realpath(directory))
    # The cache of huggingface_hub keeps files once, in blobs/, and snapshots/REVISION/ links them.
    allowed = [home, home.parent.parent / "blobs" if home.parent.name == "snapshots" else home]
    if real.parent not in allowed:
        _refuse_path(index, f"{name}, a link to {real}")
    return SafetensorsFile.open(path)


def _require_index_agrees(
    index: Path, weight_map: Mapping[str, str], shards: Mapping[str, SafetensorsFile]
) -> None:
    place: dict[str, str] = {}
    for file, shard in shards.items():
        for tensor in shard.entries:
            if tensor in place:
                raise Refusal(
                    "import.tensor-repeated",
                    f"{index.parent}, tensor {tensor!r:.80}",
                    found=f"it is in {place[tensor]} and in {file}",
                    expected="every tensor once",
                    fix="the files are of two savings of the model; download it again",
                )
            place[tensor] = file
    for tensor, file in weight_map.items():
        if place.get(tensor) != file:
            there = place.get(tensor)
            found = f"it is in {there}" if there else "it is in no file of the index"
            _refuse_index(index, tensor, found, f"it in {file}, as the index says")
    for tensor, file in place.items():
        if tensor not in weight_map:
            _refuse_index(index, tensor, f"it is in {file}", "only tensors that the index lists")


def _unread(directory: Path, read: set[str]) -> tuple[str, ...]:
    with io_refusals(directory):
        names = sorted(entry.name for entry in directory.iterdir())
    others = [
        name
        for name in names
        if name not in read and name.endswith((".safetensors", ".gguf", *PICKLES))
    ]
    return (f"not read: {_listed(others)}",) if others else ()


def _refuse_no_weights(directory: Path) -> NoReturn:
    with io_refusals(directory):
        names = sorted(entry.name for entry in directory.iterdir())
    if pickles := [name for name in names if name.endswith(PICKLES)]:
        refuse_pickle(directory, pickles)
    raise PathNotFound(
        "import.weights-missing",
        directory,
        found=_listed(names) or "nothing",
        expected=f"{WEIGHTS}, or {INDEX} and the files it names",
        fix="download the weights, or name the .safetensors file itself",
    )


def refuse_pickle(where: Path, names: Iterable[str]) -> NoReturn:
    """Refuse weights that only Python's pickle could read.

    Refuses: import.pickle.
    """
    raise Refusal(
        "import.pickle",
        where,
        found=f"{_listed(list(names))}: reading pickled weights runs code that is in the file",
        expected=f"{WEIGHTS}",
        fix="where you trust the file, save it again: "
        "AutoModelForCausalLM.from_pretrained(dir)"
        ".save_pretrained(dir2, safe_serialization=True)",
    )


def _refuse_path(index: Path, found: str) -> NoReturn:
    raise Refusal(
        "import.index-path",
        index,
        found=found,
        expected="plain names of .safetensors files inside the directory",
        fix="get the model from a source you trust",
    )


def _refuse_index(index: Path, tensor: str, found: str, expected: str) -> NoReturn:
    raise Refusal(
        "import.index-differs",
        f"{index}, tensor {tensor!r:.80}",
        found=found,
        expected=expected,
        fix="the index and the files are of two savings of the model; download it again",
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return ", ".join(names[:6]) + more
