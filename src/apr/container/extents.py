"""A map of the file in which every byte has exactly one owner.

Two tensors that overlap, or bytes between them that belong to nothing, cannot be damage that only
looks odd: no writer makes them. The map is also what lets verification read a file once, in order.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from apr.container import layout
from apr.container.advice import COPY_AGAIN, WRITE_AGAIN
from apr.container.layout import TensorEntry
from apr.errors import DamagedFile


@dataclass(frozen=True)
class Extent:
    """A run of bytes with one owner: a section, a tensor, or `padding`."""

    start: int
    stop: int
    owner: str
    tensor: TensorEntry | None = None


def extent_of(entry: TensorEntry, *, data_offset: int) -> Extent:
    """Where in the file a tensor's bytes lie."""
    start = data_offset + entry.offset
    return Extent(start, start + entry.size_bytes, "tensor", entry)


def tiled(owned: Iterable[Extent], *, data_offset: int, where: str) -> tuple[Extent, ...]:
    """Extents from the first byte to the end of the padded data, gaps filled with padding.

    Refuses: container.tensors-overlap, container.hole.
    """
    tiles: list[Extent] = []
    at = 0
    # An extent without bytes owns nothing and may lie on any border.
    for extent in sorted((e for e in owned if e.start < e.stop), key=lambda e: (e.start, e.stop)):
        if extent.start < at:
            raise DamagedFile(
                "container.tensors-overlap",
                f"{where}, {_named(extent)}",
                found=f"it starts at byte {extent.start}",
                expected=f"{at} or later, where {_named(tiles[-1])} ends",
                fix=COPY_AGAIN,
            )
        tiles += _padding(at, extent.start, where)
        tiles.append(extent)
        at = extent.stop
    # Without tensor data the data section is empty and still begins where the header says.
    end = layout.padded(max(at, data_offset))
    tiles += _padding(at, end, where)
    return tuple(tiles)


def _padding(start: int, stop: int, where: str) -> list[Extent]:
    if stop - start >= layout.ALIGNMENT:
        raise DamagedFile(
            "container.hole",
            where,
            found=f"{stop - start} bytes at {start} that belong to nothing",
            expected=f"at most {layout.ALIGNMENT - 1} bytes of padding",
            fix=WRITE_AGAIN,
        )
    return [Extent(start, stop, "padding")] if stop > start else []


def _named(extent: Extent) -> str:
    return f"tensor {extent.tensor.name!r}" if extent.tensor else extent.owner
