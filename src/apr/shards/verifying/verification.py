"""The checks of a directory of shards, and what they come to.

A check that could compare nothing is UNKNOWN and blocks like FAIL. One may stay UNKNOWN without
blocking: where the documents came from, as shards are the same data without it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from apr.errors import Refusal
from apr.shards.manifest import Manifest

Verdict = Literal["PASS", "FAIL", "UNKNOWN"]


@dataclass(frozen=True)
class Check:
    """One claim about the directory, and how it stands; a FAIL carries its refusal."""

    name: str
    verdict: Verdict
    found: str
    expected: str
    refusal: Refusal | None = None
    is_optional: bool = False

    @property
    def blocks(self) -> bool:
        """Whether the directory must not be called verified."""
        return self.verdict == "FAIL" or (self.verdict == "UNKNOWN" and not self.is_optional)

    def as_dict(self) -> dict[str, Any]:
        """The check as `--json` prints it."""
        return {
            "check": self.name,
            "verdict": self.verdict,
            "found": self.found,
            "expected": self.expected,
            "id": self.refusal.id if self.refusal else None,
        }


def passed(name: str, found: str, expected: str) -> Check:
    """A check that compared something and found it so."""
    return Check(name, "PASS", found, expected)


def failed(name: str, refusal: Refusal) -> Check:
    """A check that says no."""
    return Check(name, "FAIL", f"{refusal.where}: {refusal.found}", refusal.expected, refusal)


def unknown(name: str, found: str, expected: str, *, is_optional: bool = False) -> Check:
    """A check that had nothing to compare."""
    return Check(name, "UNKNOWN", found, expected, is_optional=is_optional)


@dataclass(frozen=True)
class Verification:
    """Every check of one directory."""

    directory: Path
    manifest: Manifest
    manifest_sha256: str
    checks: tuple[Check, ...]
    num_compared: int
    """Documents that were decoded and encoded again."""

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all checks that block."""
        verdicts = {check.verdict for check in self.checks if check.blocks}
        return "FAIL" if "FAIL" in verdicts else "UNKNOWN" if verdicts else "PASS"

    @property
    def unknown(self) -> tuple[str, ...]:
        """What could not be compared, blocking or not."""
        return tuple(check.name for check in self.checks if check.verdict == "UNKNOWN")

    @property
    def refusal(self) -> Refusal | None:
        """What the first blocking check refuses with; None for a directory that is verified."""
        for check in self.checks:
            if check.refusal is not None:
                return check.refusal
        blocking = [check for check in self.checks if check.blocks]
        if not blocking:
            return None
        return Refusal(
            "shards.verify-unknown",
            self.directory,
            found="; ".join(f"{check.name}: {check.found}" for check in blocking),
            expected="something to compare for every check",
            fix="pass the tokenizer that made the shards with --tokenizer; shards that were "
            "repaired can only be verified by encoding their corpus again",
        )

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr tokenize verify --json` prints."""
        return {
            "verdict": self.verdict,
            "directory": str(self.directory),
            "manifest_sha256": self.manifest_sha256,
            "total_tokens": self.manifest.total_tokens,
            "total_documents": self.manifest.total_documents,
            "num_documents_compared": self.num_compared,
            "unknown": list(self.unknown),
            "checks": [check.as_dict() for check in self.checks],
        }
