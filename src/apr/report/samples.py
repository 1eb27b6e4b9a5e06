"""Text that the model wrote, shown exactly as it is and no more trusted than any other."""

from apr.report.markup import (
    NOTHING,
    Html,
    absent,
    element,
    escape,
    left_out,
    paragraph,
    section,
)
from apr.report.record import Record

_MOST_SAMPLES = 12
_TEXT_BYTES = 6000
_PROMPT_BYTES = 1000


def samples(record: Record) -> Html:
    """Generated text, the prompt set apart from what the model added."""
    entries = record.children("samples")
    if not entries:
        missing = absent("not on record", record.reason("samples"))
        return section("Samples", paragraph(missing), id="samples")
    lead = (
        "Bold and underlined is the prompt, the rest is the model's own. Invisible characters are "
        "shown by name."
    )
    figures = [_sample(entry) for entry in entries[:_MOST_SAMPLES]]
    more = left_out(len(entries), _MOST_SAMPLES)
    return section("Samples", paragraph(escape(lead)), *figures, more, id="samples")


def _sample(entry: Record) -> Html:
    prompt, text = entry.text("prompt") or "", entry.text("text") or ""
    others = [
        f"{name.replace('_', ' ')}: {value}"
        for name, value in entry.values.items()
        if name not in {"prompt", "text"} and value is not None
    ]
    written = element(
        "pre",
        element("b", escape(prompt, limit_bytes=_PROMPT_BYTES, multiline=True)),
        element("span", escape(text, limit_bytes=_TEXT_BYTES, multiline=True)),
        class_="sample",
    )
    return element("figure", written, paragraph(escape(", ".join(others))) if others else NOTHING)
