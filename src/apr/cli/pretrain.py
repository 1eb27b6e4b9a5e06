"""`apr pretrain`: train a model on shards, check a plan, or continue a run."""

import os
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.architecture import PRESET_NAMES
from apr.cli import output
from apr.cli.costs_text import costs_lines
from apr.cli.ended_run import ended
from apr.cli.environment import make_cuda_repeatable
from apr.cli.gate_table import gate_lines
from apr.cli.stopping import graceful_stop, save_on_signal
from apr.cli.torchrun import numbers_of_environment, run_on_ranks
from apr.cli.typed import typed_again
from apr.cli.values import LOCAL_PATH, Dataset
from apr.errors import Interrupted, UsageRefusal
from apr.train.flags import (
    BATCH_SIZE,
    BY_MODE,
    EVAL_EVERY,
    FIELD_OF_FLAG,
    KEEP,
    NUM_STEPS,
    PATIENCE,
    PRESET,
    SEED,
    SEQ_LENGTH,
)

if TYPE_CHECKING:
    from apr.jobs.pretrain import Plan
    from apr.train.ranks import Ranks


def _default(value: object, also: str = "") -> str:
    """The end of an option's help, as click writes it for the defaults that it knows."""
    return f"  [default: {value}{also}]"


def _by_mode(field: str, also: str = "") -> str:
    values = [f"{getattr(each, field):g} {mode}" for mode, each in BY_MODE.items()]
    return _default(", ".join(values), also)


