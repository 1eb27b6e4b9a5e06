"""A run that is killed or finds its disk failing, goes on, and must be the run nobody disturbed.

All trials use one path for the run directory, since it stands in the record whose hash every model
file carries: whole files can be compared that way, provenance included.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.kills.faults import DiskFault, Fault
from tests.run_data import RunData
from tests.warm import Ended, Warm

from apr.errors import Refusal
from apr.files import sha256_file
from apr.train.checkpoint import require_verified
from apr.train.run_record import OUTCOME_EXIT_CODES

NUM_STEPS = 3
MIDDLE_STEP = "step-00000002"
_LOG_WRITE = "write steps.jsonl"
_GOOD_ENDINGS = [word for word, code in OUTCOME_EXIT_CODES.items() if code == 0]
# What the machine had free at the time.
_OF_THE_MACHINE = ("preflight.memory", "preflight.disk-space")
_TIMED = ("started_at", "finished_at", "throughput", "resumes")


class Lost(Exception):
    """The run that went on is not the run that nobody disturbed."""


@dataclass(frozen=True)
class Trials:
    """Trials in one place; `begin` makes it."""

    apr: Warm
    run_dir: Path
    flags: list[str]
    undisturbed: dict[str, Any]
    operations: list[str]
    """Of the undisturbed run, in order."""

    @classmethod
    def begin(cls, data: RunData, run_dir: Path, apr: Warm) -> "Trials":
        """Make the run that nobody disturbs."""
        flags = short_run(data, run_dir)
        (ended,) = apr.run(flags, watched=run_dir)
        if ended.returncode != 0:
            raise RuntimeError(ended.err)
        facts = facts_of(run_dir)
        shutil.rmtree(run_dir)
        return cls(apr, run_dir, flags, facts, ended.operations)

    def write_points(self) -> list[int]:
        """Where to strike: every operation of one checkpoint, and every one that is of none.

        Of many writes to one file in a row the first and the last are taken.
        """
        points = [
            number
            for number in without_inner_writes(self.operations)
            if "/" not in (operation := self.operations[number - 1]) or MIDDLE_STEP in operation
        ]
        log = [at for at, each in enumerate(self.operations, start=1) if each == _LOG_WRITE]
        return sorted(points + log)

    def points_where_it_fails(self, kind: DiskFault) -> list[int]:
        """Write points that a failing disk must be noticed at.

        A full disk still renames, and making sure of a directory that is there needs no disk.
        """
        points = list[int]()
        for point in self.write_points():
            operation = self.operations[point - 1]
            is_there = (
                operation.startswith("os.mkdir") and operation in self.operations[: point - 1]
            )
            if not Fault(point, kind).is_harmless_to(operation.split()[0]) and not is_there:
                points.append(point)
        return points

    def fault(self, point: int, kind: Literal["kill"] | DiskFault = "kill") -> Fault:
        """A fault at an operation of the undisturbed run, wherever its turn comes this time."""
        return fault_at(self.operations, point, kind)

    def strike(self, fault: Fault | None = None, *, kill_after_s: float | None = None) -> Ended:
        """Start the run, or go on with it, and let that happen to it."""
        (ended,) = self.apr.run(
            next_arguments(self.run_dir, self.flags) or resume_arguments(self.run_dir),
            watched=self.run_dir,
            faults={} if fault is None else {0: fault},
            kill_after_s={} if kill_after_s is None else {0: kill_after_s},
        )
        return ended

    def go_on(self) -> None:
        """Resume, and compare with the undisturbed run.

        Raises Lost.
        """
        newest = newest_checkpoint(self.run_dir)
        arguments = next_arguments(self.run_dir, self.flags)
        if arguments is not None:
            (ended,) = self.apr.run(arguments, watched=self.run_dir)
            if ended.returncode != 0:
                raise Lost(f"it did not go on: exit {ended.returncode}, {ended.err}")
            require_went_on_from(newest, self.run_dir)
        found = facts_of(self.run_dir)
        if arguments is None:
            # The page comes after the word of success, and from `apr report` at any time.
            files = {name for name in found["files"] if not name.startswith(".report.html.")}
            found["files"] = sorted(files | {"report.html"})
        require_same(found, self.undisturbed)

    def clear(self) -> None:
        """Make room for the next trial."""
        shutil.rmtree(self.run_dir, ignore_errors=True)


def without_inner_writes(operations: list[str]) -> list[int]:
    """Operations by number; of many writes to one file in a row the first and the last.

    Those of the log are none of them: another thread does them, in between.
    """
    points = list[int]()
    others = [each for each in enumerate(operations, start=1) if each[1] != _LOG_WRITE]
    for (_, before), (number, operation), (_, after) in zip(
        [(0, ""), *others], others, [*others[1:], (0, "")], strict=False
    ):
        if not (operation.startswith("write") and before == operation == after):
            points.append(number)
    return points


def fault_at(
    operations: list[str], point: int, kind: Literal["kill"] | DiskFault = "kill"
) -> Fault:
    """A fault at one of these operations, wherever its turn comes in another run."""
    name = operations[point - 1]
    return Fault(operations[:point].count(name), kind, name)


def next_arguments(run_dir: Path, flags: list[str]) -> list[str] | None:
    """What a person would type now; None when the run has ended well."""
    record = run_dir / "run.json"
    if not record.exists():
        return flags
    if json.loads(record.read_text())["outcome"] in _GOOD_ENDINGS:
        return None
    return resume_arguments(run_dir)


def resume_arguments(run_dir: Path) -> list[str]:
    return ["pretrain", "--resume", str(run_dir), "--quiet"]


def newest_checkpoint(run_dir: Path) -> int:
    """The step of the newest; whatever has the name of a checkpoint is a whole one.

    Raises Lost.
    """
    steps = [0]
    for directory in (run_dir / "checkpoints").glob("step-*"):
        try:
            require_verified(directory)
        except Refusal as refusal:
            raise Lost(f"{directory.name} is no checkpoint: {refusal.found}") from refusal
        steps.append(int(directory.name.removeprefix("step-")))
    return max(steps)


def require_went_on_from(newest: int, run_dir: Path) -> None:
    """Raises Lost."""
    resumes = json.loads((run_dir / "run.json").read_text())["resumes"]
    last = resumes[-1] if resumes else {"step": 0, "passed_over": []}
    if (last["step"], last["passed_over"]) != (newest, []):
        raise Lost(f"it went on from {last} and not from step {newest}")


def require_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Raises Lost."""
    different = [key for key in expected if found.get(key) != expected[key]]
    if different:
        key = different[0]
        raise Lost(f"{key}: {found.get(key)!s:.600} instead of {expected[key]!s:.600}")


