"""`apr bench tokenize`: tokens per second of the encoder, on one core."""

from typing import Any

import click

from apr.cli import cache, output
from apr.cli.bench.options import against_option, rounds_option
from apr.cli.values import LOCAL_PATH, Location
from apr.units import format_count


@click.command("tokenize")
@click.option(
    "--corpus",
    type=Location("path"),
    multiple=True,
    help="Text to encode [the interpreter's own sources]; repeatable.",
)
@click.option("--tokenizer", type=LOCAL_PATH, help="Tokenizer [one learned from these texts].")
@click.option("--eos-token", help="The separator, where the tokenizer declares none.")
@click.option(
    "--megabytes",
    type=click.IntRange(1, 10_000),
    default=8,
    show_default=True,
    help="Text that is encoded in each pass.",
)
@against_option("hf")
@rounds_option
@output.standard_options
def command(megabytes: int, **options: Any) -> output.Result:
    """Encode text on one core: tokens/s of the encoder that apr uses.

    \b
    apr bench tokenize
    apr bench tokenize --corpus repos --tokenizer tok --against hf --rounds 3

    Texts lie in memory and ids are dropped: reading, proving and writing come on top in
    encode-corpus. Sides whose ids differ have no ratio.
    """  # noqa: D301  click reads the escaped character
    from apr.jobs.bench_tokenize import bench_tokenize

    facts = bench_tokenize(
        limit_bytes=megabytes * 1_000_000,
        cache_directory=cache.encoder_proofs(),
        progress=output.progress(),
        **options,
    )
    return output.Result(data=facts, text=_text(facts), next_commands=("apr bench train",))


def _text(facts: dict[str, Any]) -> str:
    lines = [
        f"{facts['num_texts']} documents, {facts['text_bytes'] / 1e6:.1f} MB, "
        f"{facts['num_tokens']:,} tokens, one core",
        "",
        "side  tokens/s  tokens/CPU-s   MB/s  ratio  encoder",
    ]
    for name, side in facts["sides"].items():
        ratio = facts["ratios"].get(name)
        times = "" if ratio is None else "none" if ratio["median"] is None else _times(ratio)
        lines.append(
            f"{name:<4}  {format_count(side['tokens_per_s']):>8}  "
            f"{format_count(side['tokens_per_cpu_s']):>12}  {side['bytes_per_s'] / 1e6:>5.1f}  "
            f"{times:>5}  {side['encoder']} {side['version']}"
        )
    lines += [f"INVALID {each['reason']}" for each in facts["ratios"].values() if each["reason"]]
    return "\n".join(lines)


def _times(ratio: dict[str, Any]) -> str:
    return f"{ratio['median']:.2f}"
