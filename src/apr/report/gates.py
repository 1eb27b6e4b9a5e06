"""Every gate of a run with its verdict; what is no plain PASS shows by sign and word."""

from collections.abc import Sequence

from apr.report.markup import (
    Html,
    absent,
    element,
    escape,
    join,
    left_out,
    paragraph,
    section,
    table,
    value_words,
)
from apr.report.record import Record

_MOST_GATES = 150
_SIGNS = {"PASS": "\N{CHECK MARK}", "FAIL": "\N{MULTIPLICATION X}"}
_TONES = {"PASS": "good", "FAIL": "bad"}


def gates(record: Record) -> Html:
    """The table of gates under a sentence that counts them."""
    entries = record.children("gates")
    if not entries:
        missing = absent("not on record", record.reason("gates"))
        return section("Gates", paragraph(missing), id="gates")
    content = table(
        _summary(entries),
        ("Verdict", "Gate", "Found", "Expected"),
        [_row(gate) for gate in entries[:_MOST_GATES]],
        class_="gates",
    )
    return section("Gates", content, left_out(len(entries), _MOST_GATES), id="gates")


def _row(gate: Record) -> list[Html]:
    verdict = gate.text("verdict") or "no verdict"
    sign = element("span", escape(_SIGNS.get(verdict, "?")), class_="sign", aria_hidden="true")
    tone = _TONES.get(verdict, "open")
    marks = [element("span", sign, escape(verdict, limit_bytes=40), class_=f"verdict {tone}")]
    names = [element("code", escape(gate.text("id") or "no id", limit_bytes=200))]
    if upstream_id := gate.text("upstream_id"):
        names.append(element("span", escape(upstream_id, limit_bytes=200), class_="upstream"))
    if is_waived(gate):
        marks.append(element("span", escape("waived"), class_="waived"))
        reason = gate.child("waiver").text("reason") or "no reason is recorded"
        names.append(element("span", escape(f"Waived: {reason}"), class_="waiver"))
    found, expected = gate.values.get("found"), gate.values.get("expected")
    return [join(marks), join(names), value_words(found), value_words(expected)]


def is_waived(gate: Record) -> bool:
    """Whether somebody let the gate pass by name."""
    gate.child("waiver")
    return gate.values.get("waiver") is not None


def _summary(entries: Sequence[Record]) -> str:
    verdicts = [(entry.text("verdict"), is_waived(entry)) for entry in entries]
    counts = {
        "passed": sum(verdict == "PASS" for verdict, _ in verdicts),
        "failed": sum(pair == ("FAIL", False) for pair in verdicts),
        "failed and waived": sum(pair == ("FAIL", True) for pair in verdicts),
        "unknown, which blocks like a failure": sum(
            verdict not in _TONES and not waived for verdict, waived in verdicts
        ),
        "unknown and waived": sum(verdict not in _TONES and waived for verdict, waived in verdicts),
    }
    told = [f"{count} {words}" for words, count in counts.items() if count]
    return f"{len(entries)} gate{'s' if len(entries) > 1 else ''}: {', '.join(told)}."
