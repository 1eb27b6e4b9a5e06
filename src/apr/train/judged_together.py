"""A gate in which every rank of a run takes part, because no rank can compute it alone."""

from collections.abc import Callable
from dataclasses import asdict, replace

from apr.errors import Refusal
from apr.train.gates import (
    Finding,
    Gate,
    as_gate,
    finding_of_exception,
    finding_of_refusal,
)
from apr.train.ranks import Ranks


def judge_on_ranks(id: str, check: Callable[[], Finding], ranks: Ranks) -> Gate:
    """Run one check in which all ranks take part; the worst verdict of them, on each of them.

    An exception on one rank is a FAIL that no waiver can lift: the others wait for what this rank
    will not do any more.

    Refuses: ranks.lost, and the gate's own id after an exception.
    """
    try:
        with ranks.noticing_losses():
            finding = check()
    except Refusal as refusal:
        if refusal.id == "ranks.lost":
            raise
        finding = finding_of_refusal(refusal)
    except Exception as err:
        where = f"rank {ranks.rank} of {ranks.world_size}"
        raise as_gate(id, finding_of_exception(err)).as_refusal(where) from err
    verdicts = ("PASS", "UNKNOWN", "FAIL")
    severities = [row[0] for row in ranks.gathered([verdicts.index(finding.verdict)])]
    rank = severities.index(max(severities))
    said = Finding(**ranks.same_as(rank, asdict(finding)))
    if said.verdict != "PASS":
        said = replace(said, found=f"rank {rank}: {said.found}")
    return as_gate(id, said)
