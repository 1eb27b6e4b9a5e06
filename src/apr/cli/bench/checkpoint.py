"""`apr bench checkpoint`: what saving costs the training beside it."""

from pathlib import Path
from typing import Any

import click

from apr.cli import output
from apr.cli.bench.options import TRAINING_FIELDS, against_option, training_options
from apr.cli.values import LOCAL_PATH


@click.command("checkpoint")
@training_options
@click.option(
    "--steps",
    "num_steps",
    type=click.IntRange(1, 100_000),
    default=12,
    show_default=True,
    help="Steps beside one checkpoint.",
)
@click.option(
    "--rounds",
    "num_rounds",
    type=click.IntRange(1, 100),
    default=5,
    show_default=True,
    help="Turns of every way of saving.",
)
@click.option(
    "--directory", type=LOCAL_PATH, help="Where to write; the disk matters [temporary files]."
)
@against_option("plain")
@output.standard_options
def command(against: tuple[str, ...], directory: Path | None, **options: Any) -> output.Result:
    """Save while training: what a checkpoint costs, and how fast it is written.

    \b
    apr bench checkpoint
    apr bench checkpoint --directory /scratch --against plain

    The same steps are taken without a checkpoint, with one written beside them, and with one that
    is waited for. `plain` is one safetensors file of the same tensors, waited for. Shares are those
    of a run with a checkpoint every 200 steps.
    """  # noqa: D301  click reads the escaped character
    from apr.jobs.bench_checkpoint import bench_checkpoint

    training = {field: options.pop(field) for field in TRAINING_FIELDS}
    facts = bench_checkpoint(
        {field: value for field, value in training.items() if value is not None},
        against=against,
        directory=directory,
        progress=output.progress(),
        notify=output.notify,
        **options,
    )
    return output.Result(data=facts, text=_text(facts), next_commands=("apr bench load",))


def _text(facts: dict[str, Any]) -> str:
    lines = [
        f"{facts['num_parameters']:,} parameters, {facts['step_s']:.3g} s per step, on "
        f"{facts['device_name']}; one checkpoint per {facts['steps_per_checkpoint']} steps",
        "",
        "              share  at most   cost s  stall s  written s   GB/s     GB  cost by round, s",
    ]
    for way, costs in facts["ways"].items():
        spread = ", ".join(f"{cost:.2f}" for cost in costs["costs_s"])
        lines.append(
            f"{way:<11} {costs['fraction']:>7.2%}  {costs['fraction_at_most']:>7.2%}  "
            f"{costs['cost_s']:>7.3f}  {costs['stall_s']:>7.3f}  {costs['written_s']:>9.3f}  "
            f"{costs['bytes_per_s'] / 1e9:>5.2f}  {costs['written_bytes'] / 1e9:>5.2f}  {spread}"
        )
    return "\n".join(lines)
