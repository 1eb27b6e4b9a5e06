"""Verdicts: what a check found, in three values, and how a failed one may be waived.

PASS, FAIL or UNKNOWN; UNKNOWN blocks like FAIL, comparing nothing is UNKNOWN, and an exception
inside a check is FAIL. A waiver is a named object with a reason, recorded beside the verdict it
overrides.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from apr.errors import Refusal, UsageRefusal

Verdict = Literal["PASS", "FAIL", "UNKNOWN"]

# The gates of preflight, which a waiver may name. A proof of selftest is not among them: what it
# found wrong makes every number of a run wrong.
UPSTREAM_IDS: dict[str, str | None] = {
    "preflight.init-file": "FALSIFY-APR-PRETRAIN-INIT-004",
    "preflight.init-family": "FALSIFY-INIT-ARCH-MATCH-001",
    "preflight.init-tensors": "FALSIFY-APR-PRETRAIN-INIT-007",
    "preflight.tokenizer-fingerprint": None,
    "preflight.vocab-size": "GATE-ARCH-370M-011",
    "preflight.id-range": "INV-PRETOK-001",
    "preflight.val-empty": "FALSIFY-PRETRAIN-VAL-SHARD-003",
    "preflight.val-size": None,
    "preflight.val-overlap": None,
    "preflight.split-certificate": None,
    "preflight.token-budget": "GATE-CHINCHILLA-001",
    "preflight.data-degenerate": None,
    "preflight.disk-space": None,
    "preflight.memory": None,
    "preflight.init-loss": None,
    "preflight.gradients": None,
}


# Without these a run has no shape and no weights: there would be nothing to go on with.
NEVER_WAIVED = ("preflight.init-file", "preflight.init-family", "preflight.init-tensors")


NOT_JUDGED = "not judged"
"""What a gate finds that another one keeps from being reached."""


@dataclass(frozen=True)
class Finding:
    """What a check saw, before it is a gate."""

    verdict: Verdict
    found: str
    expected: str
    fix: str = ""
    upstream_id: str | None = None
    """The Rust tools' id of this very condition, where one gate covers several."""


@dataclass(frozen=True)
class Gate:
    """One check of a run with its verdict."""

    id: str
    upstream_id: str | None
    verdict: Verdict
    found: str
    expected: str
    fix: str
    waiver: dict[str, str] | None = None

    @property
    def blocks(self) -> bool:
        """Whether the run must not go on."""
        return self.verdict != "PASS" and self.waiver is None

    def as_record(self) -> dict[str, Any]:
        """The gate as the run record keeps it."""
        record = asdict(self)
        del record["fix"]
        return record

    def as_refusal(self, where: object) -> Refusal:
        """The refusal that a blocking gate becomes."""
        return Refusal(
            self.id,
            where,
            found=self.found,
            expected=self.expected,
            fix=self.fix,
            upstream_id=self.upstream_id,
        )


def worst(findings: Sequence[Finding]) -> Finding:
    """Findings of one check over several things as one: the worst verdict, and who has it.

    Nothing found is UNKNOWN.
    """
    verdicts = {finding.verdict for finding in findings}
    verdict: Verdict = "PASS" if verdicts == {"PASS"} else "UNKNOWN"
    if "FAIL" in verdicts:
        verdict = "FAIL"
    shown = [finding for finding in findings if finding.verdict == verdict]
    return Finding(
        verdict,
        "; ".join(dict.fromkeys(finding.found for finding in shown)) or "nothing to check",
        "; ".join(dict.fromkeys(finding.expected for finding in shown)),
        "; ".join(dict.fromkeys(finding.fix for finding in shown if finding.fix)),
    )


def judge(id: str, check: Callable[[], Finding]) -> Gate:
    """Run one check; an exception inside it is a FAIL, not an escape."""
    try:
        finding = check()
    except Refusal as refusal:
        finding = finding_of_refusal(refusal)
    except Exception as err:
        finding = finding_of_exception(err)
    return as_gate(id, finding)


def finding_of_refusal(refusal: Refusal) -> Finding:
    """A check that was refused is a FAIL, in the words of the refusal."""
    return Finding("FAIL", f"{refusal.id}: {refusal.found}", refusal.expected, refusal.fix)


def finding_of_exception(err: Exception) -> Finding:
    """A check that broke is a FAIL."""
    return Finding(
        "FAIL",
        f"the check itself failed: {type(err).__name__}: {err}",
        "a check that completes",
        "please report this",
    )


def as_gate(id: str, finding: Finding) -> Gate:
    """A finding under the name of its check."""
    return Gate(
        id,
        finding.upstream_id or UPSTREAM_IDS.get(id),
        finding.verdict,
        finding.found,
        finding.expected,
        finding.fix,
    )


def apply_waivers(gates: Sequence[Gate], waivers: dict[str, str]) -> list[Gate]:
    """Attach each waiver's reason to the failed gate it names; a passed gate needs none."""
    return [
        replace(gate, waiver={"reason": waivers[gate.id]})
        if gate.verdict != "PASS" and gate.id in waivers
        else gate
        for gate in gates
    ]


def require_passed(gates: Sequence[Gate], where: object) -> None:
    """Refuse with the first gate that blocks, naming the others that do.

    Refuses: the gate's own id.
    """
    blocking = [gate for gate in gates if gate.blocks]
    if not blocking:
        return
    refusal = blocking[0].as_refusal(where)
    if len(blocking) > 1:
        others = ", ".join(gate.id for gate in blocking[1:])
        refusal.found = f"{refusal.found}; not passed either: {others}"
    raise refusal


def parse_waivers(texts: Sequence[str]) -> dict[str, str]:
    """Read `ID=REASON` pairs.

    Refuses: config.waiver, as `require_waivable`.
    """
    waivers = {id: reason.strip() for id, _, reason in (text.partition("=") for text in texts)}
    require_waivable(waivers)
    return waivers


def require_waivable(waivers: Mapping[str, str]) -> None:
    """Refuse a waiver that waives nothing, or says not why.

    Refuses: config.waiver for an unknown id, a missing reason, or a gate behind which there is
    nothing to train.
    """
    waivable = [id for id in UPSTREAM_IDS if id not in NEVER_WAIVED]
    for id, reason in waivers.items():
        if id not in waivable or not reason.strip():
            raise UsageRefusal(
                "config.waiver",
                "--waive",
                found=f"{id}={reason}",
                expected="ID=REASON with ID one of " + ", ".join(waivable),
                fix="name the gate and say why it may fail",
            )
