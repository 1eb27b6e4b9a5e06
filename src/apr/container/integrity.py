"""Judging a scan: which promises of the file about its own bytes hold.

The footer covers every byte, and anyone can recompute it. The sha256 of each tensor, kept in a free
key by the model writer, also says which tensor differs, and notices two tensors that changed
places.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from apr.container import free_keys
from apr.container.advice import COPY_AGAIN
from apr.container.scan import Scan
from apr.container.sections import Sections
from apr.errors import DamagedFile

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Integrity:
    """What was proved: every byte against the footer, and some tensors against a sha256."""

    size_bytes: int
    crc32: str
    num_tensors: int
    num_tensors_hashed: int
    """Tensors whose sha256 was recorded and agrees."""


def require_intact(
    seen: Scan, sections: Sections, recorded: dict[str, str], *, where: str
) -> Integrity:
    """Refuse the first promise that does not hold, the most precise one first.

    Refuses: container.tensor-sha256-mismatch, container.padding-not-zero,
    container.footer-missing, container.footer-mismatch.
    """
    for finding in (
        *check_tensor_sha256(seen, recorded, where=where),
        *check_padding(seen, where=where),
        *check_footer(seen, where=where),
    ):
        raise finding
    return Integrity(
        size_bytes=seen.num_bytes,
        crc32=f"{seen.crc32:08x}",
        num_tensors=len(sections.tensors),
        num_tensors_hashed=len(recorded),
    )


def check_tensor_sha256(
    seen: Scan, recorded: dict[str, str], *, where: str
) -> Iterator[DamagedFile]:
    """One finding for every tensor that is not what was recorded when it was written."""
    for name, sha256 in recorded.items():
        if seen.tensor_sha256[name] != sha256:
            yield DamagedFile(
                "container.tensor-sha256-mismatch",
                f"{where}, tensor {name!r}",
                found=f"sha256 {seen.tensor_sha256[name]}",
                expected=f"{sha256}, as recorded when it was written",
                fix=COPY_AGAIN,
            )


def check_padding(seen: Scan, *, where: str) -> Iterator[DamagedFile]:
    """A finding when the padding is not all zeros."""
    if seen.nonzero_padding_at is not None:
        yield DamagedFile(
            "container.padding-not-zero",
            where,
            found=f"a byte that is not zero at {seen.nonzero_padding_at}",
            expected="padding of zeros",
            fix=COPY_AGAIN,
        )


def check_footer(seen: Scan, *, where: str) -> Iterator[DamagedFile]:
    """A finding when the footer is missing or differs; missing, it compares nothing."""
    if seen.footer_crc32 is None:
        yield DamagedFile(
            "container.footer-missing",
            where,
            found="no footer: nothing to compare the bytes with",
            expected="a CRC-32 after the data, where every writer of the format puts one",
            fix=COPY_AGAIN,
        )
    elif seen.footer_crc32 != seen.crc32:
        yield DamagedFile(
            "container.footer-mismatch",
            where,
            found=f"CRC-32 {seen.crc32:08x}",
            expected=f"{seen.footer_crc32:08x}, as the footer says",
            fix=COPY_AGAIN,
        )


def recorded_sha256(sections: Sections, *, where: str) -> dict[str, str]:
    """The sha256 of every tensor as its writer recorded it; empty when none was.

    Refuses: container.metadata-value, container.tensor-sha256-incomplete.
    """
    recorded = sections.metadata.free.get(free_keys.TENSOR_SHA256)
    if recorded is None:
        return {}
    if not _is_hashes(recorded):
        raise DamagedFile(
            "container.metadata-value",
            f"{where}, metadata key {free_keys.TENSOR_SHA256}",
            found=f"{recorded!r:.60}",
            expected="an object of tensor names and hex sha256",
            fix=COPY_AGAIN,
        )
    hashes = cast(dict[str, str], recorded)
    if differing := sorted(hashes.keys() ^ sections.tensors.keys()):
        raise DamagedFile(
            "container.tensor-sha256-incomplete",
            where,
            found=f"{len(differing)} names only recorded or only in the file: {differing[0]!r:.80}",
            expected="a recorded sha256 for every tensor in the file, and no other",
            fix=COPY_AGAIN,
        )
    return hashes


def _is_hashes(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    hashes = cast(dict[str, Any], value).values()
    return all(isinstance(sha256, str) and _SHA256.fullmatch(sha256) for sha256 in hashes)
