"""preflight.val-size: whether the held-out set is large enough for what it is asked to show.

Before there is a model, its spread is not known. How the surprisal of single ids varies from row
to row stands in for it: it needs the tokens alone.
"""

import math

from apr.train.data_plan import DataPlan
from apr.train.gates import Finding
from apr.train.unigram import count_ids, row_surprisals, surprisals_nats
from apr.units import format_count

# Reading and counting this many takes about a second; the rest of a larger set is like them.
_MOST_TOKENS = 1 << 25
_NUM_ERRORS = 2.0


def check_val_size(data: DataPlan, *, resolution_nats: float) -> Finding:
    """Twice the standard error of the mean unigram surprisal is below `resolution_nats`.

    Counts are those of the training tokens; rows are the units that were drawn. Of sets that are
    too large to read in a moment, rows and tokens spread evenly over them are read.
    """
    sources, val = data.train.sources, data.val
    expected = f"below {resolution_nats:g} nats, the smallest difference it is asked to show"
    fix = "hold out more text, or ask for less with --resolution-nats"
    num_tokens = data.train.num_tokens
    if num_tokens <= 0 or val.num_rows < 2:
        found = f"{max(0, num_tokens)} training tokens, {val.num_rows} held-out rows"
        return Finding("UNKNOWN", found, f"{expected}; it takes two rows to have one", fix)
    shards = [rows.shards for rows in (*sources, val)]
    num_ids = max(each.manifest.vocab_size for each in shards)
    counts = sum(
        count_ids(
            rows.shards,
            rows.start,
            rows.stop,
            num_ids=num_ids,
            most_tokens=max(1, _MOST_TOKENS * (rows.stop - rows.start) // num_tokens),
        )
        for rows in sources
    )
    assert not isinstance(counts, int), "a run has at least one source"
    rows = row_surprisals(val, surprisals_nats(counts), most_tokens=_MOST_TOKENS)
    sampled_nats = rows.standard_error_nats
    if not sampled_nats:
        found = f"no spread: every one of {len(rows.nats)} rows has the same mean surprisal"
        return Finding("UNKNOWN", found, expected, "look at the text (apr tokenize explain)")
    # The error falls with the square root of the rows, so that of all rows follows from a part.
    error_nats = sampled_nats * math.sqrt(len(rows.nats) / val.num_rows)
    found = (
        f"{_NUM_ERRORS * error_nats:.4f} nats, twice the standard error of the mean unigram "
        f"surprisal ({rows.mean_nats:.3f} nats) over {val.num_rows} rows, "
        f"{format_count(val.num_targets)} tokens"
    )
    if len(rows.nats) < val.num_rows:
        found += f"; told from {len(rows.nats)} of the rows"
    if _NUM_ERRORS * error_nats < resolution_nats:
        return Finding("PASS", found, expected)
    needed = val.num_targets * (_NUM_ERRORS * error_nats / resolution_nats) ** 2
    missing = math.ceil(needed) - val.num_targets + 1
    return Finding(
        "FAIL",
        found,
        expected,
        f"hold out about {format_count(missing)} more "
        "tokens of text of this kind, or ask for less with --resolution-nats",
    )
