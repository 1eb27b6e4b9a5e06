"""Reading the front of a GGUF file: every length is compared with the file before it is used.

A window of the file is in memory at a time, read with `os.pread`, so that what is read is counted
and nothing is mapped.
"""

import os
import struct

import numpy as np
from numpy.typing import NDArray

from apr.convert.gguf.layout import SCALAR_FORMATS, ValueType
from apr.errors import DamagedFile
from apr.files import io_refusals

COPY_AGAIN = "the file is damaged or cut; copy it again and compare sha256"

# Ten times the fields and tensor infos of the largest published vocabularies.
FRONT_LIMIT_BYTES = 256 << 20
_WINDOW_BYTES = 1 << 20


class Cursor:
    """A position in the front of a file, moved by what is read."""

    def __init__(self, descriptor: int, size_bytes: int, *, where: str) -> None:
        self.where = where
        self.at = 0
        self.num_elements = 0
        """Strings and arrays in arrays so far, each an object of its own in memory."""
        self._descriptor = descriptor
        self._size_bytes = size_bytes
        self._window = b""
        self._window_at = 0

    @property
    def left_bytes(self) -> int:
        """How much of the file is still to come."""
        return self._size_bytes - self.at

    def require(self, size_bytes: int, what: str) -> None:
        """Refuse a claim that goes beyond the file, or beyond what any front needs.

        Refuses: gguf.truncated, gguf.front-too-large.
        """
        if size_bytes > self.left_bytes:
            raise DamagedFile(
                "gguf.truncated",
                self.where,
                found=f"{self._size_bytes} bytes",
                expected=f"at least {self.at + size_bytes}, for {what}",
                fix=COPY_AGAIN,
            )
        if self.at + size_bytes > FRONT_LIMIT_BYTES:
            raise DamagedFile(
                "gguf.front-too-large",
                self.where,
                found=f"more than {FRONT_LIMIT_BYTES} bytes of fields and tensor infos",
                expected="a front that a model needs",
                fix="get the file from a source you trust",
            )

    def take(self, size_bytes: int, what: str) -> bytes:
        """The next bytes.

        Refuses: gguf.truncated, gguf.front-too-large, files.io-failed.
        """
        start = self.at - self._window_at
        if start + size_bytes > len(self._window):
            self.require(size_bytes, what)
            with io_refusals(self.where):
                self._window = os.pread(self._descriptor, max(size_bytes, _WINDOW_BYTES), self.at)
            self._window_at = self.at
            start = 0
            if len(self._window) < size_bytes:
                self._size_bytes = self.at + len(self._window)  # it was cut while it was read
                self.require(size_bytes, what)
        self.at += size_bytes
        return self._window[start : start + size_bytes]

    def u32(self, what: str) -> int:
        """The next four bytes as a number."""
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        """The next eight bytes as a number."""
        return int.from_bytes(self.take(8, what), "little")

    def text(self, what: str) -> str:
        """A string: its length, then UTF-8.

        Refuses: gguf.text-damaged, gguf.truncated, gguf.front-too-large.
        """
        length = self.u64(what)
        data = self.take(length, what)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as err:
            raise DamagedFile(
                "gguf.text-damaged",
                f"{self.where}, {what}",
                found=f"{data!r:.80}",
                expected="text in UTF-8",
                fix=COPY_AGAIN,
            ) from err

    def scalar(self, kind: ValueType, what: str) -> int | float | bool:
        """One number or bool.

        Refuses: gguf.bool-damaged, gguf.truncated, gguf.front-too-large.
        """
        form = SCALAR_FORMATS[kind]
        (value,) = struct.unpack(form, self.take(struct.calcsize(form), what))
        if kind == ValueType.BOOL:
            self._require_bools(value <= 1, what)
            return bool(value)
        return value

    def numbers(self, kind: ValueType, count: int, what: str) -> NDArray[np.generic]:
        """An array of numbers or bools.

        Refuses: gguf.bool-damaged, gguf.truncated, gguf.front-too-large.
        """
        dtype = np.dtype(SCALAR_FORMATS[kind])
        array = np.frombuffer(self.take(count * dtype.itemsize, what), dtype=dtype)
        if kind == ValueType.BOOL:
            self._require_bools(bool((array <= 1).all()), what)
        return array

    def _require_bools(self, are_bools: bool, what: str) -> None:
        if not are_bools:
            raise DamagedFile(
                "gguf.bool-damaged",
                f"{self.where}, {what}",
                found="a byte that is neither 0 nor 1",
                expected="a bool",
                fix=COPY_AGAIN,
            )
