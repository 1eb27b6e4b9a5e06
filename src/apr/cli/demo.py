"""`apr demo`: the whole main job, with a picture at the end."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from apr.cli import output
from apr.cli.cache import encoder_proofs
from apr.cli.stopping import graceful_stop
from apr.cli.typed import typed_again
from apr.cli.values import LOCAL_PATH
from apr.errors import Interrupted

_BAR_WIDTH = 40


@click.command("demo", short_help="Train a small model on your interpreter's own sources.")
@click.option(
    "-o",
    "--output",
    "root",
    type=LOCAL_PATH,
    default=Path("runs/demo"),
    show_default=True,
    help="Directory that is written.",
)
@click.option("--overwrite", is_flag=True, help="Start over, replacing what is there.")
@click.option("--num-steps", type=click.IntRange(min=2), help="Optimizer updates [2000].")
@click.option("--seed", default=42, show_default=True, help="Decides split, weights and order.")
@output.standard_options
@click.pass_context
def command(
    ctx: click.Context, root: Path, overwrite: bool, num_steps: int | None, seed: int
) -> output.Result:
    """Train a small model on the Python sources of the running interpreter.

    \b
    apr demo
    """  # noqa: D301  click reads the escaped character
    from apr.jobs.demo import NUM_STEPS, demo, finished_demo
    from apr.jobs.sitting import Listener

    record = None if overwrite else finished_demo(root)
    if record is not None:
        return _result(
            record,
            root,
            opening=f"a finished demo is in {root}; to start over: "
            f"{output.command_line('apr', 'demo', '--overwrite', '-o', root)}\n\n",
        )
    with graceful_stop(output.notify, unsaved=partial(_stopped_unsaved, ctx)) as stopping:
        listener = Listener(
            progress=output.progress(),
            notify=output.notify,
            should_stop=stopping.should_stop,
            save_from_here=stopping.save_from_here,
        )
        record = demo(
            root,
            overwrite=overwrite,
            num_steps=num_steps or NUM_STEPS,
            seed=seed,
            cache_directory=encoder_proofs(),
            listener=listener,
        )
    return _result(record, root, opening="")


def _stopped_unsaved(ctx: click.Context) -> Interrupted:
    again = typed_again(ctx, without=("json", "quiet"))
    return Interrupted("stopped before step 1; the demo begins again", resume_command=again)


def _result(record: dict[str, Any], root: Path, *, opening: str) -> output.Result:
    model, report, val = root / "model.apr", root / "report.html", record["val"]
    data = {
        "outcome": record["outcome"],
        "val": val,
        "init_loss_nats": record["init_loss_nats"],
        "baselines": record["baselines"],
        "reopened_loss_nats": record["reopened_loss_nats"],
        "throughput": record["throughput"],
        "samples": record["samples"],
        "run_dir": str(root),
        "model": str(model),
        "report": str(report),
    }
    text = (
        f"{opening}{record['outcome']}: all {record['config']['num_steps']} planned steps were "
        f"taken, {record['tokens_seen']} tokens at "
        f"{record['throughput']['tokens_per_s']:.0f} tokens/s\n"
        f"held-out loss {val['best_loss_nats']:.4f} nats per token "
        f"(before step 1: {record['init_loss_nats']:.4f})\n"
        f"a fresh process reads {record['reopened_loss_nats']:.4f} nats from the file\n\n"
        f"{_yardsticks(record)}\n\n{_samples(record)}\n"
        f"model:  {model}\nreport: {report}"
    )
    return output.Result(
        data=data,
        text=text,
        next_commands=(
            output.command_line("apr", "run", model, "def read(", "--temperature", "0.6"),
            output.command_line("apr", "inspect", model),
            output.command_line("apr", "validate", model),
        ),
    )


def _yardsticks(record: dict[str, Any]) -> str:
    """Bits per byte side by side; shorter is better."""
    rows = [
        ("unigram model", record["baselines"]["unigram_bits_per_byte"]),
        ("gzip -9", record["baselines"]["gzip_bits_per_byte"]),
        ("this model", record["val"]["bits_per_byte"]),
    ]
    longest = max(bits for _, bits in rows)
    lines = ["bits per byte of held-out Python (less is better):"]
    for name, bits in rows:
        bar = "#" * max(1, round(_BAR_WIDTH * bits / longest))
        lines.append(f"  {name:<14} {bits:5.3f}  {bar}")
    return "\n".join(lines)


def _samples(record: dict[str, Any]) -> str:
    parts: list[str] = []
    for sample in record["samples"]:
        written = (sample["prompt"] + sample["text"]).splitlines()
        parts.append("\n".join(f"  | {line}" for line in written))
    return "it writes:\n\n" + "\n\n".join(parts) + "\n"
