"""What happened to a run, in one sentence that claims no more than its record shows."""

from dataclasses import dataclass

from apr.report.history import History
from apr.report.numbers import loss_words
from apr.report.record import Record, config_in_force


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the tone of it, the sentence, and what speaks against it."""

    tone: str
    headline: str
    sentence: str
    doubt: str | None = None


def read_outcome(record: Record, history: History) -> Outcome:
    """Explain the outcome word, and hold it against the recorded numbers."""
    word = record.text("outcome")
    has_steps = history.end_step > 0
    after = _after(history)
    if word == "target_met":
        return _target_met(record)
    if word == "budget_exhausted":
        return _budget_exhausted(record, history)
    if word == "early_stop":
        return Outcome("open", "Stopped early", _early_stop(record, after))
    if word == "aborted":
        sentence = (
            f"The run was stopped {after}, because it could not go on. What follows had been "
            "measured by then; it is not a result."
        )
        return Outcome("bad", "Aborted", sentence)
    if word == "interrupted":
        rest = " Nothing was trained." if history.is_present else ""
        rest = " It can be resumed." if has_steps else rest
        return Outcome("open", "Interrupted", f"A signal stopped the run {after}.{rest}")
    if word == "artifact_lost":
        sentence = (
            f"Something the run had to keep could not be written or read back; this showed "
            f"{after}. The measurements stand, the files do not: do not ship them."
        )
        return Outcome("bad", "Artifact lost", sentence)
    if word == "running":
        reach = " No step is on record." if history.is_present else ""
        reach = f" Its steps end {after}." if has_steps else reach
        sentence = f"The record was never closed: the run is still going, or it was killed.{reach}"
        return Outcome("open", "Never ended", sentence)
    sentence = (
        "The record does not say how the run ended."
        if word is None
        else "The record ends with a word that this version of apr does not know."
    )
    return Outcome("open", "Outcome unknown", sentence)


def _after(history: History) -> str:
    if not history.is_present:
        return "at a step that is not on record"
    return f"after step {history.end_step:,}" if history.end_step else "before the first step"


def _target_met(record: Record) -> Outcome:
    best, target = _losses(record)
    if best is None or target is None:
        missing = "best held-out loss" if best is None else "target"
        doubt = f"The record holds no {missing}, so this page cannot confirm it."
        sentence = "The record says that the held-out loss reached its target."
        return Outcome("open", "Target met, unconfirmed", sentence, doubt)
    numbers = f"{loss_words(best)} nats per token; the target was {loss_words(target)}."
    if best > target:
        sentence = (
            f"The record claims that the target was met, but its best held-out loss is {numbers}"
        )
        return Outcome("bad", "Target met, contradicted", sentence)
    return Outcome("good", "Target met", f"The held-out loss came down to {numbers}")


def _budget_exhausted(record: Record, history: History) -> Outcome:
    num_steps = config_in_force(record).number("num_steps")
    budget = "" if num_steps is None else f" of {num_steps:,.0f} steps"
    sentence = (
        f"The run spent its whole budget{budget}{_applied(history)}. {_against_target(record)} "
        "That the budget ended does not mean that the model had stopped learning."
    )
    doubt = None
    if history.is_present and num_steps is not None and history.end_step != num_steps:
        doubt = (
            f"steps.jsonl ends at step {history.end_step:,}, not at {num_steps:,.0f}: the run's "
            "files contradict each other."
        )
    return Outcome("open", "Budget exhausted", sentence, doubt)


def _applied(history: History) -> str:
    """How many steps of a budget changed the weights, where not all did."""
    num_skipped = len(history.skipped_steps)
    if not num_skipped:
        return ""
    return f": {_were(history.num_steps)} applied, {_were(num_skipped)} not"


def _were(count: int) -> str:
    return "1 was" if count == 1 else f"{count:,} were"


def _early_stop(record: Record, after: str) -> str:
    patience = config_in_force(record).number("patience")
    times = "" if patience is None else f" for {patience:,.0f} validations in a row"
    return (
        f"The run was stopped {after}, because the held-out loss had not improved{times}. "
        f"{_against_target(record)}"
    )


def _against_target(record: Record) -> str:
    best, target = _losses(record)
    if best is None:
        return "Its best held-out loss is not recorded."
    reached = f"Its best held-out loss is {loss_words(best)} nats per token"
    if target is None:
        return f"{reached}; no target was set."
    side = "above" if best > target else "not above"
    return f"{reached}, {side} the target of {loss_words(target)}."


def _losses(record: Record) -> tuple[float | None, float | None]:
    config = config_in_force(record)
    aims = config.values.get("stop_at_target") is not False
    target = config.number("target_val_loss") if aims else None
    return record.child("val").number("best_loss_nats"), target
