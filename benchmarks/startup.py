"""How long `apr --help` takes, beside an empty Python in the same minute on the same machine.

    .venv/bin/python benchmarks/startup.py

The difference of the two medians is what apr adds; the goal is an `apr --help` under 0.15 s.
"""

import statistics
import subprocess
import sys
import time

REPETITIONS = 20
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "apr --help": [sys.executable, "-m", "apr", "--help"],
    "apr pretrain --help": [sys.executable, "-m", "apr", "pretrain", "--help"],
}


def main() -> None:
    """Time the commands in turn, so that a busy moment hits all of them."""
    elapsed_s: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for repetition in range(REPETITIONS + 1):
        for name, command in COMMANDS.items():
            took_s = time_once(command)
            # The first round fills the page cache and writes bytecode.
            if repetition > 0:
                elapsed_s[name].append(took_s)
    print(f"{'median':>8} {'fastest':>8}   of {REPETITIONS} fresh processes")
    for name, times_s in elapsed_s.items():
        print(f"{statistics.median(times_s):6.3f} s {min(times_s):6.3f} s   {name}")


def time_once(command: list[str]) -> float:
    """Seconds from start to end of one process."""
    started_s = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started_s


if __name__ == "__main__":
    main()