@click.command("pretrain", short_help="Train a model on shards, or resume a run.")
@click.option(
    "--dataset",
    type=Dataset(),
    multiple=True,
    help="Directory of training shards; several make a mixture, by tokens or by WEIGHT.",
)
@click.option("--tokenizer", type=LOCAL_PATH, help="The shards' tokenizer.")
@click.option("--run-dir", type=LOCAL_PATH, help="Where the run is written.")
@click.option(
    "--val-shard",
    type=LOCAL_PATH,
    help="Directory of held-out shards; by default the first documents are set aside.",
)
@click.option(
    "--config",
    "config_path",
    type=LOCAL_PATH,
    help="TOML file of the same options, named as in run.json (learning_rate for --lr); a flag "
    "overrides one field.",
)
@click.option("--resume", type=LOCAL_PATH, help="Continue the run in this directory.")
@click.option("--dry-run", is_flag=True, help="Run every gate, write nothing, stop.")
@click.option(
    "--init", type=LOCAL_PATH, help="Start from this .apr file: its shape and its weights."
)
@click.option(
    "--mode", type=click.Choice(["from-scratch", "finetune"]), help="Regime; finetune with --init."
)
@click.option("--arch", help=f"Preset: {', '.join(PRESET_NAMES)}.{_default(PRESET)}")
@click.option("--vocab-size", type=int, help="Rows of the embedding.")
@click.option("--num-steps", type=int, help=f"Optimizer updates.{_default(NUM_STEPS)}")
@click.option("--batch-size", type=int, help=f"Sequences per update.{_default(BATCH_SIZE)}")
@click.option("--seq-length", type=int, help=f"Tokens per sequence.{_default(SEQ_LENGTH)}")
@click.option(
    "--grad-accum",
    type=int,
    help="Micro-batches per update; divides the batch size; by default as few as fit in memory.",
)
@click.option(
    "--activation-checkpointing/--no-activation-checkpointing",
    default=None,
    help="Compute activations twice instead of keeping them; by default where nothing else fits.",
)
@click.option("--lr", type=float, help=f"Peak learning rate.{_by_mode('learning_rate')}")
@click.option(
    "--warmup-steps",
    type=int,
    help=f"Updates of linear warm-up.{_by_mode('warmup_steps', '; at most half of the run')}",
)
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "wsd", "constant"]),
    help="How the rate falls after the warm-up (cosine).",
)
@click.option(
    "--optimizer",
    type=click.Choice(["adamw", "muon"]),
    help="adamw; or muon for the matrices inside the blocks, at the rate one gives AdamW.",
)
@click.option("--decay-fraction", type=float, help="Last part of a wsd run, where the rate falls.")
@click.option(
    "--target-val-loss",
    type=float,
    help="Held-out nats per token at which the run ends as target_met; by mode the target of the "
    "Rust tools, and none where --init is past it before step 1; stop_at_target = false in "
    f"--config sets none.{_by_mode('target_val_loss')}",
)
@click.option(
    "--eval-every",
    "--steps-per-epoch",
    type=int,
    help=f"Updates between validations.{_default(EVAL_EVERY, ', or the whole of a shorter run')}",
)
@click.option(
    "--eval-tokens",
    type=int,
    help="Held-out tokens read at each validation [a sixteenth of those trained on between two, "
    "at least 10,000, at most 100,000].",
)
@click.option("--divergence-factor", type=float, help="Multiple of the best loss that aborts.")
@click.option("--max-skipped-steps", type=int, help="Steps of any hundred that may be skipped.")
@click.option("--spike-factor", type=float, help="Multiple of the median gradient norm to skip at.")
@click.option(
    "--checkpoint-every",
    type=int,
    help="Updates between checkpoints; by default as between validations.",
)
@click.option(
    "--patience",
    type=int,
    help=f"Validations without improvement before stopping.{_default(PATIENCE)}",
)
@click.option(
    "--min-delta", type=float, help="Standard errors of the loss that count as an improvement."
)
@click.option(
    "--resolution-nats", type=float, help="Smallest difference the held-out set must show."
)
@click.option("--keep", type=int, help=f"Latest checkpoints kept, beside the best.{_default(KEEP)}")
@click.option("--seed", type=int, help=f"Decides initial weights and batch order.{_default(SEED)}")
@click.option("--device", help="auto, cpu, cuda or cuda:N; only auto may fall back.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), help="Of computation.")
@click.option(
    "--data-parallel",
    type=click.Choice(["auto", "ddp", "fsdp"]),
    help="How ranks share a run: each the whole model, or a part of it; by memory.",
)
@click.option(
    "--deterministic",
    is_flag=True,
    default=None,
    help="The same bits every time on a GPU, too; slower there.",
)
@click.option("--compile/--no-compile", default=None, help="Compiled kernels; by probe.")
@click.option(
    "--attention",
    type=click.Choice(["auto", "plain", "pieces", "flash", "cudnn", "varlen"]),
    help="How it is computed; by device and length.",
)
@click.option(
    "--document-mask/--no-document-mask",
    default=None,
    help="Hide packed documents from each other (default).",
)
@click.option(
    "--force-under-provisioned", is_flag=True, help="Waive preflight.token-budget; recorded."
)
@click.option("--waive", multiple=True, metavar="ID=REASON", help="Let one gate fail; recorded.")
@output.standard_options
@click.pass_context
def command(
    ctx: click.Context,
    config_path: Path | None,
    resume: Path | None,
    dry_run: bool,
    force_under_provisioned: bool,
    waive: tuple[str, ...],
    **flags: Any,
) -> output.Result | int:
    """Train a model on shards, from scratch or from --init, or continue a stopped run.

    \b
    apr pretrain --dataset data/train --val-shard data/val --tokenizer tok \\
        --run-dir runs/first --arch tiny --num-steps 200 --batch-size 16 --seq-length 256 \\
        --force-under-provisioned
    apr pretrain --init base.apr --dataset data/train --val-shard data/val --tokenizer tok \\
        --run-dir runs/second
    apr pretrain --resume runs/first

    Several datasets are mixed: --dataset code=0.7 --dataset prose=0.3 are shares of the training
    tokens; without weights the shares are those of the tokens. A mixture needs --val-shard.

    Ctrl-C and SIGTERM save and stop; SIGUSR1 saves and goes on. Beside --resume, an option changes
    the run from there on: what no weight depends on freely, what later steps depend on with a line
    in the record, and what decided earlier steps not at all.
    """  # noqa: D301  click reads the escaped character
    from apr.train.gates import parse_waivers
    from apr.train.resolved_config import resolve_config

    given = {
        FIELD_OF_FLAG.get(flag, flag): value
        for flag, value in flags.items()
        if value is not None and value != ()
    }
    if flags["deterministic"]:
        make_cuda_repeatable()
    if resume is not None and (config_path or dry_run or "run_dir" in given):
        raise UsageRefusal(
            "config.resume-with-options",
            "--resume",
            found="an option beside it that belongs to the start of a run",
            expected="options that change the run from here on, or none",
            fix="drop --config, --run-dir and --dry-run, or start a new run",
        )
    waivers = parse_waivers(waive)
    if force_under_provisioned:
        waivers.setdefault("preflight.token-budget", "--force-under-provisioned")
    if waivers:
        given["waive"] = waivers
    configured = cache(lambda: resolve_config(given, config_path=config_path))
    if resume is None and numbers_of_environment(os.environ) is None:
        configured()  # What is missing is said before torch is loaded; ranks refuse together.
    from apr.jobs.pretrain import preflight, pretrain
    from apr.jobs.resume import resume as resume_run
    from apr.jobs.sitting import SILENT, Listener
    from apr.progress import silent

    def judge(ranks: "Ranks") -> output.Result:
        # Nothing is written, so that Ctrl-C has nothing to wait for.
        listener = Listener(progress=output.progress(), notify=output.notify)
        config = configured()
        plan = preflight(config, ranks=ranks, listener=listener if ranks.is_first else SILENT)
        return _judged(plan, typed_again(ctx, without=("dry_run", "json", "quiet")))

    def train(ranks: "Ranks") -> output.Result:
        say = output.notify if ranks.is_first else _say_nothing
        unsaved = partial(_stopped_unsaved, resume)
        with (
            graceful_stop(say, unsaved=unsaved) as stopping,
            save_on_signal(say) as should_save,
        ):
            listener = Listener(
                progress=output.progress() if ranks.is_first else silent,
                notify=say,
                should_stop=stopping.should_stop,
                should_save=should_save,
                save_from_here=stopping.save_from_here,
            )
            if resume is not None:
                record = resume_run(resume, changes=given, ranks=ranks, listener=listener)
                return ended(record, resume)
            config = configured()
            return ended(pretrain(config, ranks=ranks, listener=listener), config.run_dir)

    return run_on_ranks(judge if dry_run else train)


def _stopped_unsaved(resume: Path | None) -> Interrupted:
    if resume is None:
        return Interrupted("stopped before step 1; nothing was written")
    return Interrupted(
        "stopped before the next step; the run is as it was",
        resume_command=output.command_line("apr", "pretrain", "--resume", resume),
    )


def _say_nothing(_text: str) -> None:
    """What ranks other than the first say."""


def _judged(plan: "Plan", real_run: str) -> output.Result:
    """A dry run's verdicts as the command's answer; a blocking gate is exit code 5."""
    from apr.errors import Refusal

    costs = costs_lines(plan.costs) if plan.costs else ["a model whose shape is not known"]
    lines = [*costs, "", *gate_lines(plan.gates)]
    lines.append("\nthe run may start" if plan.may_start else "\nthe run would be refused")
    return output.Result(
        data=plan.as_dict(),
        text="\n".join(lines),
        exit_code=0 if plan.may_start else Refusal.exit_code,
        next_commands=(real_run,) if plan.may_start else (),
    )
