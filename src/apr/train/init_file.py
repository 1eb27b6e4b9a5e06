"""The `.apr` file a run starts from: what it is, judged before a weight is loaded.

Each gate stands on the one before it: the file is sound, its metadata and its tensors name the
same family, and its tensors are that architecture's, every one by name, shape and type.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from apr.architecture import Architecture
from apr.container import free_keys
from apr.container.contents import require_contents
from apr.container.embedded_tokenizer import restore_tokenizer
from apr.container.metadata import architecture_from_metadata
from apr.container.named_keys import Metadata
from apr.container.provenance import entries_of
from apr.container.reader import Container
from apr.errors import Refusal
from apr.files import sha256_file
from apr.progress import Report, silent
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.gates import NOT_JUDGED, Finding, Gate, judge
from apr.units import format_bytes

_MISSING, _NOT_APR, _BAD_METADATA, _UNREADABLE, _CONTENTS = (
    f"FALSIFY-APR-PRETRAIN-INIT-00{number}" for number in (3, 4, 5, 6, 7)
)
_UPSTREAM_BY_REFUSAL = {
    "files.not-found": _MISSING,
    "files.io-failed": _MISSING,
    "container.not-a-file": _MISSING,
    "container.not-apr": _NOT_APR,
    "container.unsupported-magic": _NOT_APR,
    "container.truncated": _NOT_APR,
    "container.header-checksum": _NOT_APR,
}
_UNDECIDED = ("container.architecture-missing", "container.architecture-unsupported")
_IMPORT_AGAIN = "import the model again from its source: apr import SOURCE -o model.apr"


@dataclass(frozen=True)
class RecordedLoss:
    """A held-out loss that the file says its weights have."""

    loss_nats: float
    set_sha256: str


@dataclass(frozen=True)
class InitFile:
    """What could be learned of an initial file; everything behind a gate that failed is None."""

    path: Path
    gates: tuple[Gate, ...]
    sha256: str | None = None
    architecture: Architecture | None = None
    tokenizer: Tokenizer | None = None
    tokenizer_reason: str | None = None
    """Why there is no tokenizer to compare with."""
    provenance: tuple[dict[str, Any], ...] = ()
    tokens_seen: int | None = None
    """Tokens the weights were trained on, by a stamp or by the runs that made them."""
    recorded_loss: RecordedLoss | None = None
    carried: Mapping[str, Any] = field(default_factory=dict)
    """Free keys of the file that hold for weights that go on from it: what its configurations said
    beyond the architecture, such as the ids that end a text."""
    proof: dict[str, Any] | None = None
    """What was compared when the model was imported, as the file keeps it."""
    is_rounded: bool = False
    """Whether weights are stored in quantised blocks or half precision."""

    def as_record(self) -> dict[str, Any]:
        """The file as the run record names it."""
        return {
            "path": str(self.path),
            "sha256": self.sha256,
            "tokenizer_fingerprint": self.tokenizer and self.tokenizer.fingerprint,
            "tokens_seen": self.tokens_seen,
            "provenance": list(self.provenance),
            "carried": dict(self.carried),
        }

    @property
    def hf_config(self) -> Mapping[str, Any]:
        """What the source's config.json said beyond the architecture."""
        return self.carried.get(free_keys.HF_CONFIG, {})


def read_init(path: Path, *, progress: Report = silent) -> InitFile:
    """Open an initial file, read every byte of it, and judge what it is; never raises."""
    seen = InitFile(path, ())

    def file() -> Finding:
        nonlocal seen
        with Container.open(path) as container:
            container.verify(progress=progress)
            seen = replace(_facts(container), sha256=sha256_file(path))
        found = f"{format_bytes(path.stat().st_size)}, sha256 {seen.sha256:.12}, every byte sound"
        return Finding("PASS", found, "an .apr file whose every byte is sound")

    def family() -> Finding:
        with Container.open(path) as container:
            architecture = architecture_from_metadata(
                container.metadata, container.tensors, container.path
            )
        return Finding(
            "PASS",
            f"{architecture.model_type} in metadata and tensors alike",
            "one decoder-only family, in metadata and tensors alike",
        )

    def tensors() -> Finding:
        nonlocal seen
        with Container.open(path) as container:
            architecture = require_contents(container)
            num_tensors = len(container.tensors)
        seen = replace(seen, architecture=architecture)
        return Finding(
            "PASS",
            f"{num_tensors} tensors, {architecture.num_parameters} parameters, by name and shape",
            "every tensor of the architecture once, and no other",
        )

    gates = [judge("preflight.init-file", _reached([], file))]
    gates.append(judge("preflight.init-family", _reached(gates, family)))
    gates.append(judge("preflight.init-tensors", _reached(gates, tensors)))
    return replace(seen, gates=tuple(gates))


