"""Options that several commands of `apr bench` share."""

from collections.abc import Callable
from typing import Any

import click

TRAINING_FIELDS = (
    "arch",
    "vocab_size",
    "batch_size",
    "seq_length",
    "grad_accum",
    "device",
    "precision",
    "compile",
)


class Names(click.ParamType):
    """Names with commas between them."""

    name = "name[,name]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The names, each once, in the order they were given."""
        if isinstance(value, tuple):
            return value
        return tuple(dict.fromkeys(name.strip() for name in str(value).split(",") if name.strip()))


def against_option(peers: str) -> Callable[..., Any]:
    """The option that names peers."""
    return click.option("--against", type=Names(), default=(), help=f"Peers: {peers}.")


def rounds_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The option that says how often the sides take turns."""
    return click.option(
        "--rounds",
        "num_rounds",
        type=click.IntRange(1, 100),
        default=1,
        show_default=True,
        help="Turns of every side; ratios are taken in each.",
    )(command)


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a training that is measured: those of `apr pretrain` that decide its speed."""
    for option in (
        click.option("--compile/--no-compile", default=None, help="Compiled kernels; by probe."),
        click.option(
            "--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="Of computation."
        ),
        click.option("--device", help="auto, cpu, cuda or cuda:N."),
        click.option("--grad-accum", type=int, help="Micro-batches per update."),
        click.option("--seq-length", type=int, help="Tokens per sequence [256; on CUDA 2048]."),
        click.option("--batch-size", type=int, help="Sequences per update [16]."),
        click.option("--vocab-size", type=int, help="Rows of the embedding."),
        click.option(
            "--arch", help="Preset [a reference model of 8.6M parameters; on CUDA qwen2-0.5b]."
        ),
    ):
        command = option(command)
    return command
