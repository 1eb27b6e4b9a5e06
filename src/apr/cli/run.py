"""`apr run`: text out of a model."""

from pathlib import Path

import click

from apr.cli import output
from apr.cli.values import MODEL_PATH


@click.command("run", short_help="Write text with a model.")
@click.argument("model", type=MODEL_PATH)
@click.argument("prompt", default="")
@click.option(
    "-n",
    "--max-new-tokens",
    "--max-tokens",
    default=128,
    show_default=True,
    help="Most tokens to write.",
)
@click.option("--temperature", default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-k", type=int, help="Sample among the K likeliest tokens.")
@click.option("--top-p", type=float, help="Sample among the likeliest tokens of this mass.")
@click.option("--seed", type=int, help="Decides the samples [0].")
@output.standard_options
def command(
    model: Path,
    prompt: str,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    seed: int | None,
) -> output.Result:
    """Continue PROMPT with the model in the .apr file MODEL.

    \b
    apr run runs/demo/model.apr "def main(" -n 100 --temperature 0.7
    """  # noqa: D301  click reads the escaped character
    from apr.jobs.write_text import write_text

    written = write_text(
        model,
        prompt,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        progress=output.progress(),
    )
    return output.Result(data=written.as_dict(), text=prompt + written.text)
