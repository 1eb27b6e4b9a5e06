"""`apr import`: a model from elsewhere becomes an .apr file, proved to be the same model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.cli import output
from apr.cli.values import LOCAL_PATH, Location
from apr.units import format_bytes, format_count, format_duration

if TYPE_CHECKING:
    from apr.jobs.import_model import ImportedModel

# As in convert.precision and jobs.import_model, which are not imported for a help page.
_QUANTIZATIONS = ("fp16", "bf16", "int8", "int4", "q4k")
_PROVENANCE = ("license", "data_source", "data_license")


@click.command("import", short_help="Turn a model from elsewhere into an .apr file, with proof.")
@click.argument("source", type=Location("source"))
@click.option("-o", "--output", "target", required=True, type=LOCAL_PATH, help="The .apr file.")
@click.option(
    "--quantize",
    type=click.Choice(_QUANTIZATIONS),
    help="Number format of the weights; without it every tensor keeps its own.",
)
@click.option(
    "--tokenizer",
    type=LOCAL_PATH,
    help="A tokenizer directory or tokenizer.json, in place of the one the source brings.",
)
@click.option(
    "--provenance",
    default="",
    metavar="KEY=TEXT,...",
    help="license, data_source and data_license to record.",
)
@click.option("--overwrite", "--force", is_flag=True, help="Replace the output.")
@output.standard_options
def command(
    source: Path | str,
    target: Path,
    quantize: Any,
    tokenizer: Path | None,
    provenance: str,
    overwrite: bool,
) -> output.Result:
    """Turn the model at SOURCE into an .apr file that is proved to compute the same.

    \b
    apr import Qwen2.5-0.5B -o qwen.apr
    apr import qwen.apr -o small.apr --quantize int8

    SOURCE is a Hugging Face directory, a .safetensors file beside its config.json, a GGUF, another
    .apr file, or hf://org/name. Nothing in it is run, and no pickle is opened.

    Before the file takes its name, its logits on fixed probes are compared with a second, separate
    implementation that reads the source itself, and with transformers where that is installed.
    """  # noqa: D301  click reads the escaped character
    stated = _provenance(provenance)
    directory = _local(source)
    from apr.jobs.import_model import import_model

    imported = import_model(
        directory,
        output=target,
        quantize=quantize,
        tokenizer=tokenizer,
        provenance=stated,
        overwrite=overwrite,
        progress=output.progress(),
    )
    return output.Result(
        data=imported.as_dict(),
        text=_text(imported),
        next_commands=_next(imported),
    )


def _local(source: Path | str) -> Path:
    if isinstance(source, Path):
        return source
    from apr.jobs.download import SCHEME, download

    if source.startswith(SCHEME):
        return download(source)
    raise click.UsageError(f"{source!r} is neither a local path nor hf://org/name.")


def _provenance(text: str) -> dict[str, str]:
    stated: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        key, _, value = part.partition("=")
        if key not in _PROVENANCE or not value or key in stated:
            raise click.UsageError(
                f"--provenance takes {', '.join(f'{name}=TEXT' for name in _PROVENANCE)}, "
                f"each once and separated by commas; not {part!r}."
            )
        stated[key] = value
    return stated


def _text(imported: "ImportedModel") -> str:
    shape, proof = imported.architecture, imported.proof
    formats = ", ".join(f"{count} {name}" for name, count in sorted(imported.formats.items()))
    reference = proof.reference
    lines = [
        ("wrote", f"{imported.path}, {format_bytes(imported.size_bytes)}"),
        (
            "model",
            f"{shape.hf_architecture}, {format_count(shape.num_parameters)} parameters, "
            f"{'tied' if shape.tie_word_embeddings else 'untied'}",
        ),
        (
            "tensors",
            f"{imported.num_tensors}: {formats}; {imported.bits_per_weight:.2f} bits per weight",
        ),
    ]
    if imported.roundings:
        worst = max(imported.roundings, key=lambda each: each.relative_rms_error)
        lines.append(
            (
                "rounded",
                f"{len(imported.roundings)} tensors, relative rms error up to "
                f"{worst.relative_rms_error:.2g} ({worst.name})",
            )
        )
    lines.append(
        (
            "proof",
            f"{reference.num_tokens} tokens, {reference.num_layers} layers: logits within "
            f"{reference.max_relative_error:.1e} of the reference "
            f"(allowed {reference.tolerance:.0e}), {format_duration(proof.elapsed_s)}",
        )
    )
    peer = proof.transformers
    lines.append(
        (
            "transformers",
            f"{peer['version']}: within {peer['max_relative_error']:.1e}"
            if peer
            else f"not compared: {proof.transformers_reason}",
        )
    )
    lines += [("note", note) for note in imported.notes]
    width = max(len(label) for label, _ in lines)
    return "\n".join(f"{label:<{width}}  {text}" for label, text in lines)


def _next(imported: "ImportedModel") -> tuple[str, ...]:
    inspect = output.command_line("apr", "inspect", imported.path, "--quality")
    if imported.tokenizer is None:
        return (inspect,)
    return (output.command_line("apr", "run", imported.path, "def main("), inspect)
