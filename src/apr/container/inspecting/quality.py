"""Two answers about a container that must never be mixed: is it described, and does it work.

*Completeness* scores which metadata is there; the Rust tools call that quality and 90 points
ship-ready, though a model of random weights reaches 100. *Behaviour* is what was found by reading
every tensor, and by having the model write (`jobs/quality.py`); here stands the part that needs no
model.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from apr.container import layout
from apr.container.contents import EMBEDDING, require_contents
from apr.container.embedded_tokenizer import vocabulary_problem
from apr.container.inspecting.zeros import ZeroCount
from apr.container.integrity import (
    check_footer,
    check_padding,
    check_tensor_sha256,
    recorded_sha256,
)
from apr.container.metadata import claims_a_model
from apr.container.provenance import entries_of
from apr.container.reader import Container
from apr.container.scan import Scan
from apr.errors import Refusal
from apr.progress import Report, silent

THRESHOLD = 90
"""Points of completeness from which the Rust tools call a file ship-ready."""

_PARTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "structure": (20, ("architecture", "hidden_size", "num_layers", "num_heads")),
    "provenance": (25, ("license", "data_source", "data_license")),
    "hf_identity": (20, ("hf_architecture", "hf_model_type")),
}
_INTEGRITY_POINTS = 20
_TOKENIZER_POINTS = 15

# Upstream's limits for an embedding.
_LARGEST_ZERO_SHARE = 0.5
_LARGEST_ZERO_ROW_SHARE = 0.25

_NAMED = 4


@dataclass(frozen=True)
class Measured:
    """One thing that was found out about a model, and how it stands."""

    id: str
    verdict: Literal["PASS", "FAIL", "UNKNOWN"]
    found: str
    expected: str


@dataclass(frozen=True)
class Behaviour:
    """What was measured of one file."""

    checks: tuple[Measured, ...]

    @property
    def verdict(self) -> Literal["PASS", "FAIL", "UNKNOWN"]:
        """The worst of all; UNKNOWN when nothing was measured."""
        verdicts = {check.verdict for check in self.checks}
        if "FAIL" in verdicts:
            return "FAIL"
        return "UNKNOWN" if "UNKNOWN" in verdicts or not verdicts else "PASS"

    def as_dict(self) -> dict[str, Any]:
        """The object under `behaviour`."""
        return {"verdict": self.verdict} | asdict(self)


def completeness(container: Container) -> dict[str, Any]:
    """Points for the metadata that is there; a part counts whole or not at all.

    Source: `apr inspect --quality` of the Rust tools, which call the first part physics.
    """
    # The header's checksum was compared when the container was opened.
    breakdown = {"integrity": _INTEGRITY_POINTS}
    missing: list[str] = []
    for part, (points, keys) in _PARTS.items():
        absent = [key for key in keys if not _is_there(getattr(container.metadata, key))]
        breakdown[part] = 0 if absent else points
        missing += absent
    lacking = _vocabulary_lacking(container)
    breakdown["tokenizer"] = 0 if lacking else _TOKENIZER_POINTS
    missing += lacking
    score = sum(breakdown.values())
    return {
        "score": score,
        "ship_ready": score >= THRESHOLD,
        "threshold": THRESHOLD,
        "breakdown": breakdown,
        "missing": missing,
    }


def stored_behaviour(container: Container, *, progress: Report = silent) -> Iterator[Measured]:
    """What the bytes and the records of a container show, without building the model.

    Refuses: container.truncated, files.io-failed.
    """
    zeros = {
        name: ZeroCount(entry, by_row=name == EMBEDDING)
        for name, entry in container.tensors.items()
    }
    try:
        recorded, problem = recorded_sha256(container.sections, where=str(container.path)), None
    except Refusal as err:
        recorded, problem = dict[str, str](), f"{err.id}: {err.found}"
    seen = container.scan(
        hashed=recorded,
        with_values=True,
        watchers={name: count.add for name, count in zeros.items()},
        progress=progress,
    )
    yield _intact(container, seen, recorded, problem)
    yield _finite(container, seen)
    yield _no_dead_tensors(container, zeros)
    yield _identity(container)
    yield _held_out_loss(container)


def _is_there(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else value is not None


def _vocabulary_lacking(container: Container) -> list[str]:
    has_flag = bool(container.sections.header.flags & layout.HAS_VOCAB)
    problem = vocabulary_problem(container.metadata)
    return [] if has_flag and problem is None else [f"vocabulary ({problem or 'no flag for it'})"]


def _intact(
    container: Container, seen: Scan, recorded: dict[str, str], problem: str | None
) -> Measured:
    id, where = "bytes-intact", str(container.path)
    expected = "every byte as it was written"
    findings = [
        *check_tensor_sha256(seen, recorded, where=where),
        *check_padding(seen, where=where),
        *(check_footer(seen, where=where) if seen.footer_crc32 is not None else ()),
    ]
    if problem or findings:
        return Measured(id, "FAIL", problem or f"{findings[0].id}: {findings[0].found}", expected)
    if seen.footer_crc32 is None:
        return Measured(id, "UNKNOWN", "no footer to compare the bytes with", expected)
    hashed = f", {len(recorded)} tensors by sha256" if recorded else ""
    return Measured(id, "PASS", f"{seen.num_bytes} bytes{hashed}", expected)


def _finite(container: Container, seen: Scan) -> Measured:
    id, expected = "values-finite", "no NaN and no infinity"
    num_values = sum(entry.num_elements for entry in container.tensors.values())
    if not num_values:
        return Measured(id, "UNKNOWN", "no values", expected)
    if seen.num_non_finite:
        name, count = next(iter(seen.num_non_finite.items()))
        found = f"{count} in {name!r}, {len(seen.num_non_finite)} tensors in all"
        return Measured(id, "FAIL", found, expected)
    return Measured(id, "PASS", f"{num_values} values", expected)


def _no_dead_tensors(container: Container, zeros: dict[str, ZeroCount]) -> Measured:
    id = "no-dead-tensors"
    expected = (
        "no tensor of zeros but biases; in the embedding under "
        f"{_LARGEST_ZERO_SHARE:.0%} zeros and under {_LARGEST_ZERO_ROW_SHARE:.0%} rows of zeros"
    )
    all_zero = [name for name, count in zeros.items() if count.num_values == count.num_zeros > 0]
    dead = [name for name in all_zero if not name.endswith(".bias")]
    if dead:
        return Measured(id, "FAIL", f"{_listed(dead)} only zeros", expected)
    embedding = zeros.get(EMBEDDING)
    shares = ""
    if embedding and embedding.num_values and embedding.num_rows:
        zero_share = embedding.num_zeros / embedding.num_values
        row_share = embedding.num_zero_rows / embedding.num_rows
        shares = f"embedding {zero_share:.1%} zeros, {row_share:.1%} rows of zeros"
        if zero_share >= _LARGEST_ZERO_SHARE or row_share >= _LARGEST_ZERO_ROW_SHARE:
            return Measured(id, "FAIL", shares, expected)
    num_looked_at = sum(count.num_values > 0 for count in zeros.values())
    if not num_looked_at:
        return Measured(id, "UNKNOWN", "no values", expected)
    biases = f"{_listed(all_zero)} zero, as in a fresh model" if all_zero else ""
    parts = [f"{num_looked_at} tensors", *filter(None, (shares, biases))]
    return Measured(id, "PASS", "; ".join(parts), expected)


def _identity(container: Container) -> Measured:
    id = "identity-derived"
    expected = "the claimed architecture's tensors, by name, shape and type, and no others"
    if not claims_a_model(container.metadata, container.tensors):
        return Measured(id, "UNKNOWN", "does not present itself as a transformer", expected)
    try:
        architecture = require_contents(container)
    except Refusal as err:
        is_foreign = err.id == "container.architecture-unsupported"
        verdict = "UNKNOWN" if is_foreign else "FAIL"
        return Measured(id, verdict, f"{err.id}: {err.found}", err.expected)
    found = f"{architecture.hf_architecture}, {architecture.num_parameters} parameters"
    return Measured(id, "PASS", found, expected)


def _held_out_loss(container: Container) -> Measured:
    """The loss that was recorded for these very weights; a stamp leaves weights as they are."""
    id, rows = "held-out-loss", container.metadata.vocab_size
    guessing = math.log(rows) if rows and rows > 1 else None
    expected = "a loss on text that was held out, recorded with the weights"
    if guessing is not None:
        expected += f", above 0 and below ln {rows} = {guessing:.4f}"
    entries = [each for each in entries_of(container.metadata) if each.get("what") != "stamp"]
    loss = entries[-1].get("val_loss_nats") if entries else None
    if loss is None:
        found = "none is recorded"
        if any(each.get("val_loss_nats") is not None for each in entries):
            found += f" since {entries[-1].get('what')!r:.40}"
        return Measured(id, "UNKNOWN", found, expected)
    if type(loss) not in (int, float) or not 0 < loss < (guessing or math.inf):
        return Measured(id, "FAIL", f"{loss!r:.40} nats per token", expected)
    tokens = entries[-1].get("val_num_tokens")
    over = f" over {tokens} tokens" if tokens else ""
    found = f"{loss:.4f} nats per token{over}, as recorded; not measured again"
    return Measured(id, "UNKNOWN" if guessing is None else "PASS", found, expected)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
