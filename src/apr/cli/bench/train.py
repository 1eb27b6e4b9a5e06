"""`apr bench train`: tokens per second, of what could be, and beside others."""

from typing import Any

import click

from apr.cli import environment, output
from apr.cli.bench.options import (
    TRAINING_FIELDS,
    against_option,
    rounds_option,
    training_options,
)


@click.command("train")
@training_options
@click.option(
    "--steps",
    "num_steps",
    type=click.IntRange(2, 100_000),
    default=20,
    show_default=True,
    help="Steps that are timed, in each round.",
)
@click.option(
    "--warmup-steps",
    "num_warmup_steps",
    type=click.IntRange(1, 1000),
    default=4,
    show_default=True,
    help="Steps before them, timed apart.",
)
@against_option("plain, hf-trainer, hf-trainer-bf16-compile, litgpt")
@click.option(
    "--share-settings",
    is_flag=True,
    help="Run every peer a second time with the allocator and thread settings of apr.",
)
@rounds_option
@output.standard_options
@click.pass_context
def command(
    ctx: click.Context, against: tuple[str, ...], share_settings: bool, **options: Any
) -> output.Result:
    """Train on made-up ids for some steps: tokens/s, peak memory, MFU, time by part.

    \b
    apr bench train
    apr bench train --arch qwen2-0.5b --seq-length 2048 --device cuda
    apr bench train --against plain,hf-trainer --rounds 3

    Every side of every round is a process of its own, and they take turns. MFU is a share of the
    best matrix product measured just now on this device; attention is counted in full
    (conventional) and as a causal model computes it. A figure that cannot be true is marked.
    """  # noqa: D301  click reads the escaped character
    if share_settings and not against:
        raise click.UsageError("--share-settings has no effect without --against.", ctx)
    from apr.cli.bench.train_text import train_text
    from apr.jobs.bench_train import bench_train

    training = {field: options.pop(field) for field in TRAINING_FIELDS}
    facts = bench_train(
        {field: value for field, value in training.items() if value is not None},
        against=against,
        share_settings=share_settings,
        strangers_environment=environment.of_strangers(),
        progress=output.progress(),
        notify=output.notify,
        **options,
    )
    text = "\n".join([train_text(facts), *_busy(facts["before"])])
    return output.Result(data=facts, text=text, next_commands=_next(training))


def _busy(before: dict[str, Any]) -> list[str]:
    """What to say of a machine that had other work when the bench began."""
    load, num_cores = before["load_average"], before["num_cores"] or 1
    if load < num_cores / 2:
        return []
    return [
        "",
        f"this machine was busy before the first step (load {load:.1f} on {num_cores} cores): "
        "rates and the ceiling are lower than its own, and ratios noisy",
    ]


def _next(training: dict[str, Any]) -> tuple[str, ...]:
    words: list[object] = ["apr", "bench", "checkpoint"]
    for field, value in training.items():
        name = field.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            words += [f"--{name}", value]
    return (output.command_line(*words),)
