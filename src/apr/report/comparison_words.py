"""What a comparison says in words, on the terminal and on its page."""

from apr.report.comparison import Comparison, Difference
from apr.report.numbers import error_words

NOT_DISTINGUISHABLE = "not distinguishable"


def headline(comparison: Comparison) -> str:
    """What was found, in one sentence that claims no more than the standard errors allow."""
    ranked = [standing for standing in comparison.standings if standing.rank is not None]
    together = [ranked[0].run.name]
    apart: list[str] = []
    for standing in ranked[1:]:
        assert standing.difference is not None
        side = apart if standing.difference.is_distinguishable else together
        side.append(standing.run.name)
    if len(together) > 1:
        told = f"{', '.join(together)}: {NOT_DISTINGUISHABLE} on this held-out set."
        return f"{told} Above them: {', '.join(apart)}." if apart else told
    nearest = ranked[1].difference
    assert nearest is not None
    return (
        f"{together[0]} has the lowest held-out loss, {difference_words(nearest)} below "
        f"{ranked[1].run.name}."
    )


def difference_words(difference: Difference) -> str:
    """A difference, its standard error, and how many of those it is."""
    nats = f"{difference.nats:.4f} nats"
    if difference.standard_error_nats is None:
        return nats
    words = f"{nats} \N{PLUS-MINUS SIGN} {error_words(difference.standard_error_nats)}"
    errors = difference.standard_errors
    return words if errors is None else f"{words} ({errors:.1f} standard errors)"


def verdict_words(difference: Difference) -> str:
    """Whether the difference counts, and how it was found."""
    how = "row by row" if difference.is_paired else "by the means"
    if difference.is_distinguishable:
        return f"distinguishable, {how}"
    if difference.standard_errors is None:
        return f"{NOT_DISTINGUISHABLE}, {how}: no standard error"
    return f"{NOT_DISTINGUISHABLE}, {how}"
