"""`apr inspect`: what an .apr file holds, without reading its tensors."""

from pathlib import Path
from typing import Any

import click

from apr.cli import output
from apr.cli.values import LOCAL_PATH
from apr.units import format_bytes, format_count

_SHOWN_CHARACTERS = 72
# Shown in lines of their own, or too long for any line.
_SHOWN_ELSEWHERE = ("tokenizer.", "apr.tokenizer", "apr.tensor_sha256", "apr.eos_token")


@click.command("inspect", short_help="Show what an .apr file holds.")
@click.argument("path", type=LOCAL_PATH)
@click.option("--tensors", "with_tensors", is_flag=True, help="List every tensor.")
@output.standard_options
def command(path: Path, with_tensors: bool) -> output.Result:
    """Show what the .apr file at PATH holds.

    \b
    apr inspect runs/demo/model.apr --tensors
    """  # noqa: D301  click reads the escaped character
    from apr.container.inspection import describe

    found = describe(path)
    text = _text(found)
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
    ]
    lines += [
        (key, _short(value))
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
    return (
        f"{tokenizer['vocab_size']} tokens, {tokenizer['num_merges']} merges, {exact}, "
        f"separator {_short(tokenizer['eos_token'])}"
    )


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
