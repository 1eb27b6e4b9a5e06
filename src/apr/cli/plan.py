"""`apr plan`: what a run would take and be worth, before it starts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.architecture import PRESET_NAMES
from apr.cli import output
from apr.cli.costs_text import costs_lines
from apr.cli.planned_run import next_run
from apr.cli.roofline_text import roofline_lines
from apr.cli.values import LOCAL_PATH, Dataset, Share
from apr.train.flags import TOKENS_PER_S
from apr.units import format_count

if TYPE_CHECKING:
    from apr.jobs.plan import RunPlan

_RATES = Share(min=TOKENS_PER_S[0], max=TOKENS_PER_S[1])


@click.command("plan", short_help="Say what a run takes, before it starts.")
@click.option("--arch", help=f"Preset of the model's shape: {', '.join(PRESET_NAMES)}.")
@click.option("--init", type=LOCAL_PATH, help="An .apr file: plan for its model instead.")
@click.option("--dataset", type=Dataset(), multiple=True, help="Shards; repeatable.")
@click.option("--val-shard", type=LOCAL_PATH, help="Held-out shards.")
@click.option("--tokenizer", type=LOCAL_PATH, help="The shards' tokenizer.")
@click.option("--run-dir", type=LOCAL_PATH, help="Where the run would be written.")
@click.option("--config", "config_path", type=LOCAL_PATH, help="TOML file of a run.")
@click.option("--mode", type=click.Choice(["from-scratch", "finetune"]), help="Regime of the run.")
@click.option("--vocab-size", type=int, help="Rows of the embedding.")
@click.option("--tokens", type=click.IntRange(1, 1 << 60), help="Tokens; or give --num-steps.")
@click.option("--num-steps", type=int, help="Optimizer updates.")
@click.option("--batch-size", type=int, help="Sequences per update.")
@click.option("--seq-length", type=int, help="Tokens per sequence.")
@click.option("--grad-accum", type=int, help="Micro-batches per update; as few as fit.")
@click.option(
    "--activation-checkpointing/--no-activation-checkpointing",
    default=None,
    help="Compute activations twice instead of keeping them; by memory.",
)
@click.option("--optimizer", type=click.Choice(["adamw", "muon"]), help="What is kept of it.")
@click.option("--eval-every", type=int, help="Updates between checkpoints.")
@click.option("--keep", type=int, help="Latest checkpoints kept, beside the best.")
@click.option("--device", help="auto, cpu, cuda, cuda:N; or a card, such as h200.")
@click.option("--rates", type=LOCAL_PATH, help="Rates that were measured on that device.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="Of computation.")
@click.option("--compile/--no-compile", default=None, help="Compiled kernels take less memory.")
@click.option("--tokens-per-s", type=_RATES, help="Throughput to compute hours with.")
@click.option("--like", type=LOCAL_PATH, help="Take the throughput of this finished run.")
@click.option(
    "--measure",
    is_flag=True,
    help="Measure the throughput here, with the kernels of the run: about 20 s, and up to a minute "
    "more to compile them.",
)
@output.standard_options
@click.pass_context
def command(
    ctx: click.Context,
    config_path: Path | None,
    tokens: int | None,
    tokens_per_s: float | None,
    like: Path | None,
    measure: bool,
    rates: Path | None,
    **flags: Any,
) -> output.Result:
    """Say what a run would take and be worth: memory, disk, tokens, hours, expected loss.

    \b
    apr plan --arch qwen2-0.5b --tokens 10000000000 --batch-size 16 --seq-length 512
    apr plan --dataset data/train --arch tiny --num-steps 2000 --measure
    apr plan --device h200 --arch qwen2-0.5b --seq-length 2048 --batch-size 256 --grad-accum 8

    With the name of a card its roofline is shown: the time of a token part by part, at assumed
    rates, or at measured ones where they exist; --like RUN is held against it.

    Shards, tokenizer, --init and run directory that apr pretrain would refuse are said and end with
    exit code 5, as far as it shows without reading tokens. Too little memory, disk or text is an
    answer, and exit code 0. Nothing is written, and no weight is made unless --measure asks for it.
    """  # noqa: D301  click reads the escaped character
    given = {flag: value for flag, value in flags.items() if value is not None and value != ()}
    for one, other, both in (
        ("--tokens", "--num-steps", tokens is not None and "num_steps" in given),
        ("--init", "--arch", "init" in given and "arch" in given),
        ("--init", "--vocab-size", "init" in given and "vocab_size" in given),
    ):
        if both:
            raise click.UsageError(f"{one} and {other} say the same thing; give one of them.", ctx)
    if sum((tokens_per_s is not None, like is not None, measure)) > 1:
        raise click.UsageError("give one of --tokens-per-s, --like and --measure.", ctx)

    from apr.jobs.plan import Speed, plan

    found = plan(
        given,
        config_path=config_path,
        tokens=tokens,
        speed=Speed(tokens_per_s, like, measure),
        rates_path=rates,
        notify=output.notify,
        progress=output.progress(),
    )
    changes = {"num_steps": found.config.num_steps} if tokens is not None else {}
    missing, words = next_run(found, given | changes, config_path)
    return output.Result(
        data=found.facts | {"config": found.known_config()},
        text="\n".join([_text(found), *missing]),
        next_commands=words,
        refusal=found.refusal,
    )


def _text(found: "RunPlan") -> str:
    facts = found.facts
    lines = [f"model       {facts['source']}", *costs_lines(facts)]
    for name in ("memory", "disk"):
        if facts[name]["fix"]:
            lines.append(f"to fit {name}: {facts[name]['fix']}")
    if found.on.card or found.on.rates:
        lines += ["", *roofline_lines(facts)]
    lines += ["", "expected final loss (nats per token)"]
    for law in facts["expected_loss"]:
        if law["loss_nats"] is None:
            lines.append(f"  unknown  {law['source']}: {law['loss_nats_reason']}")
            continue
        outside = ", ".join(law["outside_of_the_fit"])
        mark = f"; outside of what was fitted: {outside}" if outside else ""
        lines.append(f"  {law['loss_nats']:.3f}  {law['source']}{mark}")
    valid = facts["expected_loss"][0].get("validity")
    if valid:
        lines.append(f"  {valid}")
    lines += ["", *_budget_lines(facts["token_budget"])]
    if ids := facts["would_be_refused_by"]:
        lines += ["", f"apr pretrain would refuse this run: {', '.join(ids)}"]
    return "\n".join(lines)


def _budget_lines(budget: dict[str, Any]) -> list[str]:
    if budget["is_met"] is None:
        return [f"token budget: {budget['is_met_reason']}"]
    verdict = "met" if budget["is_met"] else "not met"
    wanted = f"token budget: {verdict}, {budget['tokens_per_parameter_needed']:g} per parameter"
    if budget["num_steps_needed"] is None:
        how = budget["num_steps_needed_reason"]
    else:
        how = (
            f"{budget['tokens_needed']:,} tokens, {budget['num_steps_needed']:,} steps"
            f" ({format_count(budget['tokens_needed'])})"
        )
    largest = budget["largest_sufficient_preset"] or (
        f"none: {budget['largest_sufficient_preset_reason']}"
    )
    return [wanted, f"  would be met by    {how}", f"  or by the preset   {largest}"]
