"""`apr inspect`: what an .apr file holds, without reading its tensors."""

from pathlib import Path
from typing import Any

import click

from apr.cli import output
from apr.cli.values import MODEL_PATH
from apr.units import format_bytes, format_count

_SHOWN_CHARACTERS = 72
# Shown in lines of their own, or too long for any line.
_SHOWN_ELSEWHERE = (
    "tokenizer.",
    "apr.tokenizer",
    "apr.tensor_sha256",
    "apr.eos_token",
    "apr.provenance",
)
# What the format writes for a key that it allows neither to be null nor to be left out.
_UNSET: dict[str, object] = {"model_type": "", "total_size": 0, "param_count": 0}
# Keys of an entry that are shown first, or that only a machine reads.
_ENTRY_HEAD = ("what", "at", "by")
_ENTRY_HASHES = ("previous_sha256", "entry_sha256")
_SHORT_SHA256 = 16


@click.command("inspect", short_help="Show what an .apr file holds.")
@click.argument("path", type=MODEL_PATH)
@click.option("--tensors", "with_tensors", is_flag=True, help="List every tensor.")
@click.option(
    "--quality",
    "with_quality",
    is_flag=True,
    help="Score the metadata; read every tensor, and have the model write.",
)
@output.standard_options
def command(path: Path, with_tensors: bool, with_quality: bool) -> output.Result:
    """Show what the .apr file at PATH holds.

    \b
    apr inspect runs/demo/model.apr --tensors
    apr inspect runs/demo/model.apr --quality

    With --quality, `quality` scores which metadata is there, which says nothing about the model:
    `behaviour` is what was measured. Both are a report; the exit code stays 0.
    """  # noqa: D301  click reads the escaped character
    from apr.container.inspecting.inspection import describe, with_bytes_read

    found = describe(path)
    measured = ""
    if with_quality:
        from apr.jobs.quality import describe_quality

        found |= describe_quality(path, progress=output.progress())
        verdicts = {check["id"]: check["verdict"] for check in found["behaviour"]["checks"]}
        if verdicts["bytes-intact"] == "PASS":
            found["integrity"] = with_bytes_read(found["integrity"])
        measured = f"\n\n{_quality(found['quality'])}\n\n{_behaviour(found['behaviour'])}"
    text = _text(found) + measured
    if with_tensors:
        text += "\n\n" + _tensor_table(found["tensors"])
    return output.Result(
        data=found, text=text, next_commands=(output.command_line("apr", "validate", path),)
    )


def _text(found: dict[str, Any]) -> str:
    lines = [
        ("file", _file(found)),
        ("architecture", _architecture(found)),
        ("parameters", _parameters(found)),
        ("tokenizer", _tokenizer(found["tokenizer"])),
        ("verified", ", ".join(found["integrity"]["verified"])),
        ("not verified", ", ".join(found["integrity"]["not_verified"])),
        *(("note", note) for note in found["format"]["notes"]),
        *(("provenance", line) for line in _provenance(found["provenance"])),
    ]
    lines += [
        (key, "not recorded" if value in (None, _UNSET.get(key)) else _short(value))
        for key, value in found["metadata"].items()
        if not key.startswith(_SHOWN_ELSEWHERE)
    ]
    width = max(len(label) for label, _ in lines)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in lines)


def _file(found: dict[str, Any]) -> str:
    layout = found["format"]
    flags = " ".join(layout["flags"])
    size = format_bytes(layout["size_bytes"])
    return f"{found['path']}  .apr {layout['version']}, {size}, {flags}"


def _architecture(found: dict[str, Any]) -> str:
    shape = found["architecture"]
    if shape is None:
        return f"none: {found['architecture_reason']}"
    tied = "tied" if shape["tie_word_embeddings"] else "untied"
    return (
        f"{shape['hf_architecture']}: {shape['num_hidden_layers']} layers, "
        f"hidden {shape['hidden_size']}, heads {shape['num_attention_heads']}/"
        f"{shape['num_key_value_heads']}, vocabulary {shape['vocab_size']}, {tied}"
    )


def _parameters(found: dict[str, Any]) -> str:
    tensors = found["tensors"]
    dtypes = sorted({tensor["dtype"] for tensor in tensors})
    count = found["num_parameters"]
    return f"{count:,} ({format_count(count)}) in {len(tensors)} tensors: {' '.join(dtypes)}"


def _tokenizer(tokenizer: dict[str, Any] | None) -> str:
    if tokenizer is None:
        return "none"
    exact = "exact" if tokenizer["has_tokenizer_json"] else "without its tokenizer.json"
    declared = tokenizer["eos_token"]
    separator = "no separator declared" if declared is None else f"separator {_short(declared)}"
    return (
        f"{tokenizer['vocab_size']} tokens, {tokenizer['num_merges']} merges, {exact}, {separator}"
    )


def _provenance(provenance: dict[str, Any]) -> list[str]:
    """One line for every entry: what, when, by whom, then what else it says."""
    lines: list[str] = []
    for number, entry in enumerate(provenance["entries"], start=1):
        head = [str(entry[key]) for key in _ENTRY_HEAD if entry.get(key)]
        rest = [
            f"{key}={_entry_value(key, value)}"
            for key, value in entry.items()
            if key not in (*_ENTRY_HEAD, *_ENTRY_HASHES)
        ]
        lines.append(f"{number}. {', '.join(head + rest)}")
    if provenance["verdict"] == "FAIL" or not lines:
        lines.append(provenance["found"])
    return lines


def _entry_value(key: str, value: Any) -> str:
    if key == "fields" and isinstance(value, dict):
        return "; ".join(
            f"{field}: {_short(change.get('from'))} -> {_short(change.get('to'))}"
            if isinstance(change, dict)
            else f"{field}: {_short(change)}"
            for field, change in value.items()
        )
    is_hash = isinstance(value, str) and key.endswith(("sha256", "fingerprint"))
    return value[:_SHORT_SHA256] if is_hash else _short(value)


def _quality(quality: dict[str, Any]) -> str:
    ready = "ship_ready" if quality["ship_ready"] else "not ship_ready"
    parts = ", ".join(f"{part} {points}" for part, points in quality["breakdown"].items())
    lines = [
        f"completeness of the metadata: {quality['score']} of 100, {ready} as the Rust tools call "
        f"it ({quality['threshold']} or more)",
        f"  {parts}",
    ]
    if quality["missing"]:
        lines.append(f"  missing: {', '.join(quality['missing'])}")
    lines.append("  This says which metadata is there, and nothing about how the model behaves.")
    return "\n".join(lines)


def _behaviour(behaviour: dict[str, Any]) -> str:
    checks = behaviour["checks"]
    width = max((len(check["id"]) for check in checks), default=0)
    lines = [f"behaviour, as measured: {behaviour['verdict']}"]
    for check in checks:
        lines.append(f"  {check['verdict']:<7}  {check['id']:<{width}}  {check['found']}")
        if check["verdict"] != "PASS":
            lines.append(f"{'':<{width + 13}}expected: {check['expected']}")
    return "\n".join(lines)


def _short(value: Any) -> str:
    if isinstance(value, list | dict) and len(value) > 8:
        return f"{len(value)} entries"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def _tensor_table(tensors: list[dict[str, Any]]) -> str:
    width = max((len(tensor["name"]) for tensor in tensors), default=0)
    return "\n".join(
        f"{tensor['name']:<{width}}  {tensor['dtype']:<5} "
        f"{format_bytes(tensor['size_bytes']):>9}  {tensor['shape']}"
        for tensor in tensors
    )
