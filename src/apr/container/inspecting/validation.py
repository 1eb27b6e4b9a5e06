"""Whether a container is sound, byte by byte: the checks of `apr validate`.

A check that could compare nothing is UNKNOWN, and UNKNOWN blocks like FAIL. A check whose subject
the file does not have is not run at all and is listed as such, so that nothing looks proved that
was not looked at.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from apr.container import free_keys, layout
from apr.container.contents import require_contents
from apr.container.embedded_tokenizer import restore_tokenizer, vocabulary_problem
from apr.container.integrity import (
    check_footer,
    check_padding,
    check_tensor_sha256,
    recorded_sha256,
)
from apr.container.metadata import claims_a_model
from apr.container.provenance import check_chain
from apr.container.reader import Container
from apr.container.scan import Scan
from apr.errors import Refusal
from apr.progress import Report, silent

Verdict = Literal["PASS", "FAIL", "UNKNOWN"]


@dataclass(frozen=True)
class Check:
    """One claim about the file, and how it stands."""

    id: str
    verdict: Verdict
    found: str
    expected: str


@dataclass(frozen=True)
class NotApplicable:
    """A check whose subject the file does not have."""

    id: str
    reason: str


@dataclass(frozen=True)
class Validation:
    """Every check of one file."""

    path: str
    size_bytes: int
    checks: tuple[Check, ...]
    not_applicable: tuple[NotApplicable, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all checks."""
        verdicts = {check.verdict for check in self.checks}
        return "FAIL" if "FAIL" in verdicts else "UNKNOWN" if "UNKNOWN" in verdicts else "PASS"

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr validate --json` prints."""
        return {"verdict": self.verdict} | asdict(self)


def validate(path: Path, *, progress: Report = silent) -> Validation:
    """Read every byte of a container and judge it.

    Refuses: as `Container.open`, when the file cannot be read as a container at all, and
    container.truncated.
    """
    with Container.open(path) as container:
        recorded, hash_finding = _recorded(container)
        seen = container.scan(hashed=recorded, with_values=True, progress=progress)
        outcomes = (
            Check(
                "container.structure",
                "PASS",
                found=f"{len(container.tensors)} tensors in {container.size_bytes} bytes",
                expected="header, metadata, index, extents and sizes that agree",
            ),
            _footer(seen, str(path)),
            _padding(seen, str(path)),
            hash_finding or _tensor_sha256(seen, recorded, str(path)),
            _finite_values(container, seen),
            _spelling(container),
            _model(container),
            _tokenizer(container),
            _provenance(container),
        )
        return Validation(
            path=str(path),
            size_bytes=container.size_bytes,
            checks=tuple(outcome for outcome in outcomes if isinstance(outcome, Check)),
            not_applicable=tuple(o for o in outcomes if isinstance(o, NotApplicable)),
            notes=container.sections.notes,
        )


def _recorded(container: Container) -> tuple[dict[str, str], Check | None]:
    try:
        return recorded_sha256(container.sections, where=str(container.path)), None
    except Refusal as err:
        return {}, _failed("container.tensor-sha256", [err])


def _footer(seen: Scan, where: str) -> Check:
    if seen.footer_crc32 is None:
        return Check(
            "container.footer",
            "UNKNOWN",
            found="no footer",
            expected="a CRC-32 to compare the bytes with",
        )
    return _failed("container.footer", check_footer(seen, where=where)) or Check(
        "container.footer",
        "PASS",
        found=f"CRC-32 {seen.crc32:08x} over {seen.num_bytes - layout.FOOTER_BYTES} bytes",
        expected="the footer's CRC-32",
    )


def _padding(seen: Scan, where: str) -> Check | NotApplicable:
    if not seen.num_padding_bytes:
        return NotApplicable("container.padding", "everything ends on a multiple of 64")
    return _failed("container.padding", check_padding(seen, where=where)) or Check(
        "container.padding", "PASS", found=f"{seen.num_padding_bytes} zeros", expected="zeros"
    )


def _tensor_sha256(seen: Scan, recorded: dict[str, str], where: str) -> Check | NotApplicable:
    if not recorded:
        return NotApplicable("container.tensor-sha256", "no tensor's sha256 is recorded")
    findings = check_tensor_sha256(seen, recorded, where=where)
    return _failed("container.tensor-sha256", findings) or Check(
        "container.tensor-sha256",
        "PASS",
        found=f"{len(recorded)} of {len(recorded)} agree",
        expected="the sha256 recorded when the file was written",
    )


def _finite_values(container: Container, seen: Scan) -> Check:
    id, expected = "container.values-finite", "no NaN and no infinity"
    num_values = sum(entry.num_elements for entry in container.tensors.values())
    if not num_values:
        return Check(id, "UNKNOWN", found="no values", expected=expected)
    if seen.num_non_finite:
        name, count = next(iter(seen.num_non_finite.items()))
        found = f"{count} in {name!r}, {len(seen.num_non_finite)} tensors in all"
        return Check(id, "FAIL", found=found, expected=expected)
    return Check(id, "PASS", found=f"{num_values} values", expected=expected)


def _spelling(container: Container) -> Check:
    groups = container.sections.doubled_spellings
    found = "; ".join(" and ".join(group) for group in groups) or "one key for every field"
    expected = "one key for every field; two make the Rust serving crate drop all metadata"
    return Check("container.spelling", "FAIL" if groups else "PASS", found, expected)


def _model(container: Container) -> Check | NotApplicable:
    if not claims_a_model(container.metadata, container.tensors):
        return NotApplicable("container.model", "does not present itself as a transformer")
    try:
        architecture = require_contents(container)
    except Refusal as err:
        # Another family may be perfectly sound; it is only not known here.
        is_foreign = err.id == "container.architecture-unsupported"
        verdict = "UNKNOWN" if is_foreign else "FAIL"
        return Check("container.model", verdict, f"{err.id}: {err.found}", err.expected)
    return Check(
        "container.model",
        "PASS",
        found=f"{architecture.model_type}, {architecture.num_parameters} parameters",
        expected="the tensors of the architecture, by name, shape and type, and no others",
    )


def _tokenizer(container: Container) -> Check | NotApplicable:
    free = container.metadata.free
    has_flag = bool(container.sections.header.flags & layout.HAS_VOCAB)
    if not has_flag and not any(key.startswith("tokenizer.") for key in free):
        return NotApplicable("container.tokenizer", "no tokenizer is embedded")
    expected = "a vocabulary in which every index is one token's id, within the embedding"
    problem = vocabulary_problem(container.metadata)
    if problem is None and free_keys.TOKENIZER_JSON in free:
        try:
            restore_tokenizer(container.metadata, where=container.path)
        except Refusal as err:
            problem, expected = f"{err.id}: {err.found}", err.expected
    if problem is not None:
        return Check("container.tokenizer", "FAIL", problem, expected)
    exact = "restored exactly" if free_keys.TOKENIZER_JSON in free else "without a tokenizer.json"
    found = f"{len(free[free_keys.VOCABULARY])} tokens, {exact}"
    return Check("container.tokenizer", "PASS", found, expected)


def _provenance(container: Container) -> Check | NotApplicable:
    chain = check_chain(container.metadata)
    if chain.verdict is None:
        return NotApplicable("container.provenance", chain.found)
    expected = "a list of entries in which every hash is the one computed now"
    return Check("container.provenance", chain.verdict, chain.found, expected)


def _failed(id: str, findings: Iterable[Refusal]) -> Check | None:
    broken = list(findings)
    if not broken:
        return None
    more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
    return Check(id, "FAIL", f"{broken[0].where}: {broken[0].found}{more}", broken[0].expected)