def facts_of(run_dir: Path) -> dict[str, Any]:
    """Everything about a finished run that does not depend on when or how fast it was."""
    # Directories too: an empty one is a leftover as well.
    files = sorted(str(path.relative_to(run_dir)) for path in run_dir.rglob("*"))
    record = json.loads((run_dir / "run.json").read_text())
    for gate in record["gates"]:
        if gate["id"] in _OF_THE_MACHINE:
            del gate["found"], gate["expected"]
    hashes = {
        name: sha256_file(run_dir / name)
        for name in files
        if re.search(r"\.(apr|safetensors)$", name)
    }
    states = {
        name: _without_seconds(json.loads((run_dir / name).read_text()))
        for name in files
        if name.endswith("state.json")
    }
    return {
        "files": files,
        "hashes": hashes,
        "states": states,
        "log": [
            _without_seconds(json.loads(line))
            for line in (run_dir / "steps.jsonl").read_text().splitlines()
        ],
        "record": {key: value for key, value in record.items() if key not in _TIMED},
    }


def _without_seconds(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not key.endswith("_s")}


def short_run(data: RunData, run_dir: Path, *more: str) -> list[str]:
    """The command line of a run of three steps, each with its checkpoint."""
    changed = {
        "--num-steps": NUM_STEPS,
        "--batch-size": 8,
        "--seq-length": 16,
        "--eval-every": NUM_STEPS,
    }
    flags = data.flags(run_dir)
    at = flags.index("--val-shard")
    del flags[at : at + 2]
    for flag, value in changed.items():
        flags[flags.index(flag) + 1] = str(value)
    return ["pretrain", *flags, "--checkpoint-every", "1", "--keep", "1", "--quiet", *more]
