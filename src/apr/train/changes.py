"""What a resume may change of a run: freely, on the record, or not at all.

Freely: what no weight depends on. On the record: what later steps depend on, while those already
taken stay what they were. Everything else makes another run.
"""

from collections.abc import Mapping
from typing import Any, Literal

from apr.errors import Refusal, UsageRefusal
from apr.train.config import TrainConfig
from apr.train.resolved_config import resolve_config
from apr.train.schedule import learning_rate_at
from apr.train.train_state import Ending, TrainState

Kind = Literal["free", "said", "moved", "refused"]

KINDS: dict[str, Kind] = {
    # The inputs may lie elsewhere; that they are the same is compared by hash.
    "dataset": "moved",
    "tokenizer": "moved",
    "val_shard": "moved",
    "init": "moved",
    "run_dir": "moved",
    "mode": "refused",
    "arch": "refused",
    "vocab_size": "refused",
    "num_steps": "said",
    "batch_size": "refused",
    "seq_length": "refused",
    "grad_accum": "said",
    "activation_checkpointing": "said",
    "learning_rate": "said",
    "warmup_steps": "said",
    "schedule": "said",
    "decay_fraction": "said",
    "optimizer": "refused",
    "weight_decay": "said",
    "adam_beta1": "said",
    "adam_beta2": "said",
    "max_grad_norm": "said",
    "document_mask": "refused",
    "eval_every": "said",
    "checkpoint_every": "free",
    "eval_tokens": "refused",
    "target_val_loss": "said",
    "stop_at_target": "said",
    "patience": "said",
    "min_delta": "said",
    "resolution_nats": "refused",
    "divergence_factor": "said",
    "max_skipped_steps": "said",
    "spike_factor": "said",
    "keep": "free",
    "seed": "refused",
    "device": "said",
    "data_parallel": "said",
    "precision": "said",
    "deterministic": "said",
    "compile": "said",
    "attention": "said",
    "sample_prompts": "free",
    "waive": "said",
}
_LARGEST_RATE_CHANGE = 0.1
_WHY_REFUSED = {
    "eval_tokens": "which each of the validations so far has read",
    "resolution_nats": "by which the held-out set was judged before step 1",
}


def changed_config(before: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """The configuration a run goes on with.

    Refuses: resume.another-run, naming a field that decided steps already taken or what these were
    judged by, and as `resolve_config`.
    """
    merged = before.model_dump() | dict(changes)
    # What followed from a field that changes is decided again.
    if changes.get("schedule", before.schedule) != before.schedule:
        merged["decay_fraction"] = changes.get("decay_fraction")
    if changes.get("stop_at_target") is False:
        merged["target_val_loss"] = None
    elif changes.get("target_val_loss") is not None:
        merged["stop_at_target"] = True
    # A waiver is added to those of the start, which stay in the record with their reasons.
    merged["waive"] = before.waive | changes.get("waive", {})
    after = resolve_config(merged)
    for field in differences(before, after):
        old, new = getattr(before, field), getattr(after, field)
        if field == "dataset":
            # The directories may have moved; how much is read of each may not change.
            old, new = ([source.weight for source in sources] for sources in (old, new))
        if (KINDS[field] == "refused" or field == "dataset") and old != new:
            raise UsageRefusal(
                "resume.another-run",
                f"--{field.replace('_', '-')}",
                found=new,
                expected=f"{old}, {_WHY_REFUSED.get(field, 'on which the steps taken depend')}",
                fix="start a new run; --init RUN/model.apr begins with these weights",
            )
    return after


def differences(before: TrainConfig, after: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Every field that differs, as JSON has it: what it was, and what it is now."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    return {field: (old[field], new[field]) for field in KINDS if old[field] != new[field]}


def require_steps_left(after: TrainConfig, state: TrainState) -> None:
    """Refuse a budget that has been spent already.

    Refuses: resume.no-steps-left.
    """
    if state.ended is None and after.num_steps <= state.step:
        raise UsageRefusal(
            "resume.no-steps-left",
            "--num-steps",
            found=after.num_steps,
            expected=f"more than {state.step}, the steps taken already",
            fix="ask for more steps; the model of the last checkpoint can be used as it is",
        )


def require_target_ahead(before: TrainConfig, after: TrainConfig, state: TrainState) -> None:
    """Refuse a new target that the run has reached already: nothing would be trained for it.

    Refuses: config.target-met-already.
    """
    known = [each for each in (state.best_loss_nats, state.start_loss_nats) if each is not None]
    target = after.target_val_loss
    if target is None or target == before.target_val_loss or not known or min(known) > target:
        return
    raise UsageRefusal(
        "config.target-met-already",
        "--target-val-loss",
        found=f"{target:g}, and a held-out loss of {min(known):.4f} by step {state.step}",
        expected="a target that training is needed for",
        fix="ask for a lower loss",
    )


def require_rate_continues(before: TrainConfig, after: TrainConfig, step: int) -> None:
    """Refuse a schedule under which the next step's rate jumps.

    Refuses: resume.rate-jumps.
    """
    planned, now = (learning_rate_at(step + 1, config) for config in (before, after))
    if step == 0 or abs(now / planned - 1.0) <= _LARGEST_RATE_CHANGE:
        return
    raise Refusal(
        "resume.rate-jumps",
        f"step {step + 1}",
        found=f"a learning rate of {now:.3g}",
        expected=f"{planned:.3g} within {_LARGEST_RATE_CHANGE:.0%}, as the run would have had",
        fix="what has begun to fall cannot be stretched: start a new run with --init and the "
        "checkpoint's model.apr; --schedule constant, or wsd before it falls, can be prolonged",
    )


def still_ended(state: TrainState, config: TrainConfig) -> Ending | None:
    """Whether a run that had ended is still at its end under another configuration."""
    if state.ended == "budget_exhausted" and config.num_steps > state.step:
        return None
    if state.ended == "early_stop" and state.stale_validations < config.patience:
        return None
    if state.ended == "target_met":
        best, target = state.best_loss_nats, config.target_val_loss
        return None if target is None or (best is not None and best > target) else "target_met"
    return state.ended
