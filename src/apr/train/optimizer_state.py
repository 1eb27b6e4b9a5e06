"""The optimizer's tensors of a checkpoint: one file, or one from each rank with its part.

A run that deals its moments out has every rank write what it holds, `state-K-of-N.safetensors`,
with the rows of the whole tensor that each slice covers. Whoever reads gets whole tensors, so that
any number of ranks goes on from any other.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from apr.convert.huggingface.safetensors_writer import write_safetensors
from apr.convert.source import SourceTensor
from apr.errors import IoFailed
from apr.files import io_refusals, sync_directory
from apr.model.weights import tensor_bytes
from apr.train.parts import Extent

WHOLE_FILE = "state.safetensors"
_OF_A_RANK = re.compile(r"state-([0-9]{5})-of-([0-9]{5})\.safetensors")
_STORED_DTYPES = {torch.float32: "f32", torch.uint8: "u8"}
_EXTENTS = "apr_extents"
_LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Share:
    """What one rank holds: tensors, and of those that are parts which rows of the whole."""

    tensors: dict[str, Tensor]
    extents: dict[str, Extent]
    rank: int = 0
    num_ranks: int = 1
    """How many shares there are; one holds everything."""

    @property
    def file_name(self) -> str:
        """Of this share, within a checkpoint."""
        if self.num_ranks == 1:
            return WHOLE_FILE
        return f"state-{self.rank + 1:05d}-of-{self.num_ranks:05d}.safetensors"


def write_share(path: Path, share: Share) -> None:
    """Write one share; it is read back and compared with memory.

    Refuses: files.io-failed, and as `write_safetensors`.
    """
    extents = {name: list(extent) for name, extent in share.extents.items()}
    write_safetensors(
        path,
        [_stored(name, tensor) for name, tensor in share.tensors.items()],
        metadata={_EXTENTS: json.dumps(extents)} if extents else {},
    )


def meeting_place(checkpoint: Path, sitting: str) -> Path:
    """Where the ranks of one sitting put the shares of a checkpoint together.

    A rank may outlive the first one, and leave its share when the run has gone on already, perhaps
    otherwise: what it leaves is in no place that anybody looks at any more.
    """
    return checkpoint.with_name(f".{checkpoint.name}.{sitting}.shares")


def leave_share(place: Path, share: Share) -> None:
    """Write a share where the first rank will look for it.

    Refuses: as `write_share`.
    """
    with io_refusals(place):
        place.mkdir(exist_ok=True)
    write_share(place / f"{share.rank}.safetensors", share)
    with io_refusals(place):
        # The last thing done here: the first rank takes the file and the place away.
        (place / f"{share.rank}.safetensors").rename(place / share.file_name)


def collect_shares(
    place: Path, share: Share, into: Path, *, should_give_up: Callable[[], bool]
) -> None:
    """Move the shares of all other ranks into a checkpoint, each once it is whole.

    Refuses: files.io-failed when the run has ended before a share was there.
    """
    for rank in range(1, share.num_ranks):
        name = Share({}, {}, rank, share.num_ranks).file_name
        while not (place / name).is_file():
            if should_give_up():
                raise IoFailed(
                    "files.io-failed",
                    place / name,
                    found="the run ended before another rank had written it",
                    expected="a share of every rank, on a file system that all of them see",
                    fix="resume from the checkpoint before",
                )
            time.sleep(_LOOK_EVERY_S)
        with io_refusals(into):
            (place / name).rename(into / name)
    if share.num_ranks > 1:
        with io_refusals(place):
            place.rmdir()
            sync_directory(place.parent)


class StoredState(Mapping[str, Tensor]):
    """The tensors of a checkpoint's state by name, each put together when it is asked for.

    A context manager. KeyError where a name or a part is missing, or a part is there twice.
    """

    def __init__(self, directory: Path) -> None:
        self._paths = state_files(directory)
        self._opened = ExitStack()
        self._parts: dict[str, list[tuple[Extent | None, Path]]] = {}
        self._files: dict[Path, safe_open] = {}

    def __enter__(self) -> "StoredState":
        for path in self._paths:
            self._files[path] = file = self._opened.enter_context(safe_open(path, "pt"))
            extents = json.loads((file.metadata() or {}).get(_EXTENTS, "{}"))
            for name in file.keys():  # noqa: SIM118  it is no mapping
                extent = Extent(*extents[name]) if name in extents else None
                self._parts.setdefault(name, []).append((extent, path))
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, name: str) -> Tensor:
        parts = self._parts[name]
        extent, path = parts[0]
        if extent is None:
            # Every rank has the same of what is not dealt out; the first one's counts.
            return self._files[path].get_tensor(name)
        pieces = [(each, self._files[path].get_tensor(name)) for each, path in parts if each]
        next_row = 0
        for extent, rows in pieces:
            if extent.first_row != next_row:
                break
            next_row += len(rows)
        if next_row != pieces[0][0].whole_rows or len(pieces) != len(parts):
            raise KeyError(f"{name}: rows from {next_row} on are not there, or twice")
        return torch.cat([rows for _, rows in pieces])


def state_files(directory: Path) -> list[Path]:
    """The files of a checkpoint's state, all of them.

    KeyError when one is missing.
    """
    if (directory / WHOLE_FILE).is_file():
        return [directory / WHOLE_FILE]
    found = sorted(each for each in directory.iterdir() if _OF_A_RANK.fullmatch(each.name))
    num_ranks = {int(path.name.partition("-of-")[2][:5]) for path in found}
    if num_ranks != {len(found)}:
        raise KeyError(f"{len(found)} shares of {sorted(num_ranks)}")
    return found


def _stored(name: str, tensor: Tensor) -> SourceTensor:
    return SourceTensor(
        name, _STORED_DTYPES[tensor.dtype], tuple(tensor.shape), lambda: [tensor_bytes(tensor)]
    )
