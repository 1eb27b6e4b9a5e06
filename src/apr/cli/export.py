"""`apr export`: a model for Hugging Face's libraries, or for llama.cpp."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.cli import output
from apr.cli.free_name import free_name
from apr.cli.values import LOCAL_PATH, MODEL_PATH, require_used
from apr.units import format_bytes, format_duration

if TYPE_CHECKING:
    from apr.jobs.exported import ExportedModel

_FLOATS = ("f32", "f16", "bf16")
_FORMATS = {"hf": _FLOATS, "gguf": (*_FLOATS, "q8_0", "q4_k")}


@click.command("export", short_help="Write a model for Hugging Face's libraries or llama.cpp.")
@click.argument("model", type=MODEL_PATH)
@click.option(
    "--format",
    "form",
    required=True,
    type=click.Choice(list(_FORMATS)),
    help="hf: a directory for from_pretrained. gguf: a file for llama.cpp.",
)
@click.option("-o", "--output", "target", required=True, type=LOCAL_PATH, help="Directory or file.")
@click.option(
    "--quantize",
    type=click.Choice(_FORMATS["gguf"]),
    help="Number format of the matrices: f32, f16 or bf16, for gguf also q8_0 or q4_k.",
)
@click.option(
    "--max-shard-bytes",
    type=click.IntRange(min=1),
    default=5_000_000_000,
    show_default=True,
    help="Largest safetensors file, for hf.",
)
@click.option(
    "--without-tokenizer",
    is_flag=True,
    help="Leave the tokenizer's files out, for hf.",
)
@click.option("--overwrite", "--force", is_flag=True, help="Replace the output.")
@output.standard_options
@click.pass_context
def command(
    ctx: click.Context,
    model: Path,
    form: str,
    target: Path,
    quantize: Any,
    max_shard_bytes: int,
    without_tokenizer: bool,
    overwrite: bool,
) -> output.Result:
    """Write the model in the .apr file MODEL in another format, and prove that it is the same.

    \b
    apr export runs/demo/model.apr --format hf -o demo-hf
    apr export runs/demo/model.apr --format gguf -o demo.gguf --quantize q8_0

    What was written is opened again by a fresh process and its logits are compared with the
    model's, by a second implementation and, for hf, by transformers where that is installed.
    """  # noqa: D301  click reads the escaped character
    if quantize is not None and quantize not in _FORMATS[form]:
        raise click.UsageError(
            f"--quantize {quantize} is not a number format of {form}; "
            f"choose one of {', '.join(_FORMATS[form])}.",
            ctx,
        )
    if form == "hf":
        from apr.jobs.export_hf import export_hf

        exported = export_hf(
            model,
            output=target,
            float_format=quantize,
            with_tokenizer=not without_tokenizer,
            max_shard_bytes=max_shard_bytes,
            overwrite=overwrite,
            progress=output.progress(),
        )
        next_command = output.command_line(
            "apr", "import", target, "-o", free_name(Path("back.apr"))
        )
    else:
        require_used(ctx, "max_shard_bytes", unless="with --format gguf")
        require_used(ctx, "without_tokenizer", unless="with --format gguf, which needs one")
        from apr.jobs.export_gguf import export_gguf

        exported = export_gguf(
            model,
            output=target,
            quantize=quantize,
            overwrite=overwrite,
            progress=output.progress(),
        )
        next_command = output.command_line("llama-cli", "-m", target, "-p", "def main(")
    return output.Result(
        data=exported.as_dict(), text=_text(exported), next_commands=(next_command,)
    )


def _text(exported: "ExportedModel") -> str:
    proof = exported.proof
    formats = ", ".join(f"{count} {name}" for name, count in sorted(exported.formats.items()))
    names = ", ".join(exported.files)
    lines = [
        ("wrote", f"{exported.path}, {format_bytes(exported.size_bytes)}: {names}"),
        ("tensors", f"{formats}; {exported.bits_per_weight:.2f} bits per weight"),
    ]
    if exported.roundings:
        worst = max(exported.roundings, key=lambda each: each.relative_rms_error)
        lines.append(
            (
                "rounded",
                f"{len(exported.roundings)} tensors, relative rms error up to "
                f"{worst.relative_rms_error:.2g} ({worst.name})",
            )
        )
    lines.append(
        (
            "proof",
            f"{proof.reference.num_tokens} tokens: logits of the written files within "
            f"{proof.reference.max_relative_error:.1e} of the model's "
            f"(allowed {proof.reference.tolerance:.0e}), {format_duration(proof.elapsed_s)}",
        )
    )
    if exported.independent_reader:
        reader = exported.independent_reader
        lines.append((reader["name"], f"{reader['version']} reads the same fields and bytes"))
    if exported.format == "hf":
        peer = proof.transformers
        lines.append(
            (
                "transformers",
                f"{peer['version']} loads it without a warning, logits within "
                f"{peer['max_relative_error']:.1e}"
                if peer
                else f"not compared: {proof.transformers_reason}",
            )
        )
    elif not exported.independent_reader:
        lines.append(("gguf-py", "not asked: it is not installed (the extra `gguf`)"))
    lines += [("note", note) for note in exported.notes]
    width = max(len(label) for label, _ in lines)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in lines)
