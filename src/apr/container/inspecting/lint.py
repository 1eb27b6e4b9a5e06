"""What a container lacks or spells badly, and how to mend it: the findings of `apr lint`.

Only header, metadata and index are read, so a file of any size answers at once; whether its bytes
are sound is for `validation`. A rule whose subject the file does not have is not applied, and a
file with nothing to look at is UNKNOWN, never clean.
"""

import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from apr.container import free_keys, layout
from apr.container.embedded_tokenizer import vocabulary_problem
from apr.container.identity import check_identity
from apr.container.metadata import architecture_from_metadata, claims_a_model
from apr.container.provenance import check_chain, entries_of
from apr.container.reader import Container
from apr.container.spdx import spdx_problem
from apr.errors import Refusal
from apr.units import format_bytes

Level = Literal["error", "warning", "info"]
FailOn = Literal["error", "warning", "never"]

LEVELS: dict[str, Level] = {
    "lint.doubled-spelling": "error",
    "lint.identity-missing": "error",
    "lint.identity-contradictory": "error",
    "lint.identity-unknown": "info",
    "lint.architecture-incomplete": "error",
    "lint.license-missing": "warning",
    "lint.data-source-missing": "warning",
    "lint.data-license-missing": "warning",
    "lint.license-not-spdx": "warning",
    "lint.provenance-missing": "warning",
    "lint.provenance-edited": "error",
    "lint.model-card-missing": "warning",
    "lint.name-missing": "info",
    "lint.footer-missing": "warning",
    "lint.tensor-sha256-missing": "info",
    "lint.tensors-unaligned": "info",
    "lint.dtype-misread": "warning",
    "lint.large-unquantized": "info",
    "lint.tokenizer-missing": "warning",
    "lint.tokenizer-inexact": "warning",
    "lint.vocabulary-unusable": "error",
    "lint.padding-token": "warning",
}
"""Every finding there is, and how bad it is."""

_MODEL_CARD = 0x0080
_PADDING_TOKEN_ID = "tokenizer.padding_token_id"
# Above this, sending and loading the file costs more than most need to pay.
_LARGE_BYTES = 4 << 30


@dataclass(frozen=True)
class Finding:
    """One thing to mend."""

    id: str
    level: Level
    found: str
    fix: str


