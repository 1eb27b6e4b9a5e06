"""`apr diff`: what differs between two .apr files."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.cli import output
from apr.cli.values import MODEL_PATH
from apr.errors import Refusal

if TYPE_CHECKING:
    from apr.container.inspecting.diff import ContainerDifference
    from apr.container.inspecting.value_difference import ValueDifference

_SHOWN_TENSORS = 20
_SHOWN_CHARACTERS = 60


@click.command("diff", short_help="Compare two .apr files.")
@click.argument("a", type=MODEL_PATH)
@click.argument("b", type=MODEL_PATH)
@click.option(
    "--tolerance",
    type=float,
    help="Largest difference of two values that counts as none; without it, none is allowed.",
)
@output.standard_options
def command(a: Path, b: Path, tolerance: float | None) -> output.Result:
    """Compare the .apr files A and B: metadata, names, shapes, types and values.

    \b
    apr diff before.apr after.apr --tolerance 1e-6

    Without --tolerance, exit code 0 means that nothing differs at all, 5 that something does. With
    it (0 is allowed), values may be that far apart, and metadata that does not change the model may
    differ: provenance, licences, recorded hashes, unknown keys. Other shapes, types, identity or
    tokenizer are another model. A NaN equals only the same bits. Quantised tensors are compared as
    bytes. Where nothing could be compared the answer is UNKNOWN, and 5.
    """  # noqa: D301  click reads the escaped character
    from apr.container.inspecting.diff import diff_containers

    found = diff_containers(a, b, tolerance=tolerance, progress=output.progress())
    return output.Result(
        data=found.as_dict(),
        text=_text(found),
        exit_code=0 if found.verdict == "PASS" else Refusal.exit_code,
    )


def _text(found: "ContainerDifference") -> str:
    tensors = found.tensors
    lines = [_answer(found)]
    lines += [f"  {each['field']}: {each['a']} | {each['b']}" for each in found.format]
    if found.metadata:
        lines += ["", "metadata:"]
        lines += [f"  {each['key']} ({each['kind']}): {_sides(each)}" for each in found.metadata]
    lines += ["", f"tensors: {found.compared_tensors} compared, {found.compared_values} values"]
    for label, names in (
        ("only in a", tensors.only_a),
        ("only in b", tensors.only_b),
        ("not compared", tensors.not_compared),
    ):
        if names:
            lines.append(f"  {len(names)} {label}: {', '.join(names[:4])}")
    for label, differing in (("shape", tensors.shape), ("type", tensors.dtype)):
        if differing:
            each = differing[0]
            first = f"{each['name']} {each['a']} | {each['b']}"
            lines.append(f"  {len(differing)} of another {label}: {first}")
    by_distance = sorted(tensors.values, key=lambda each: -each.max_abs)
    if by_distance:
        lines.append(f"  {len(by_distance)} with other values, the farthest apart first:")
    lines += [f"    {_distance(each)}" for each in by_distance[:_SHOWN_TENSORS]]
    if len(by_distance) > _SHOWN_TENSORS:
        lines.append(f"    and {len(by_distance) - _SHOWN_TENSORS} more")
    return "\n".join(lines)


def _answer(found: "ContainerDifference") -> str:
    pair = f"{found.a} and {found.b}"
    if found.verdict == "UNKNOWN":
        return f"unknown: nothing to compare in {pair}"
    if found.same:
        return f"the same: {pair}"
    if found.tolerance is None:
        return f"different: {pair}"
    within = "within" if found.verdict == "PASS" else "beyond"
    return f"different, {within} the tolerance of {found.tolerance:g}: {pair}"


def _sides(each: dict[str, Any]) -> str:
    return " | ".join(_short(each[side]) if side in each else "(absent)" for side in ("a", "b"))


def _short(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"type", "length", "sha256"}:
        return f"{value['type']} of {value['length']}, sha256 {value['sha256'][:12]}"
    text = str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def _distance(each: "ValueDifference") -> str:
    share = f"{each.num_different} of {each.num_compared} values differ"
    not_numbers = f", {each.num_not_comparable} not comparable" if each.num_not_comparable else ""
    return (
        f"{each.name}: {share}{not_numbers}, by {each.max_abs:.3g} at most"
        f" (relative {each.max_relative:.3g})"
    )
