"""Fuzz the readers: `python -m tests.fuzz.run --executions 1000000`.

Every case follows from the seed, the target and a number, so the same command runs the same cases
whatever the number of workers. A finding is saved with its case; `--case` runs one again, here and
with its traceback. The exit code is 5 when anything was found.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tests.fuzz.execution import Execution, Finding, execute
from tests.fuzz.tally import Tally
from tests.fuzz.target import scratch_parent
from tests.fuzz.worker import Stretch, warmed, work

# What each reader gets of a hundred executions: by how much it believes of a file.
SHARES = {"container": 32, "gguf": 15, "gguf-front": 15, "safetensors": 25, "config": 13}

_EXIT_FINDINGS = 5
_EXIT_STOPPED = 130
_STRETCH = 20
"""Executions of a stretch, for every share."""
_PATIENCE = 6
"""A worker that shows no progress for so many time limits is taken for stuck or asleep."""
_REPORT_EVERY_S = 10.0


@dataclass
class _Worker:
    process: Any
    connection: Connection
    current: Any
    stretch: Stretch


@dataclass
class Fuzzing:
    """A run: who works on what, and what came of it."""

    seed: int
    limit_s: float
    scratch: str
    tallies: dict[str, Tally] = field(default_factory=dict[str, Tally])
    workers: list[_Worker] = field(default_factory=list[_Worker])

    def run(self, stretches: Iterator[Stretch], *, num_workers: int, planned: int) -> None:
        """Have every stretch fuzzed."""
        started_s = reported_s = time.monotonic()
        for stretch in _first(stretches, num_workers):
            self._start(stretch)
        while self.workers:
            ends = {end for w in self.workers for end in (w.connection, w.process.sentinel)}
            wait(ends, timeout=1.0)
            for worker in list(self.workers):
                self._attend(worker, stretches)
            if time.monotonic() - reported_s > _REPORT_EVERY_S:
                reported_s = time.monotonic()
                self._report(reported_s - started_s, planned)

    def _start(self, stretch: Stretch) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        current = context.RawArray("d", [-1, time.monotonic()])
        arguments = (theirs, current, self.seed, self.limit_s, self.scratch)
        process = context.Process(target=work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        ours.send(stretch)
        self.workers.append(_Worker(process, ours, current, stretch))

    def _attend(self, worker: _Worker, stretches: Iterator[Stretch]) -> None:
        """Take an answer and give the next stretch, or see what became of the worker."""
        number, begun_s = worker.current
        if worker.connection.poll():
            try:
                answer = worker.connection.recv()
            except (EOFError, ConnectionResetError):
                self._bury(worker, "it died: a crash, or killed for its memory")
                return
            self._tally(worker.stretch.target).merge(answer)
            following = next(stretches, None)
            if following is None:
                self._dismiss(worker)
            else:
                worker.stretch = following
                worker.connection.send(following)
        elif not worker.process.is_alive():
            self._bury(worker, "it died: a crash, or killed for its memory")
        elif number >= 0 and time.monotonic() - begun_s > _PATIENCE * self.limit_s:
            self._bury(worker, "it is stuck where no signal reaches, or asleep")

    def _dismiss(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        worker.connection.close()
        worker.process.join()

    def _bury(self, worker: _Worker, what: str) -> None:
        """Record the case that a worker did not come back from, and do the stretch without it."""
        worker.process.kill()
        self._dismiss(worker)
        number, stretch = int(worker.current[0]), worker.stretch
        if number < 0:
            raise SystemExit(f"a worker ended before its first case of {stretch.target}")
        text = f"{what}; exit code {worker.process.exitcode}"
        data = warmed(stretch.target).case(self.seed, number)
        finding = Finding(stretch.target, number, what, text, data)
        self._tally(stretch.target).add(number, Execution(None, self.limit_s, 0, finding))
        self._start(replace(stretch, skipped=stretch.skipped | {number}))

    def kill(self) -> None:
        """End the workers that are left; what they did not answer with is not counted."""
        for worker in self.workers:
            worker.process.kill()
            worker.process.join()

    def _tally(self, name: str) -> Tally:
        return self.tallies.setdefault(name, Tally())

    def _report(self, elapsed_s: float, planned: int) -> None:
        done = sum(tally.executions for tally in self.tallies.values())
        findings = sum(tally.signatures.total() for tally in self.tallies.values())
        rate = done / elapsed_s
        left = f"{(planned - done) / rate / 60:.0f} min left" if done else "starting"
        print(
            f"fuzz: {done:,} of {planned:,}, {rate:,.0f}/s, {left}, {findings} findings",
            file=sys.stderr,
            flush=True,
        )


def _first(stretches: Iterator[Stretch], count: int) -> list[Stretch]:
    return [stretch for _, stretch in zip(range(count), stretches, strict=False)]


def stretches(shares: dict[str, int], executions: int, *, deadline_s: float) -> Iterator[Stretch]:
    """Every target by turns, until the executions are used up or the time is."""
    ends = {name: executions * share // sum(shares.values()) for name, share in shares.items()}
    first = next(iter(shares))
    ends[first] += executions - sum(ends.values())
    at = dict.fromkeys(shares, 0)
    while any(at[name] < ends[name] for name in shares):
        for name, share in shares.items():
            stop = min(ends[name], at[name] + _STRETCH * share)
            if at[name] < stop and time.monotonic() < deadline_s:
                yield Stretch(name, at[name], stop)
            at[name] = stop


def save(findings: list[Finding], seed: int, out: Path) -> None:
    """Keep the bytes of every finding, and beside them what happened."""
    out.mkdir(parents=True, exist_ok=True)
    for finding in findings:
        name = f"{finding.target}-{seed}-{finding.number}"
        (out / f"{name}.bin").write_bytes(finding.data)
        (out / f"{name}.txt").write_text(f"{finding.signature}\n\n{finding.text}\n")
        print(f"saved {out / name}.bin: {finding.signature}")
        print(
            f"    again: python -m tests.fuzz.run --target {finding.target} --seed {seed} "
            f"--case {finding.number}"
        )


def run_case(name: str, seed: int, number: int, *, limit_s: float) -> int:
    """One case in this process."""
    target = warmed(name)
    execution = execute(target, number, target.case(seed, number), limit_s=limit_s)
    print(execution.finding.text if execution.finding else execution.outcome)
    return _EXIT_FINDINGS if execution.finding else 0


def main(arguments: list[str]) -> int:
    asked = _parser().parse_args(arguments)
    names = asked.target or list(SHARES)
    if asked.case is not None:
        return run_case(names[0], asked.seed, asked.case, limit_s=asked.limit_s)
    os.environ |= {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "0"}
    deadline_s = time.monotonic() + (asked.seconds or float("inf"))
    plan = stretches(
        {name: SHARES.get(name, 1) for name in names}, asked.executions, deadline_s=deadline_s
    )
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="apr-fuzz-", dir=scratch_parent()) as scratch:
        fuzzing = Fuzzing(asked.seed, asked.limit_s, scratch)
        try:
            fuzzing.run(plan, num_workers=asked.workers, planned=asked.executions)
        except KeyboardInterrupt:
            print("fuzz: stopped; what follows is of the executions until then", file=sys.stderr)
            asked.is_stopped = True
        fuzzing.kill()
    code = _conclude(fuzzing, time.monotonic() - started_s, Path(asked.out))
    return code or (_EXIT_STOPPED if asked.is_stopped else 0)


def _conclude(fuzzing: Fuzzing, elapsed_s: float, out: Path) -> int:
    tallies = fuzzing.tallies
    for name in sorted(tallies):
        print("\n".join(tallies[name].lines(name)))
    done = sum(tally.executions for tally in tallies.values())
    num_findings = sum(tally.signatures.total() for tally in tallies.values())
    different = sum(len(tally.signatures) for tally in tallies.values())
    print(
        f"{done} executions in {elapsed_s:.0f} s, {done / elapsed_s:.0f}/s, seed {fuzzing.seed}: "
        f"{num_findings} findings, {different} different"
    )
    save([each for tally in tallies.values() for each in tally.findings], fuzzing.seed, out)
    if not done:
        print("nothing was executed, so nothing was shown")
    return _EXIT_FINDINGS if num_findings or not done else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__)
    add = parser.add_argument
    add("--executions", type=int, default=1_000_000, help="of all targets together")
    add("--seconds", type=float, help="end after so long, whatever is left")
    add("--target", action="append", help="only this one; may be repeated")
    add("--seed", type=int, default=0, help="another one gives other cases")
    add("--workers", type=int, default=os.cpu_count() or 1)
    add("--limit-s", type=float, default=5.0, help="processor time that one input may take")
    add("--out", default="fuzz-findings", help="where the bytes of findings are kept")
    add("--case", type=int, help="run one case of one target here, with its traceback")
    parser.set_defaults(is_stopped=False)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
