"""The roofline as lines for a person: microseconds per token by part, and what they add up to."""

from collections.abc import Iterable, Mapping
from typing import Any

from apr.architecture import CONVENTIONS
from apr.cli.table import aligned
from apr.train.roofline import PARTS


def roofline_lines(facts: Mapping[str, Any]) -> list[str]:
    """The table of `apr plan --device NAME`, and a speed held against it where there is one."""
    found = facts["roofline"]
    if found is None:
        return [f"roofline    none: {facts['roofline_reason']}"]
    columns = list(found["tokens_per_s"])
    rows = [["us per token", *columns, "at"]]
    for part, names in PARTS.items():
        cells = [f"{found['us_per_token'][column][part]:.2f}" for column in columns]
        rates = dict.fromkeys(_rate(found["rates"][name], name, columns) for name in names)
        words = dict.fromkeys(found["rates"][name]["word"] for name in names)
        rows.append([part, *cells, f"{'; '.join(rates)}  {', '.join(words)}"])
    sums = (sum(found["us_per_token"][column].values()) for column in columns)
    rows.append(["sum", *(f"{each:.2f}" for each in sums), ""])
    speeds = (found["tokens_per_s"][column] for column in columns)
    rows.append(["tokens/s", *(f"{each:,.0f}" for each in speeds), ""])
    rows += _share_rows(found["mfu"], columns)
    rows += _share_rows(found["mfu_of_measured_ceiling"], columns)
    return [
        f"roofline    {found['device']}, rows of {found['sequence_length']:,}, micro-batches of "
        f"{found['micro_batch_tokens']:,} tokens",
        *aligned(rows),
        f"  rates: {found['source']}",
        f"  a run that is as fast: {found['assumes']}",
        *_against(found["against"]),
    ]


def _rate(rates: Mapping[str, Any], name: str, columns: Iterable[str]) -> str:
    unit = "TFLOP/s" if name.endswith("flops_per_s") else "TB/s"
    values = [f"{rates[column] / 1e12:.3g}" for column in columns]
    return f"{' / '.join(dict.fromkeys(values))} {unit}"


def _share_rows(shares: Mapping[str, Any], columns: Iterable[str]) -> list[list[str]]:
    ceiling = shares["ceiling_flops_per_s"]
    if ceiling is None:
        return []
    of = f"of {ceiling / 1e12:.3g} TFLOP/s, {shares['ceiling_source']}"
    return [
        [f"MFU, {convention}", *(f"{shares[convention][column]:.1%}" for column in columns), of]
        for convention in CONVENTIONS
    ]


def _against(against: Mapping[str, Any] | None) -> list[str]:
    if against is None:
        return []
    share = against["share_of_predicted"]
    verdict = against["share_of_predicted_reason"] if share is None else f"{share:.0%} of predicted"
    return [f"  against {against['tokens_per_s']:,.0f} tokens/s, {against['source']}: {verdict}"]
