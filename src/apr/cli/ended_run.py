"""An ended run as a command's answer: what its record says, for a person and for `--json`."""

from pathlib import Path
from typing import Any

from apr.cli import output


def ended(record: dict[str, Any], run_dir: Path) -> output.Result:
    """A finished run as the command's answer."""
    from apr.train.run_record import OUTCOME_EXIT_CODES

    model, report = run_dir / "model.apr", run_dir / "report.html"
    data = {
        key: record[key]
        for key in (
            "outcome",
            "val",
            "init_loss_nats",
            "num_applied_steps",
            "num_skipped_steps",
            "tokens_seen",
            "throughput",
        )
    } | {"run_dir": str(run_dir), "model": str(model), "report": str(report)}
    return output.Result(
        data=data,
        text=_ending_text(record, run_dir),
        exit_code=OUTCOME_EXIT_CODES[record["outcome"]],
        next_commands=(
            output.command_line("apr", "run", model, "def "),
            output.command_line("apr", "inspect", model),
        ),
    )


def _ending_text(record: dict[str, Any], run_dir: Path) -> str:
    from apr.train.run_record import config_in_force

    val, target = record["val"], config_in_force(record)["target_val_loss"]
    skipped = _skipped_text(record, run_dir)
    meaning = {
        "target_met": f"the held-out loss reached the target of {target}",
        "budget_exhausted": (
            "no planned step is left" if skipped else "all planned steps were taken"
        )
        + (f"; the target of {target} was not reached" if target else ""),
        "early_stop": "the held-out loss stopped improving",
    }[record["outcome"]]
    bits = val["bits_per_byte"]
    error_nats = val["best_standard_error_nats"]
    measured = (
        f"{val['best_loss_nats']:.4f} nats per token"
        + (f" (standard error {error_nats:.4f})" if error_nats is not None else "")
        + (f", {bits:.3f} bits per byte" if bits is not None else "")
    )
    tokens_per_s = record["throughput"]["tokens_per_s"]
    # Nothing is measured where no step was applied.
    speed = "no speed" if tokens_per_s is None else f"{tokens_per_s:.0f} tokens/s"
    no_better = (
        ""
        if val["best_loss_nats"] < record["init_loss_nats"]
        else "the run did not improve on the model it started from\n"
    )
    return (
        f"{record['outcome']}: {meaning}\n{skipped}"
        f"held-out loss {measured} at step {val['best_step']} "
        f"(before step 1: {record['init_loss_nats']:.4f})\n{no_better}"
        f"{record['tokens_seen']} tokens at {speed}\n"
        f"model:  {run_dir / 'model.apr'}\nreport: {run_dir / 'report.html'}"
    )


def _skipped_text(record: dict[str, Any], run_dir: Path) -> str:
    """How many steps changed the weights, where not all did."""
    applied, skipped = record["num_applied_steps"], record["num_skipped_steps"]
    if not skipped:
        return ""
    return (
        f"of {applied + skipped} steps {applied} changed the weights; {skipped} could not be "
        f"applied, and their batches are below {run_dir / 'skipped'}\n"
    )
