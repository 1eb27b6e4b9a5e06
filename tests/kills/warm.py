"""A process that has everything loaded, and lives on in children: `apr` commands in a moment.

A fork of a process that has imported torch starts at once, and is as good as a new one as long as
its parent never started a thread or computed a gradient. `WarmApr` is the side that asks.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from tests.kills.faults import Fault, plant

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Ended:
    """How a command ended, and the operations on the watched directory that it began."""

    returncode: int
    out: str
    err: str
    operations: list[str]

    @property
    def was_killed(self) -> bool:
        """Whether it was killed, and did not end before that."""
        return self.returncode == -signal.SIGKILL


class WarmApr:
    """Runs `apr` commands, each in a process of its own; a context manager."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *sys.path]),
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kills.warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=_ROOT,
            text=True,
        )

    def __enter__(self) -> "WarmApr":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(
        self,
        arguments: list[str],
        *,
        watched: Path,
        fault: Fault | None = None,
        kill_after_s: float | None = None,
        jumping_clock: bool = False,
    ) -> Ended:
        """Run one command to its end, whichever that is."""
        assert self._process.stdin
        assert self._process.stdout
        request = {
            "arguments": arguments,
            "watched": str(watched),
            "scratch": str(self._scratch),
            "fault": asdict(fault) if fault else None,
            "kill_after_s": kill_after_s,
            "jumping_clock": jumping_clock,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the warm process has died"
        out, err, names = ((self._scratch / name).read_text() for name in ("out", "err", "names"))
        return Ended(json.loads(answer), out, err, names.splitlines())


def main() -> None:
    """Read requests, fork for each, answer with the exit status."""
    _load()
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _live(request)
        if (kill_after_s := request["kill_after_s"]) is not None:
            _kill_at(pid, time.monotonic() + kill_after_s)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _load() -> None:
    """Import whatever a run will; no thread may be started here, and no gradient computed."""
    import torch

    import apr.cli.main
    import apr.cli.pretrain
    import apr.jobs.pretrain  # noqa: F401

    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.zeros(2, 2)
    torch.optim.AdamW([parameter], fused=True).step()


def _kill_at(pid: int, moment_s: float) -> None:
    """Kill a child at a moment, unless it ends before; it is left to be waited for."""
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    if not poll.poll(max(0, moment_s - time.monotonic()) * 1000):
        os.kill(pid, signal.SIGKILL)
    os.close(handle)


def _live(request: dict[str, Any]) -> NoReturn:
    from apr.cli.main import run

    scratch = Path(request["scratch"])
    for name, standard in (("out", 1), ("err", 2)):
        handle = os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, standard)
    if request["jumping_clock"]:
        _let_the_clock_jump()
    fault = Fault(**request["fault"]) if request["fault"] else None
    plant(Path(request["watched"]), names=scratch / "names", fault=fault)
    code = 1
    try:
        code = run(request["arguments"])
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _let_the_clock_jump() -> None:
    """Have every look at the wall clock see it set an hour back, then two forward, and so on."""
    import apr.train.run_record

    looks = 0

    def offset_s() -> int:
        nonlocal looks
        looks += 1
        return looks * (3600 if looks % 2 else -3600)

    class Jumping(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # pyright: ignore[reportIncompatibleMethodOverride]
            return datetime.now(tz or UTC) + timedelta(seconds=offset_s())

    real_time = time.time
    time.time = lambda: real_time() + offset_s()
    apr.train.run_record.datetime = Jumping  # pyright: ignore[reportPrivateImportUsage]


if __name__ == "__main__":
    main()