@dataclass(frozen=True)
class Lint:
    """The findings of one file."""

    path: str
    fail_on: FailOn
    findings: tuple[Finding, ...]
    applied: tuple[str, ...]
    """Rules that had something to look at."""
    not_applied: tuple[str, ...]
    num_tensors: int

    @property
    def verdict(self) -> Literal["PASS", "FAIL", "UNKNOWN"]:
        """FAIL on a finding that is as bad as asked for; UNKNOWN when nothing was looked at."""
        if not self.applied or not self.num_tensors:
            return "UNKNOWN"
        levels: dict[FailOn, tuple[Level, ...]] = {
            "error": ("error",),
            "warning": ("error", "warning"),
            "never": (),
        }
        failing = any(finding.level in levels[self.fail_on] for finding in self.findings)
        return "FAIL" if failing else "PASS"

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr lint --json` prints."""
        counts = {
            level: sum(finding.level == level for finding in self.findings)
            for level in ("error", "warning", "info")
        }
        return {"verdict": self.verdict, "counts": counts} | asdict(self)


def lint(path: Path, *, fail_on: FailOn = "warning") -> Lint:
    """Read what a container says about itself and list what to mend.

    Refuses: as `Container.open`.
    """
    with Container.open(path) as container:
        findings: list[Finding] = []
        applied: list[str] = []
        not_applied: list[str] = []
        for name, rule in _RULES.items():
            problems = rule(container)
            (not_applied if problems is None else applied).append(name)
            findings += problems or []
        order: tuple[Level, ...] = ("error", "warning", "info")
        return Lint(
            path=str(path),
            fail_on=fail_on,
            findings=tuple(sorted(findings, key=lambda finding: order.index(finding.level))),
            applied=tuple(applied),
            not_applied=tuple(not_applied),
            num_tensors=len(container.tensors),
        )


def _finding(id: str, found: str, fix: str) -> Finding:
    return Finding(id, LEVELS[id], found, fix)


def _stamp(container: Container, *options: str) -> str:
    return f"apr stamp {shlex.quote(str(container.path))} {' '.join(options)} -o OUT"


def _spelling(container: Container) -> list[Finding]:
    return [
        _finding(
            "lint.doubled-spelling",
            f"one field under {' and '.join(group)}: the Rust serving crate drops all metadata",
            f"any stamp writes one spelling: {_stamp(container, '--name NAME')}",
        )
        for group in container.sections.doubled_spellings
    ]


def _identity(container: Container) -> list[Finding] | None:
    metadata = container.metadata
    if not claims_a_model(metadata, container.tensors):
        return None
    missing = [key for key in ("hf_architecture", "hf_model_type") if not getattr(metadata, key)]
    if missing:
        options = ("--hf-architecture CLASS", "--hf-model-type FAMILY", "--architecture FAMILY")
        found = f"no {', '.join(missing)}: the model cannot be built"
        return [_finding("lint.identity-missing", found, _stamp(container, *options))]
    identity = check_identity(container, metadata)
    if identity.verdict == "FAIL":
        fix = "stamp the family that the tensors show, or import the model again from its source"
        return [_finding("lint.identity-contradictory", identity.found, fix)]
    if identity.verdict == "UNKNOWN":
        fix = "nothing, when a tool that knows this family made the file"
        return [_finding("lint.identity-unknown", identity.found, fix)]
    try:
        architecture_from_metadata(metadata, container.tensors, container.path)
    except Refusal as err:
        return [_finding("lint.architecture-incomplete", err.found, err.fix)]
    return []


def _origin(container: Container) -> list[Finding]:
    metadata = container.metadata
    licences = {"--license": metadata.license, "--data-license": metadata.data_license}
    return [
        *(
            _finding(id, f"no {key}", _stamp(container, option))
            for id, key, option in (
                ("lint.license-missing", "license", "--license SPDX"),
                ("lint.data-source-missing", "data_source", "--data-source TEXT"),
                ("lint.data-license-missing", "data_license", "--data-license SPDX"),
            )
            if not (getattr(metadata, key) or "").strip()
        ),
        *(
            _finding(
                "lint.license-not-spdx",
                f"{option.strip('-')} {text!r:.60}: {problem}",
                _stamp(container, f"{option} SPDX"),
            )
            for option, text in licences.items()
            if text and text.strip() and (problem := spdx_problem(text))
        ),
    ]


def _provenance(container: Container) -> list[Finding]:
    chain = check_chain(container.metadata)
    if chain.verdict == "FAIL":
        fix = "use the file as it was before it was edited"
        return [_finding("lint.provenance-edited", chain.found, fix)]
    if not entries_of(container.metadata):
        fix = _stamp(container, "--data-source TEXT", "--author NAME")
        return [_finding("lint.provenance-missing", "nobody says where it comes from", fix)]
    return []


def _description(container: Container) -> list[Finding]:
    metadata, flags = container.metadata, container.sections.header.flags
    findings: list[Finding] = []
    if not (flags & _MODEL_CARD or (metadata.description or "").strip()):
        found = "no description, and no flag that says there is a model card"
        fix = _stamp(container, "--description TEXT")
        findings.append(_finding("lint.model-card-missing", found, fix))
    if not (metadata.name or "").strip():
        findings.append(_finding("lint.name-missing", "no name", _stamp(container, "--name NAME")))
    return findings


def _integrity(container: Container) -> list[Finding]:
    findings: list[Finding] = []
    if not container.sections.has_footer:
        found = "no footer: nothing protects metadata and index"
        fix = "write the file again from its source; what cannot be verified is not stamped"
        findings.append(_finding("lint.footer-missing", found, fix))
    if free_keys.TENSOR_SHA256 not in container.metadata.free:
        found = "no sha256 of the tensors: damage is seen, but not where"
        fix = "a model that apr writes has them; nothing else needs to be done"
        findings.append(_finding("lint.tensor-sha256-missing", found, fix))
    return findings


def _layout(container: Container) -> list[Finding] | None:
    tensors = [extent for extent in container.sections.extents if extent.tensor]
    if not tensors:
        return None
    findings: list[Finding] = []
    if unaligned := sum(extent.start % layout.ALIGNMENT > 0 for extent in tensors):
        found = f"{unaligned} tensors do not start at a multiple of {layout.ALIGNMENT}"
        fix = f"any stamp aligns them: {_stamp(container, '--name NAME')}"
        findings.append(_finding("lint.tensors-unaligned", found, fix))
    foreign = {entry.dtype for entry in container.tensors.values()} - {*layout.WRITABLE_DTYPES}
    if foreign:
        found = f"{', '.join(sorted(foreign))}: the Rust serving crate takes it for another type"
        fix = "write the tensors as " + " or ".join(layout.WRITABLE_DTYPES[:3])
        findings.append(_finding("lint.dtype-misread", found, fix))
    plain_bytes = sum(
        entry.size_bytes
        for entry in container.tensors.values()
        if not layout.DTYPES[entry.dtype].is_quantized
    )
    if plain_bytes > _LARGE_BYTES:
        found = f"{format_bytes(plain_bytes)} that are not quantised"
        fix = "for use, not for training, a quantised copy is smaller: apr convert --quantize"
        findings.append(_finding("lint.large-unquantized", found, fix))
    return findings


def _tokenizer(container: Container) -> list[Finding] | None:
    metadata, free = container.metadata, container.metadata.free
    has_flag = bool(container.sections.header.flags & layout.HAS_VOCAB)
    has_any = has_flag or any(key.startswith("tokenizer.") for key in free)
    if not has_any:
        if not claims_a_model(metadata, container.tensors):
            return None
        fix = _stamp(container, "--tokenizer DIR")
        return [_finding("lint.tokenizer-missing", "a model that cannot read text", fix)]
    if problem := vocabulary_problem(metadata):
        fix = _stamp(container, "--tokenizer DIR")
        return [_finding("lint.vocabulary-unusable", problem, fix)]
    findings: list[Finding] = []
    if free_keys.TOKENIZER_JSON not in free:
        found = "a vocabulary without its tokenizer.json: how text is split is not in it"
        fix = _stamp(container, "--tokenizer DIR")
        findings.append(_finding("lint.tokenizer-inexact", found, fix))
    if problem := _padding_problem(free):
        fix = f"a stamped tokenizer leaves it out: {_stamp(container, '--tokenizer DIR')}"
        findings.append(_finding("lint.padding-token", problem, fix))
    return findings


def _padding_problem(free: dict[str, Any]) -> str | None:
    padding = free.get(_PADDING_TOKEN_ID)
    if padding is None:
        return None
    num_tokens = len(cast(list[Any], free[free_keys.VOCABULARY]))
    if type(padding) is not int or not 0 <= padding < num_tokens:
        return f"{_PADDING_TOKEN_ID}={padding!r:.40} is none of {num_tokens} ids"
    if padding == free.get(free_keys.EOS_TOKEN_ID):
        return f"padding and end of text are one id, {padding}: what hides one hides the other"
    return None


_RULES: dict[str, Callable[[Container], list[Finding] | None]] = {
    "spelling": _spelling,
    "identity": _identity,
    "origin": _origin,
    "provenance": _provenance,
    "description": _description,
    "integrity": _integrity,
    "layout": _layout,
    "tokenizer": _tokenizer,
}
