"""What checkpoints cost a training run, and how soon a resumed run takes its next step.

    python benchmarks/checkpoint.py [--rounds 5] [--steps 12] [--no-resume] [--json]

The first is `apr bench checkpoint`. The time to resume is from the start of a process to its first
step, on the run that `apr demo` makes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from apr.cli.main import run

RESUMES = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="steps beside one checkpoint")
    parser.add_argument("--no-resume", action="store_true", help="leave the time to resume out")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--resume-run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.resume_run:
        print(resumed_at_s(options.resume_run))
        return
    words = ["bench", "checkpoint", "--rounds", str(options.rounds), "--steps", str(options.steps)]
    code = run([*words, "--against", "plain", *(["--json"] if options.json else [])])
    if code or options.no_resume:
        sys.exit(code)
    resumes_s = list(resume_times_s())
    if options.json:
        print(json.dumps({"resumes_s": resumes_s}))
        return
    spread = ", ".join(f"{each:.1f}" for each in resumes_s)
    print(f"resume to first step, demo: {statistics.median(resumes_s):.1f} s  ({spread})")


def resume_times_s() -> Iterable[float]:
    """Seconds from the start of a process until the demo's run is about to take its next step."""
    from apr.errors import Interrupted
    from apr.jobs.demo import demo
    from apr.jobs.sitting import Listener

    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "demo"
        with suppress(Interrupted):
            demo(root, listener=Listener(should_stop=should_stop))
        for _ in range(RESUMES):
            started_s = time.monotonic()
            done = subprocess.run(
                [sys.executable, __file__, "--resume-run", str(root)],
                check=True,
                capture_output=True,
                text=True,
            )
            yield float(done.stdout.splitlines()[-1]) - started_s


def resumed_at_s(run_dir: Path) -> float:
    """Resume, and stop when the loop asks before its first step; the clock at that moment."""
    from apr.errors import Interrupted
    from apr.jobs.resume import resume
    from apr.jobs.sitting import Listener

    moments_s: list[float] = []

    def should_stop() -> bool:
        moments_s.append(time.monotonic())
        return True

    try:
        resume(run_dir, listener=Listener(should_stop=should_stop))
    except Interrupted:
        return moments_s[0]
    raise RuntimeError("the run took no step")


if __name__ == "__main__":
    main()
