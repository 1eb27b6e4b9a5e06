"""`apr selftest`: prove a run on its own model and data, or compute a skipped step again."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from apr.cli import output
from apr.cli.environment import make_cuda_repeatable
from apr.cli.gate_table import gate_lines
from apr.cli.pretrain import command as pretrain
from apr.cli.typed import typed_again
from apr.cli.values import LOCAL_PATH
from apr.train.flags import FIELD_OF_FLAG

if TYPE_CHECKING:
    from apr.jobs.selftest import Selftest
    from apr.train.replay import Computed, Replay

# What decides when a run validates, saves, skips and ends; no proof reads it.
_NOT_OF_A_STEP = {
    "divergence_factor",
    "dry_run",
    "eval_every",
    "eval_tokens",
    "force_under_provisioned",
    "json",
    "keep",
    "max_skipped_steps",
    "min_delta",
    "patience",
    "quiet",
    "resolution_nats",
    "resume",
    "spike_factor",
    "target_val_loss",
    "waive",
}


@click.command(
    "selftest",
    short_help="Prove a run on its own model and data.",
    params=[each for each in pretrain.params if each.name not in _NOT_OF_A_STEP],
)
@click.option(
    "--replay",
    type=LOCAL_PATH,
    help="Compute a step that a run skipped again: a directory below its skipped/.",
)
@output.standard_options
@click.pass_context
def command(
    ctx: click.Context, config_path: Path | None, replay: Path | None, **flags: Any
) -> output.Result:
    """Prove what a run computes, on its own model and data; write nothing.

    \b
    apr selftest --config run.toml
    apr selftest --replay runs/first/skipped/step-00000117
    """  # noqa: D301  click reads the escaped character
    from apr.train.resolved_config import resolve_config

    given = {
        FIELD_OF_FLAG.get(flag, flag): value
        for flag, value in flags.items()
        if value is not None and value != ()
    }
    if flags["deterministic"]:
        make_cuda_repeatable()
    if replay is not None and (config_path or set(given) - {"device"}):
        raise click.UsageError("--replay takes no option of a run but --device.", ctx)
    # What is missing is said before torch is loaded.
    config = resolve_config(given, config_path=config_path) if replay is None else None
    from apr.jobs.selftest import replay as replay_step
    from apr.jobs.selftest import selftest
    from apr.jobs.sitting import Listener

    listener = Listener(progress=output.progress(), notify=output.notify)
    if config is None:
        assert replay is not None, "without a configuration there is a step to replay"
        device = given.get("device", "cpu")
        return _replayed(replay_step(replay, device=device, listener=listener), replay)
    again = typed_again(ctx, without=("json", "quiet"))
    return _proven(selftest(config, listener=listener), again.replace("selftest", "pretrain", 1))


def _proven(proven: "Selftest", next_command: str) -> output.Result:
    """The verdicts as the command's answer; a proof that does not pass is exit code 5."""
    from apr.errors import Refusal

    lines = [*gate_lines(proven.gates), ""]
    lines += [f"not applicable: {id}: {why}" for id, why in proven.proofs.not_applicable.items()]
    passed = sum(gate.verdict == "PASS" for gate in proven.gates)
    lines.append(f"{passed} of {len(proven.gates)} proofs passed")
    return output.Result(
        data=proven.as_dict(),
        text="\n".join(lines),
        exit_code=0 if proven.passed else Refusal.exit_code,
        next_commands=(next_command,) if proven.passed else (),
    )


def _replayed(replayed: "Replay", directory: Path) -> output.Result:
    """What became of a skipped step; one that is not what was recorded is exit code 5."""
    from apr.errors import Refusal
    from apr.train.skipped_step import json_number

    facts = replayed.facts
    again = "reproduced" if replayed.reproduced else "not reproduced"
    lines = [
        f"step {facts.step} of rows {', '.join(map(str, facts.rows))}: {facts.what}",
        "",
        f"recorded in {facts.precision}: {_measured(facts.loss_nats, facts.grad_norm)}",
    ]
    for computed in replayed.computed:
        lines.append(
            f"now in {computed.precision}: {_measured(computed.loss_nats, computed.grad_norm)}"
        )
        lines += [f"  {line}" for line in _not_finite(computed)]
    lines += ["", f"the recorded finding was {again}"]
    recorded = {
        "loss_nats": json_number(facts.loss_nats),
        "grad_norm": json_number(facts.grad_norm),
        "precision": facts.precision,
    }
    data = {
        "reproduced": replayed.reproduced,
        "directory": str(directory),
        "step": facts.step,
        "rows": facts.rows,
        "what": facts.what,
        "recorded": recorded,
        "computed": [computed.as_dict() for computed in replayed.computed],
    }
    return output.Result(
        data=data,
        text="\n".join(lines),
        exit_code=0 if replayed.reproduced else Refusal.exit_code,
    )


def _measured(loss_nats: float, grad_norm: float) -> str:
    return f"loss {loss_nats:.6g} nats, gradient norm {grad_norm:.6g}"


def _not_finite(computed: "Computed") -> list[str]:
    lines: list[str] = []
    if computed.first_not_finite:
        lines.append(f"the first output that is not finite: {computed.first_not_finite}")
    bad = computed.parameters_not_finite
    if bad:
        more = f" and {len(bad) - 4} more" if len(bad) > 4 else ""
        lines.append(f"gradients that are not finite: {', '.join(bad[:4])}{more}")
    if not lines and math.isfinite(computed.loss_nats + computed.grad_norm):
        lines.append("every output and every gradient is finite")
    return lines
