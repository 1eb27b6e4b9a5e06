"""`apr stamp`: say who made a model, from what and under which licence, and what it is."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.cli import output
from apr.cli.values import LOCAL_PATH, MODEL_PATH, require_used

if TYPE_CHECKING:
    from apr.container.stamp import Stamped


@click.command("stamp", short_help="Add provenance and identity to an .apr file.")
@click.argument("path", metavar="FILE", type=MODEL_PATH)
@click.option("--license", help="Licence of the weights, an SPDX expression.")
@click.option("--data-source", help="What the model was trained on.")
@click.option("--data-license", help="Licence of the data, an SPDX expression.")
@click.option("--hf-architecture", help="Hugging Face's class, such as LlamaForCausalLM.")
@click.option("--hf-model-type", help="Hugging Face's family, such as llama.")
@click.option("--architecture", help="The family, as Rust tools read it.")
@click.option(
    "--tokenizer", type=LOCAL_PATH, help="Directory or tokenizer.json to embed, byte for byte."
)
@click.option(
    "--pretraining-tokens",
    type=click.IntRange(1, (1 << 63) - 1),
    help="How many tokens the weights were trained on.",
)
@click.option("--author", help="Who made the model.")
@click.option("--name", help="What it is called.")
@click.option("--description", help="What it is, in a sentence.")
@click.option("-o", "--output", "target", type=LOCAL_PATH, help="The stamped file.")
@click.option("--in-place", is_flag=True, help="Replace FILE, once the new one is proved.")
@click.option("--overwrite", "--force", is_flag=True, help="Replace what is at --output.")
@output.standard_options
@click.pass_context
def command(
    ctx: click.Context,
    path: Path,
    target: Path | None,
    in_place: bool,
    overwrite: bool,
    **fields: Any,
) -> output.Result:
    """Copy an .apr file with some of its metadata set, and say so in its provenance.

    \b
    apr stamp model.apr --license Apache-2.0 --data-source 'my corpus' -o stamped.apr
    apr stamp model.apr --hf-model-type llama --hf-architecture LlamaForCausalLM --in-place

    The file is verified byte by byte first, tensors are copied as they are, and the result is read
    back from disk. What a stamp claims is checked: an identity against the tensors, a licence
    against SPDX, a tokenizer against the embedding and the ids that the model has learned.
    """  # noqa: D301  click reads the escaped character
    from apr.container.stamp import Claims, stamp

    if in_place == (target is not None):
        raise click.UsageError("Give either --output or --in-place.", ctx)
    if in_place:
        require_used(ctx, "overwrite", unless="without --output")
    stamped = stamp(
        path, Claims(**fields), output=target, overwrite=overwrite, progress=output.progress()
    )
    written = stamped.output["path"]
    return output.Result(
        data=stamped.as_dict(),
        text=_text(stamped),
        next_commands=tuple(
            output.command_line("apr", verb, written) for verb in ("inspect", "lint")
        ),
    )


def _text(stamped: "Stamped") -> str:
    lines = [f"stamped: {stamped.output['path']}"]
    for key, change in stamped.fields.items():
        lines.append(f"  {key}: {change['from']} -> {change['to']}")
    removed = stamped.entry.get("removed_keys", [])
    if removed:
        lines.append(f"  removed with the old tokenizer: {', '.join(removed)}")
    if stamped.flags_dropped:
        lines.append(f"  flags not written again: {', '.join(stamped.flags_dropped)}")
    identity = stamped.identity
    lines += [
        f"identity {identity.verdict}: {identity.found}",
        f"tensors: {stamped.num_tensors} copied, and equal to the byte when read back",
        f"provenance: {stamped.num_entries} entries, the last names the file before by sha256 "
        f"{stamped.input['sha256'][:16]}",
    ]
    return "\n".join(lines)
