"""Verdicts: what a check found, in three values, and how a failed one may be waived.

PASS, FAIL or UNKNOWN; UNKNOWN blocks like FAIL, comparing nothing is UNKNOWN, and an exception
inside a check is FAIL. A waiver is a named object with a reason, recorded beside the verdict it
overrides.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from apr.errors import Refusal, UsageRefusal

Verdict = Literal["PASS", "FAIL", "UNKNOWN"]

UPSTREAM_IDS: dict[str, str | None] = {
    "preflight.tokenizer-fingerprint": None,
    "preflight.vocab-size": "GATE-ARCH-370M-011",
    "preflight.id-range": "INV-PRETOK-001",
    "preflight.val-empty": "FALSIFY-PRETRAIN-VAL-SHARD-003",
    "preflight.val-overlap": None,
    "preflight.split-certificate": None,
    "preflight.token-budget": "GATE-CHINCHILLA-001",
    "preflight.data-degenerate": None,
    "preflight.disk-space": None,
    "preflight.memory": None,
    "preflight.init-loss": None,
    "preflight.gradients": None,
}


@dataclass(frozen=True)
class Finding:
    """What a check saw, before it is a gate."""

    verdict: Verdict
    found: str
    expected: str
    fix: str = ""


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


def judge(id: str, check: Callable[[], Finding]) -> Gate:
    """Run one check; an exception inside it is a FAIL, not an escape."""
    try:
        finding = check()
    except Refusal as refusal:
        finding = Finding("FAIL", f"{refusal.id}: {refusal.found}", refusal.expected, refusal.fix)
    except Exception as err:
        finding = Finding(
            "FAIL",
            f"the check itself failed: {type(err).__name__}: {err}",
            "a check that completes",
            "please report this",
        )
    return Gate(id, UPSTREAM_IDS[id], finding.verdict, finding.found, finding.expected, finding.fix)


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

    Refuses: config.waiver for an unknown id or a missing reason.
    """
    waivers: dict[str, str] = {}
    for text in texts:
        id, _, reason = text.partition("=")
        if id not in UPSTREAM_IDS or not reason.strip():
            raise UsageRefusal(
                "config.waiver",
                "--waive",
                found=repr(text),
                expected="ID=REASON with ID one of " + ", ".join(UPSTREAM_IDS),
                fix="name the gate and say why it may fail",
            )
        waivers[id] = reason.strip()
    return waivers
