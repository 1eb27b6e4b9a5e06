"""Kill a training run a hundred times: `python -m tests.kills.run`.

At every write point of a checkpoint, at every one outside of checkpoints, and at random moments,
half of which hit the resumed run again. Each time the run goes on and must end as the run that
nobody disturbed: the same files, byte for byte where they hold weights or moments. Then the same
write points with a disk that is full, fails once, or has become read-only. Then runs of two ranks,
of which one is killed at a write point of a checkpoint: the other one ends by itself, and the run
goes on with two, or with one. The exit code is 5 when anything was lost.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.kills.faults import DiskFault
from tests.kills.rank_trial import WORLD_SIZE, RankTrials, Strike
from tests.kills.trial import Lost, Trials
from tests.run_data import SOURCES, make_run_data
from tests.warm import Ended, Warm

_EXIT_LOST = 5
# With copies of the model on every rank the first one alone writes, as a single process does.
_COPIES_STRUCK = 8
_GO_ON_ALONE_EVERY = 4
_DISK_FAULTS: tuple[DiskFault, ...] = ("ENOSPC", "EIO", "EROFS")


@dataclass
class Tally:
    """What was done, and what came of it."""

    trials: Counter[str] = field(default_factory=Counter[str])
    hits: Counter[str] = field(default_factory=Counter[str])
    lost: list[str] = field(default_factory=list[str])
    slowest_s: dict[str, float] = field(default_factory=dict[str, float])

    def attempt(
        self, kind: str, trials: Trials | RankTrials, trial: Callable[[], int], where: str
    ) -> None:
        """Strike and go on, which says how often it hit, and make room."""
        started_s = time.monotonic()
        try:
            hits = trial()
        except Lost as err:
            hits = 1
            self.lost.append(f"{kind}, {where}: {err}")
            print(f"LOST  {self.lost[-1]}", file=sys.stderr)
        finally:
            trials.clear()
        self.trials[kind] += 1
        self.hits[kind] += hits
        took_s = time.monotonic() - started_s
        self.slowest_s[kind] = max(self.slowest_s.get(kind, 0.0), took_s)

    def table(self) -> str:
        """What is printed at the end."""
        rows = ["what happened               runs   hits   lost   slowest"]
        for kind, count in self.trials.items():
            lost = sum(each.startswith(f"{kind},") for each in self.lost)
            counts = f"{count:>6} {self.hits[kind]:>6} {lost:>6}"
            rows.append(f"{kind:<24} {counts} {self.slowest_s[kind]:>7.1f} s")
        return "\n".join(rows)


def main() -> int:
    """Run all trials, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--random", type=int, default=40, help="Kills at random moments.")
    parser.add_argument("--disk", type=int, default=12, help="Write points per failure of a disk.")
    parser.add_argument("--ranked", type=int, help="Kills of one of two ranks, unless all.")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, tally = random.Random(options.seed), Tally()
    with tempfile.TemporaryDirectory(prefix="apr-kills-") as place:
        scratch = Path(place) / "scratch"
        scratch.mkdir()
        with Warm(scratch) as apr:
            data = make_run_data(Path(place) / "data", sources=SOURCES / "container")
            trials = Trials.begin(data, Path(place) / "run", apr)
            print(
                f"seed {options.seed}: {len(trials.write_points())} write points", file=sys.stderr
            )
            _at_write_points(trials, tally)
            _at_random_moments(trials, tally, options.random, chance)
            for kind in _DISK_FAULTS:
                points = sorted(chance.sample(trials.points_where_it_fails(kind), options.disk))
                _with_a_failing_disk(trials, tally, kind, points)
            for kind, most in (("fsdp", options.ranked), ("ddp", _COPIES_STRUCK)):
                ranked = RankTrials.begin(data, Path(place) / "run", apr, kind=kind)
                strikes = ranked.strikes()
                chosen = chance.sample(strikes, len(strikes) if most is None else most)
                _at_one_rank(ranked, tally, kind, chosen)
    print(tally.table())
    kills = sum(count for kind, count in tally.hits.items() if kind.startswith("kill"))
    print(f"{kills} kills, {len(tally.lost)} runs lost something")
    return _EXIT_LOST if tally.lost or kills == 0 else 0


def _at_write_points(trials: Trials, tally: Tally) -> None:
    for point in trials.write_points():

        def trial(point: int = point) -> int:
            ended = trials.strike(trials.fault(point))
            _require_killed(ended, trials.operations[point - 1])
            trials.go_on()
            return 1

        tally.attempt("kill at a write point", trials, trial, trials.operations[point - 1])
        _say_how_far(tally)


def _at_random_moments(trials: Trials, tally: Tally, num_kills: int, chance: random.Random) -> None:
    started_s = time.monotonic()
    trials.strike()
    duration_s = time.monotonic() - started_s
    trials.clear()
    while tally.hits["kill at a random moment"] < num_kills:

        def trial() -> int:
            hits = int(trials.strike(kill_after_s=chance.uniform(0, duration_s)).was_killed)
            while chance.random() < 0.5:
                hits += trials.strike(kill_after_s=chance.uniform(0, duration_s)).was_killed
            trials.go_on()
            return hits

        tally.attempt("kill at a random moment", trials, trial, f"of {duration_s:.1f} s")
        _say_how_far(tally)


def _with_a_failing_disk(trials: Trials, tally: Tally, kind: DiskFault, points: list[int]) -> None:
    for point in points:

        def trial(point: int = point) -> int:
            ended = trials.strike(trials.fault(point, kind))
            require_refused(ended, f"{kind} at {trials.operations[point - 1]}")
            trials.go_on()
            return 1

        tally.attempt(f"disk: {kind}", trials, trial, trials.operations[point - 1])


def _at_one_rank(trials: RankTrials, tally: Tally, kind: str, strikes: list[Strike]) -> None:
    for number, each in enumerate(strikes):
        world_size = 1 if number % _GO_ON_ALONE_EVERY == 0 else WORLD_SIZE

        def trial(each: Strike = each, world_size: int = world_size) -> int:
            trials.strike(each)
            trials.go_on(world_size=world_size)
            return 1

        tally.attempt(f"kill of rank {each.rank} ({kind})", trials, trial, str(each))
        _say_how_far(tally)


def _require_killed(ended: Ended, where: str) -> None:
    if not ended.was_killed:
        raise Lost(f"no kill at {where}: exit {ended.returncode}")


def require_refused(ended: Ended, what: str) -> None:
    """A disk that says no ends a run with a refusal, never with a crash or a word of success.

    Raises Lost.
    """
    if ended.returncode != 7 or "refused[files." not in ended.err:
        raise Lost(f"{what}: exit {ended.returncode}, {ended.err[-300:]}")


def _say_how_far(tally: Tally) -> None:
    if (done := tally.trials.total()) % 10 == 0:
        print(f"{done} runs killed and gone on with, {len(tally.lost)} lost", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
