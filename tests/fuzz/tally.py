"""What many cases came to, added up over workers, and as it is printed."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.fuzz.execution import Execution, Finding
from tests.fuzz.target import ACCEPTED

# Of findings that share a signature: the others are counted.
_KEPT = 3


@dataclass
class Tally:
    """The executions of one target."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    signatures: Counter[str] = field(default_factory=Counter[str])
    findings: list[Finding] = field(default_factory=list[Finding])
    busy_s: float = 0.0
    slowest_s: float = 0.0
    slowest_number: int = 0
    traced_bytes: int = 0

    def add(self, number: int, execution: Execution) -> None:
        self.busy_s += execution.elapsed_s
        self.traced_bytes = max(self.traced_bytes, execution.traced_bytes)
        if execution.elapsed_s > self.slowest_s:
            self.slowest_s, self.slowest_number = execution.elapsed_s, number
        if execution.outcome is not None:
            self.outcomes[execution.outcome] += 1
        if execution.finding is not None:
            self._keep(execution.finding)

    def merge(self, other: "Tally") -> None:
        self.busy_s += other.busy_s
        self.traced_bytes = max(self.traced_bytes, other.traced_bytes)
        if other.slowest_s > self.slowest_s:
            self.slowest_s, self.slowest_number = other.slowest_s, other.slowest_number
        self.outcomes += other.outcomes
        kept = Counter(finding.signature for finding in other.findings)
        for finding in other.findings:
            self._keep(finding)
        self.signatures += other.signatures - kept

    def _keep(self, finding: Finding) -> None:
        self.signatures[finding.signature] += 1
        if self.signatures[finding.signature] <= _KEPT:
            self.findings.append(finding)

    @property
    def executions(self) -> int:
        return self.outcomes.total() + self.signatures.total()

    def lines(self, name: str) -> Iterator[str]:
        """A summary line, then every outcome by how often it came, then every finding."""
        accepted = self.outcomes[ACCEPTED]
        ids = len(self.outcomes.keys() - {ACCEPTED})
        yield (
            f"{name}: {self.executions} executions, {accepted} accepted, {ids} refusal ids, "
            f"{self.executions / max(self.busy_s, 1e-9):.0f}/s of reading on one core, "
            f"slowest {self.slowest_s:.2f} s (case {self.slowest_number}), "
            f"at most {self.traced_bytes / 1e6:.1f} MB traced"
        )
        for outcome, count in self.outcomes.most_common():
            yield f"    {count:>9} {outcome}"
        for signature, count in self.signatures.most_common():
            yield f"    {count:>9} FINDING {signature}"
