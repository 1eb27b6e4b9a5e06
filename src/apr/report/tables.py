"""The lower part of the page: everything that the run was made of, as it stands on record."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from apr.report.markup import (
    NOTHING,
    Html,
    absent,
    element,
    escape,
    facts,
    join,
    left_out,
    not_measured,
    paragraph,
    section,
    table,
    value_words,
)
from apr.report.numbers import count_words, moment_words
from apr.report.record import Record, config_in_force

_MOST_ROWS = 100
_MOST_HASHES = 6

# What has its own place on the page; anything else in the record goes to `remainder`.
_PLACED = {
    "schema", "config", "inputs", "architecture", "gates", "environment", "samples", "resumes",
    "model", "tokens_by_source", "apr_version", "started_at", "finished_at", "outcome_detail",
}  # fmt: skip
_REASON = "_reason"
_INPUT_COUNTS = {"total_tokens": "tokens", "total_documents": "documents", "text_bytes": "bytes"}


def configuration(record: Record) -> Html:
    """Every option as it was resolved, and as the last resume left it."""
    config = config_in_force(record)
    if not config.values:
        return _facts_section(record, "config", title="Configuration", id="configuration")
    is_changed = config.values != record.child("config").values
    note = "Options as the last resume left them; what they were before stands under Resumes."
    return section(
        "Configuration",
        *([paragraph(escape(note))] if is_changed else []),
        facts(list(_leaves(config.values))),
        id="configuration",
    )


def architecture(record: Record) -> Html:
    """The shape of the model, in Hugging Face's spelling."""
    return _facts_section(record, "architecture", title="Architecture", id="architecture")


def environment(record: Record) -> Html:
    """The machine and the software."""
    return _facts_section(record, "environment", title="Environment", id="environment")


def inputs(record: Record) -> Html:
    """What went in and what came out, each by hash."""
    entries = [
        (role, item)
        for role, value in record.child("inputs").values.items()
        for item in _items(value)
    ]
    model = record.child("model")
    if model.values:
        entries.append(("model written", model.values))
    if not entries:
        missing = absent("not on record", record.reason("inputs"))
        return section("Inputs and model", paragraph(missing), id="inputs")
    rows = [[escape(role), *_input_cells(item)] for role, item in entries[:_MOST_ROWS]]
    content = table(
        "Every file or directory, and the sha256 that names its content",
        ("Role", "Path", "Content", "Hashes"),
        rows,
        class_="inputs",
    )
    return section("Inputs and model", content, left_out(len(entries), _MOST_ROWS), id="inputs")


def _input_cells(item: Any) -> list[Html]:
    if not isinstance(item, dict):
        return [value_words(item), NOTHING, NOTHING]
    values = cast(dict[str, Any], item)
    counts = [
        f"{values[key]:,} {unit}"
        for key, unit in _INPUT_COUNTS.items()
        if type(values.get(key)) is int
    ]
    hashes = [
        element(
            "span",
            escape("" if key == "sha256" else f"{key} ", limit_bytes=200),
            element("code", value_words(value)),
            class_="line",
        )
        for key, value in values.items()
        if key != "path" and not (key in _INPUT_COUNTS and type(value) is int)
    ]
    if values.get("sha256") is None:
        hashes.insert(0, not_measured())
    return [
        element("code", value_words(values.get("path"))),
        escape(", ".join(counts)),
        join(hashes[:_MOST_HASHES]),
    ]


def resumes(record: Record) -> Html:
    """When the run was taken up again, from which step, and what had changed."""
    entries = record.children("resumes")
    if not entries:
        known = record.values.get("resumes") is not None
        words = escape("The run was never resumed.") if known else absent("not on record")
        return section("Resumes", paragraph(words), id="resumes")
    rows = [element("li", escape(_resume_words(entry))) for entry in entries[:_MOST_ROWS]]
    more = left_out(len(entries), _MOST_ROWS)
    return section("Resumes", element("ul", *rows), more, id="resumes")


def _resume_words(entry: Record) -> str:
    step, at = entry.number("step"), entry.text("at")
    words = ["after an unknown step" if step is None else f"after step {count_words(step)}"]
    if at:
        words.append(moment_words(at))
    words += [
        f"{key} {json.dumps(value, ensure_ascii=False)}"
        for key, value in entry.values.items()
        if key not in {"step", "at"} and value
    ]
    return ", ".join(words)


def remainder(record: Record) -> list[Html]:
    """Whatever the record holds that has no place elsewhere on the page, so that nothing hides."""
    pairs = [pair for pair in _leaves(record.values) if _top_key(pair[0]) not in _PLACED]
    return [section("Also on record", facts(pairs), id="remainder")] if pairs else []


def not_measured_section(record: Record) -> Html:
    """Every number that is missing, with the run's own reason."""
    reasons = list(_reasons(record.values))
    content = facts(reasons) if reasons else paragraph(escape("The record gives no reasons."))
    return section("Not measured", content, id="not-measured")


def _facts_section(record: Record, key: str, *, title: str, id: str) -> Html:
    values = record.child(key).values
    pairs = list(_leaves(values)) if values else []
    content = facts(pairs) if pairs else paragraph(absent("not on record", record.reason(key)))
    return section(title, content, id=id)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with the path that leads to it; reasons for missing ones are not values."""
    children = _named_children(value, name)
    if not children:
        yield name, value
    for child_name, child, is_reason in children:
        if not is_reason:
            yield from _leaves(child, child_name)


def _reasons(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every recorded reason with the path of the number that it excuses."""
    for child_name, child, is_reason in _named_children(value, name):
        if is_reason and child is not None:
            yield child_name.removesuffix(_REASON), child
        elif not is_reason:
            yield from _reasons(child, child_name)


def _named_children(value: Any, name: str) -> list[tuple[str, Any, bool]]:
    """What an object, or a list of objects, holds; and whether it is a reason.

    A reason stands beside the key it is about: `mfu_reason` beside `mfu`, but `stop_reason` alone.
    """
    if isinstance(value, dict):
        values = cast(dict[str, Any], value)
        return [
            (
                f"{name}.{key}" if name else key,
                child,
                key.endswith(_REASON) and key.removesuffix(_REASON) in values,
            )
            for key, child in values.items()
        ]
    items = cast(list[Any], value) if isinstance(value, list) else []
    if any(isinstance(item, dict) for item in items):
        return [(f"{name}[{index}]", item, False) for index, item in enumerate(items)]
    return []


def _top_key(name: str) -> str:
    return re.split(r"[.\[]", name, maxsplit=1)[0]


def _items(value: Any) -> Sequence[Any]:
    return cast(list[Any], value) if isinstance(value, list) else [value]
