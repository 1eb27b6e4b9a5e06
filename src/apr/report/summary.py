"""The top of the page: what happened, the key numbers, the yardsticks."""

from collections.abc import Callable, Sequence

from apr.report.bars import Bar, draw_bars
from apr.report.history import History
from apr.report.markup import Html, element, escape, join, not_measured, paragraph, section
from apr.report.numbers import (
    count_words,
    error_words,
    loss_words,
    moment,
    ratio_words,
    short_words,
)
from apr.report.outcome import Outcome
from apr.report.record import Record
from apr.units import format_duration

_LONGEST_S = 1e10
_IN_A_SENTENCE = {"unigram model": "a unigram model"}


def what_happened(outcome: Outcome, *, notices: Sequence[str]) -> Html:
    """The outcome as a sentence, and whatever a reader must know before believing the rest."""
    return element(
        "section",
        element("h2", escape(outcome.headline), id="outcome-heading"),
        element("p", escape(outcome.sentence, limit_bytes=1000), class_="sentence"),
        *(paragraph(escape(notice, limit_bytes=1000), class_="notice") for notice in notices),
        id="outcome",
        class_=f"outcome {outcome.tone}",
        aria_labelledby="outcome-heading",
    )


def key_numbers(record: Record, history: History) -> Html:
    """Six numbers, each with the words it needs to be understood, and what was predicted of one."""
    architecture, val = record.child("architecture"), record.child("val")
    throughput = record.child("throughput")
    figures = [
        _figure("Parameters", architecture, "num_parameters", short_words, "", _in_full),
        _tokens_seen(record, history),
        _figure("Best held-out loss", val, "best_loss_nats", loss_words, "nats", _loss_detail),
        _figure("Held-out bits per byte", val, "bits_per_byte", ratio_words, "", _text_detail),
        _figure("Throughput", throughput, "tokens_per_s", short_words, "tokens/s", _speed_detail),
        *_predicted(record),
        _duration(record, history),
    ]
    return section("Key numbers", element("dl", *figures, class_="figures"), id="numbers")


def yardsticks(record: Record) -> list[Html]:
    """The model's bits per byte beside what needs no training, where the run compared them."""
    baselines = record.child("baselines")
    if not baselines.values:
        return []
    bars: list[Bar] = []
    missing: list[Html] = []
    for name, source, key in (
        ("unigram model", baselines, "unigram_bits_per_byte"),
        ("gzip -9", baselines, "gzip_bits_per_byte"),
        ("this model", record.child("val"), "bits_per_byte"),
    ):
        value = source.number(key)
        if value is None:
            missing.append(paragraph(escape(f"{name}: "), not_measured(source.reason(key))))
        else:
            bars.append(Bar(name, value, ratio_words(value), is_main=name == "this model"))
    content: list[Html] = []
    if bars:
        listed = ", ".join(f"{bar.name} {bar.words}" for bar in bars)
        title = "Bits per byte of held-out text"
        content.append(draw_bars(bars, id="yardstick-bars", title=title, description=listed))
        content.append(paragraph(escape(_comparison(bars)), class_="reading"))
    return [section("Yardsticks", *content, *missing, id="yardsticks")]


def _figure(
    label: str,
    source: Record,
    key: str,
    written: Callable[[float], str],
    unit: str,
    detail: Callable[[Record, float], str],
) -> Html:
    value = source.number(key)
    if value is None:
        return _labelled(label, not_measured(source.reason(key)), "")
    amount = element("span", escape(written(value)), class_="amount")
    if unit:
        amount = join([amount, element("span", escape(unit), class_="unit")])
    return _labelled(label, amount, detail(source, value))


def _labelled(label: str, value: Html, detail: str) -> Html:
    parts = [element("dt", escape(label)), element("dd", value)]
    if detail:
        parts.append(element("dd", escape(detail), class_="detail"))
    return element("div", *parts)


def _in_full(_source: Record, value: float) -> str:
    return count_words(value)


