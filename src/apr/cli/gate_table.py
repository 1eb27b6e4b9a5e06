"""Verdicts of gates as lines for a person."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apr.train.gates import Gate


def gate_lines(gates: "Iterable[Gate]") -> list[str]:
    """A heading, and for each gate its verdict, what was found, and the fix where it blocks."""
    from apr.train.gates import NOT_JUDGED

    lines, unjudged = ["verdict  gate"], list["Gate"]()
    for gate in gates:
        if gate.found == NOT_JUDGED:
            unjudged.append(gate)
            continue
        lines.append(f"{gate.verdict:<8} {gate.id}: {gate.found}; expected {gate.expected}")
        if gate.waiver:
            lines.append(f"         waived: {gate.waiver['reason']}")
        elif gate.blocks:
            lines.append(f"         fix: {gate.fix}")
    if unjudged:
        ids = ", ".join(gate.id.removeprefix("preflight.") for gate in unjudged)
        lines.append(f"{unjudged[0].verdict:<8} not judged, {unjudged[0].fix}: {ids}")
    return lines
