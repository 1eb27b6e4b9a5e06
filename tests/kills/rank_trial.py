"""A run of two ranks of which one is killed: the other one ends by itself, and nothing is lost.

A checkpoint of a run that is dealt out is written by both: the second leaves its share where the
first looks for it. Whoever is killed over it, the run goes on with two ranks as the run nobody
disturbed, by the bytes of every file; with one rank, as a run whose sums are added up in another
order.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kills.faults import Fault
from tests.kills.trial import (
    MIDDLE_STEP,
    NUM_STEPS,
    Lost,
    facts_of,
    fault_at,
    newest_checkpoint,
    next_arguments,
    require_same,
    require_went_on_from,
    short_run,
    without_inner_writes,
)
from tests.run_data import RunData
from tests.warm import Ended, Warm

WORLD_SIZE = 2
LAST_STEP = f"step-{NUM_STEPS:08d}"
_OF_A_RANK = re.compile(r"state-[0-9]{5}-of-[0-9]{5}\.safetensors")
_TOLERANCE_NATS = 2e-6
_NOT_OF_THE_SUMS = ("outcome", "tokens_seen", "tokens_by_source", "epochs_over_data")


@dataclass(frozen=True)
class Strike:
    """One rank killed at one operation."""

    rank: int
    fault: Fault

    def __str__(self) -> str:
        return f"rank {self.rank}, {self.fault.operation}, time {self.fault.at}"


@dataclass(frozen=True)
class RankTrials:
    """Trials in one place; `begin` makes it."""

    warm: Warm
    run_dir: Path
    flags: list[str]
    undisturbed: dict[str, Any]
    operations: list[list[str]]
    """Of the undisturbed run, in order, by rank."""

    @classmethod
    def begin(cls, data: RunData, run_dir: Path, warm: Warm, *, kind: str) -> "RankTrials":
        """Make the run that nobody disturbs; the model is dealt out, or every rank has it whole."""
        flags = short_run(data, run_dir, "--data-parallel", kind)
        ended = warm.run(flags, world_size=WORLD_SIZE, watched=run_dir)
        if any(each.returncode for each in ended):
            raise RuntimeError(str(ended))
        facts = facts_of(run_dir)
        shutil.rmtree(run_dir)
        return cls(warm, run_dir, flags, facts, [each.operations for each in ended])

    def strikes(self) -> list[Strike]:
        """Every operation of one checkpoint, and of the last one by the second rank.

        For its share of the last one the first rank waits, and does nothing else. Of many writes to
        one file in a row the first and the last are taken.
        """
        steps = (MIDDLE_STEP,), (MIDDLE_STEP, LAST_STEP)
        return [
            Strike(rank, fault_at(operations, point))
            for rank, operations in enumerate(self.operations)
            for point in without_inner_writes(operations)
            if any(step in operations[point - 1] for step in steps[rank])
        ]

    def strike(self, strike: Strike) -> None:
        """Start the run, and let that happen to it; the other rank ends by itself, with a word.

        Raises Lost.
        """
        ended = self.warm.run(
            self.flags,
            world_size=WORLD_SIZE,
            watched=self.run_dir,
            faults={strike.rank: strike.fault},
        )
        if not ended[strike.rank].was_killed:
            raise Lost(f"no kill: exit {ended[strike.rank].returncode}")
        _require_noticed(ended[1 - strike.rank])

    def go_on(self, *, world_size: int) -> None:
        """Resume, and compare with the undisturbed run.

        Raises Lost.
        """
        newest = newest_checkpoint(self.run_dir)
        arguments = next_arguments(self.run_dir, self.flags)
        if arguments is None:
            raise Lost("a run without one of its ranks has ended well")
        for each in self.warm.run(arguments, world_size=world_size, watched=self.run_dir):
            if each.returncode != 0:
                raise Lost(f"it did not go on: exit {each.returncode}, {each.err}")
        require_went_on_from(newest, self.run_dir)
        found = facts_of(self.run_dir)
        if world_size == WORLD_SIZE:
            require_same(found, self.undisturbed)
        else:
            _require_close(found, self.undisturbed)

    def clear(self) -> None:
        """Make room for the next trial."""
        shutil.rmtree(self.run_dir, ignore_errors=True)


def _require_noticed(survivor: Ended) -> None:
    if survivor.hung:
        raise Lost("the other rank waits for ever")
    if survivor.returncode != 5 or "refused[ranks.lost]" not in survivor.err:
        raise Lost(f"the other rank: exit {survivor.returncode}, {survivor.err[-300:]}")


def _require_close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The same files but for how a state is divided, and losses that differ by rounding."""
    same = {"files": _undivided(found["files"]), "log": _without_sums(found["log"])}
    same |= {key: found["record"][key] for key in _NOT_OF_THE_SUMS}
    require_same(
        same,
        {"files": _undivided(expected["files"]), "log": _without_sums(expected["log"])}
        | {key: expected["record"][key] for key in _NOT_OF_THE_SUMS},
    )
    for one, other in zip(found["log"], expected["log"], strict=True):
        if not abs(one["loss_nats"] - other["loss_nats"]) <= _TOLERANCE_NATS:
            raise Lost(f"{json.dumps(one)} instead of {json.dumps(other)}")


def _undivided(files: list[str]) -> list[str]:
    return sorted({_OF_A_RANK.sub("state.safetensors", name) for name in files})


def _without_sums(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: line[key] for key in ("kind", "step")} for line in log]
