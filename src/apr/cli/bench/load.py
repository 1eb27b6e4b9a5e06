"""`apr bench load`: how soon a model is in memory."""

from pathlib import Path
from typing import Any

import click

from apr.cli import output
from apr.cli.bench.options import against_option
from apr.cli.values import LOCAL_PATH
from apr.units import format_bytes


@click.command("load")
@click.argument("model", required=False, type=LOCAL_PATH)
@click.option("--arch", help="Without MODEL: preset [a reference model of 8.6M parameters].")
@click.option("--vocab-size", type=int, help="Without MODEL: rows of the embedding.")
@click.option(
    "--rounds",
    "num_rounds",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="Turns of every side.",
)
@against_option("safetensors, transformers")
@output.standard_options
@click.pass_context
def command(
    ctx: click.Context,
    model: Path | None,
    arch: str | None,
    vocab_size: int | None,
    **options: Any,
) -> output.Result:
    """Read a model from its file, every byte verified: seconds, GB/s.

    \b
    apr bench load --arch qwen2-0.5b --against safetensors,transformers
    apr bench load model.apr
    apr bench load hf-directory --against transformers

    Every side of every round is a fresh process that loads twice, each time into fp32: the first
    time pays for imports, the second counts. Files come from the memory of the system. A Hugging
    Face directory is imported first, which is timed apart.
    """  # noqa: D301  click reads the escaped character
    if model is not None and (arch or vocab_size):
        raise click.UsageError("--arch and --vocab-size have no effect beside MODEL.", ctx)
    from apr.jobs.bench_load import bench_load

    given = {"arch": arch, "vocab_size": vocab_size}
    facts = bench_load(model, options=given, progress=output.progress(), **options)
    return output.Result(data=facts, text=_text(facts), next_commands=("apr bench train",))


def _text(facts: dict[str, Any]) -> str:
    lines = [f"{facts['num_parameters']:,} parameters, ending as an fp32 model in memory", ""]
    lines.append("                first    again   GB/s       file     memory  ratio")
    for name, side in facts["sides"].items():
        ratio = facts["ratios"].get(name)
        times = "" if ratio is None else f"{ratio['median']:.2f}" if ratio["median"] else "none"
        peak = side["peak_memory_bytes"]
        lines.append(
            f"{name:<12} {side['first_s']:>6.2f} s  {side['elapsed_s']:>5.3f} s  "
            f"{side['bytes_per_s'] / 1e9:>5.2f}  "
            f"{format_bytes(side['file_bytes']):>9}  "
            f"{format_bytes(peak) if peak else 'unknown':>9}  {times:>5}".rstrip()
        )
    lines += [f"INVALID {each['reason']}" for each in facts["ratios"].values() if each["reason"]]
    if facts["import_s"]:
        parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in facts["import_s"].items())
        lines.append(f"importing it before, seconds: {parts}")
    return "\n".join(lines)