def describe_init(path: Path) -> InitFile:
    """What an initial file says of itself, and its shape; no gate is judged, no weight is read.

    Refuses: as `Container.open` and `require_contents`.
    """
    with Container.open(path) as container:
        return replace(_facts(container), architecture=require_contents(container))


def _reached(before: list[Gate], check: Callable[[], Finding]) -> Callable[[], Finding]:
    """The check with its refusals as verdicts; not run where an earlier one did not pass."""

    def judged() -> Finding:
        if stopped := next((gate for gate in before if gate.verdict != "PASS"), None):
            expected = f"{stopped.id} passed"
            return Finding("UNKNOWN", NOT_JUDGED, expected, f"see {stopped.id}")
        try:
            return check()
        except Refusal as refusal:
            return Finding(
                "UNKNOWN" if refusal.id in _UNDECIDED and not _is_encoder(refusal) else "FAIL",
                f"{refusal.id}: {refusal.where}: {refusal.found}",
                refusal.expected,
                _fix(refusal),
                upstream_id=refusal.upstream_id or _upstream_id(refusal, num_passed=len(before)),
            )

    return judged


def _fix(refusal: Refusal) -> str:
    where = Path(refusal.where)
    if refusal.id == "container.not-a-file" and (where / "config.json").is_file():
        return f"import it first: apr import {where} -o model.apr; then --init model.apr"
    return refusal.fix or _IMPORT_AGAIN


def _upstream_id(refusal: Refusal, *, num_passed: int) -> str:
    default = (_UNREADABLE, _BAD_METADATA, _CONTENTS)[num_passed]
    if refusal.id.startswith("container.metadata"):
        return _BAD_METADATA
    return _UPSTREAM_BY_REFUSAL.get(refusal.id, default)


def _is_encoder(refusal: Refusal) -> bool:
    return refusal.upstream_id == "FALSIFY-APR-PRETRAIN-ARCH-007"


def _facts(container: Container) -> InitFile:
    metadata = container.metadata
    entries = entries_of(metadata)
    tokenizer, reason = None, "the file carries none"
    try:
        tokenizer = restore_tokenizer(metadata, where=container.path)
    except Refusal as refusal:
        reason = f"{refusal.id}: {refusal.found}"
    proof = metadata.free.get(free_keys.PROOF)
    return InitFile(
        container.path,
        (),
        tokenizer=tokenizer,
        tokenizer_reason=None if tokenizer else reason,
        provenance=tuple(entries),
        tokens_seen=tokens_seen(metadata),
        recorded_loss=_recorded_loss(entries),
        carried={
            key: value
            for key in (free_keys.HF_CONFIG, free_keys.GENERATION_CONFIG)
            if isinstance(value := metadata.free.get(key), dict)
        },
        proof=proof if isinstance(proof, dict) else None,
        is_rounded=any(entry.dtype != "f32" for entry in container.tensors.values()),
    )


def tokens_seen(metadata: Metadata) -> int | None:
    """How many tokens a model was trained on, as its file says; None where it does not.

    A stamp says the whole; a run adds what it trained to what its own start had seen.
    """
    entries = entries_of(metadata)
    stamped = metadata.free.get(free_keys.PRETRAINING_TOKENS)
    if type(stamped) is int and stamped > 0:
        return stamped
    for entry in reversed(entries):
        if "run_record_sha256" not in entry:
            continue
        here, before = entry.get("tokens_seen"), entry.get("tokens_seen_before", 0)
        return here + before if type(here) is int and type(before) is int else None
    return None


def _recorded_loss(entries: list[dict[str, Any]]) -> RecordedLoss | None:
    """The loss that the newest run gives of these weights; an earlier one is of other weights."""
    run = next((entry for entry in reversed(entries) if "run_record_sha256" in entry), {})
    loss, set_sha256 = run.get("val_loss_nats"), run.get("val_set_sha256")
    if isinstance(loss, float) and isinstance(set_sha256, str):
        return RecordedLoss(loss, set_sha256)
    return None