def _tokens_detail(record: Record, _value: float) -> str:
    unique, epochs = record.number("unique_tokens"), record.number("epochs_over_data")
    parts = [] if unique is None else [f"of {short_words(unique)} unique"]
    if epochs is not None:
        parts.append(f"{ratio_words(epochs)} epochs")
    return ", ".join(parts)


def _loss_detail(val: Record, _value: float) -> str:
    step, error_nats = val.number("best_step"), val.number("best_standard_error_nats")
    parts = ["per token"] if step is None else [f"per token, at step {count_words(step)}"]
    if error_nats is not None:
        parts.append(f"standard error {error_words(error_nats)}")
    return ", ".join(parts)


def _text_detail(val: Record, _value: float) -> str:
    source = {
        "given": "given apart from the training text",
        "reserved": "set aside from the training text",
    }.get(val.text("source") or "", "")
    num_tokens = val.number("num_tokens")
    size = "" if num_tokens is None else f"{count_words(num_tokens)} tokens"
    seen = val.text("unseen_by_initial_model_reason") or ""
    return ", ".join(part for part in (size, source, seen) if part)


def _speed_detail(throughput: Record, _value: float) -> str:
    overall = throughput.number("tokens_per_s_end_to_end")
    return "" if overall is None else f"{short_words(overall)} with validation and checkpoints"


def _predicted(record: Record) -> list[Html]:
    """What the roofline expected before step 1, and how much of it was reached."""
    predicted = record.child("predicted")
    speed, measured = predicted.number("tokens_per_s"), record.child("throughput")
    if speed is None:
        return []
    reached = measured.number("tokens_per_s")
    detail = predicted.text("source") or ""
    ceiling = predicted.number("tokens_per_s_ceiling")
    if reached is not None and ceiling is not None and reached > ceiling:
        detail = f"the measured figure is impossible: nothing exceeds {short_words(ceiling)}"
    elif reached is not None and speed > 0:
        detail = f"{reached / speed * 100:.0f}% of it was reached; {detail}"
    amount = element("span", escape(short_words(speed)), class_="amount")
    unit = element("span", escape("tokens/s"), class_="unit")
    return [_labelled("Predicted throughput", join([amount, unit]), detail)]


def _tokens_seen(record: Record, history: History) -> Html:
    recorded = record.number("tokens_seen")
    if history.num_tokens > (recorded or 0):
        # run.json is brought up to date only at the end; a killed run has more in its steps.
        amount = element("span", escape(short_words(history.num_tokens)), class_="amount")
        return _labelled("Tokens seen", amount, "added up over the steps on record")
    return _figure("Tokens seen", record, "tokens_seen", short_words, "", _tokens_detail)


def _duration(record: Record, history: History) -> Html:
    started, finished = moment(record.text("started_at")), moment(record.text("finished_at"))
    if started is not None and finished is not None:
        elapsed_s, detail = (finished - started).total_seconds(), "from start to end"
        if record.children("resumes"):
            detail += ", pauses before resuming included"
    else:
        elapsed_s, detail = history.last_elapsed_s, "up to the last step on record"
    if elapsed_s is None or not 0 <= elapsed_s <= _LONGEST_S:
        reason = record.reason("finished_at") if elapsed_s is None else "the clock was changed"
        return _labelled("Time", not_measured(reason), "")
    amount = element("span", escape(format_duration(elapsed_s)), class_="amount")
    return _labelled("Time", amount, detail)


def _comparison(bars: Sequence[Bar]) -> str:
    model = next((bar for bar in bars if bar.is_main), None)
    others = [bar for bar in bars if not bar.is_main and bar.value > 0]
    if model is None or not others:
        return "Shorter is better."
    against = [
        f"{_difference(model.value / bar.value)} than {_IN_A_SENTENCE.get(bar.name, bar.name)}"
        for bar in others
    ]
    return f"Shorter is better. This model needs {' and '.join(against)}."


def _difference(ratio: float) -> str:
    if ratio <= 1:
        return f"{(1 - ratio) * 100:.0f}% fewer bits"
    return f"{(ratio - 1) * 100:.3g}% more bits"
