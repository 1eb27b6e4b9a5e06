"""Processes that have everything loaded: `apr` commands and functions in a moment, on any ranks.

A fork of a process that has imported torch starts at once, and is as good as a new one as long as
its parent never started a thread or computed a gradient. Several ranks are real processes that meet
over the network of this machine, as torchrun starts them. `Warm` is the side that asks.
"""

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from tests.kills.faults import Fault, plant

_ROOT = Path(__file__).resolve().parents[1]
_LIMIT_S = 90
_NO_FAULTS: Mapping[int, Fault] = {}
_NO_KILLS: Mapping[int, float] = {}


@dataclass(frozen=True)
class Ended:
    """How one process ended, and the operations on the watched directory that it began."""

    returncode: int
    out: str
    err: str
    operations: list[str]

    @property
    def was_killed(self) -> bool:
        """Whether it was killed, and did not end before that."""
        return self.returncode == -signal.SIGKILL

    @property
    def hung(self) -> bool:
        """Whether it would not end by itself."""
        return self.returncode == -signal.SIGALRM

    @property
    def answer(self) -> Any:
        """What a called function returned."""
        return json.loads(self.out)


class Warm:
    """Runs commands and functions, each rank in a process of its own; a context manager."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *sys.path]),
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=_ROOT,
            text=True,
        )

    def __enter__(self) -> "Warm":
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
        world_size: int = 1,
        watched: Path | None = None,
        faults: Mapping[int, Fault] = _NO_FAULTS,
        kill_after_s: Mapping[int, float] = _NO_KILLS,
    ) -> list[Ended]:
        """An `apr` command on every rank, to its end, whichever that is; %RANK% is its number.

        Faults strike operations below `watched`, and kills fall at a moment, each on its rank.
        """
        asked = {
            "arguments": arguments,
            "watched": watched and str(watched),
            "faults": {rank: asdict(fault) for rank, fault in faults.items()},
            "kill_after_s": dict(kill_after_s),
        }
        return self._ask(world_size, asked)

    def call(self, function: str, *, world_size: int = 1, **options: Any) -> list[Ended]:
        """`module:function(ranks, **options)` on every rank that has joined the others."""
        return self._ask(world_size, {"function": function, "options": options})

    def _ask(self, world_size: int, asked: dict[str, Any]) -> list[Ended]:
        assert self._process.stdin
        assert self._process.stdout
        request = asked | {"world_size": world_size, "scratch": str(self._scratch)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the warm process has died"
        ended = list[Ended]()
        for rank, code in enumerate(json.loads(answer)):
            names = self._said("names", rank).splitlines() if request.get("watched") else []
            ended.append(Ended(code, self._said("out", rank), self._said("err", rank), names))
        return ended

    def _said(self, name: str, rank: int) -> str:
        return (self._scratch / f"{name}-{rank}").read_text()


def main() -> None:
    """Read requests, fork for each rank, answer with the exit codes."""
    _load()
    for line in sys.stdin:
        request = json.loads(line)
        environment = _meeting_place(request["world_size"])
        started_s = time.monotonic()
        pids: list[int] = []
        for rank in range(request["world_size"]):
            pid = os.fork()
            if pid == 0:
                os.environ |= environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                _live(request, rank)
            pids.append(pid)
        for rank, after_s in request.get("kill_after_s", {}).items():
            _kill_at(pids[int(rank)], started_s + after_s)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        print(json.dumps(codes), flush=True)


def _load() -> None:
    """Import whatever a run will; no thread may be started here, and no gradient computed."""
    import torch
    import torch.distributed.device_mesh
    import torch.distributed.fsdp
    import torch.distributed.tensor

    import apr.cli.main
    import apr.cli.pretrain
    import apr.jobs.pretrain  # noqa: F401

    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.zeros(2, 2)
    torch.optim.AdamW([parameter], fused=True).step()


def _meeting_place(world_size: int) -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "TORCHELASTIC_RUN_ID": "a test",
    }


def _kill_at(pid: int, moment_s: float) -> None:
    """Kill a child at a moment, unless it ends before; it is left to be waited for."""
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    if not poll.poll(max(0, moment_s - time.monotonic()) * 1000):
        os.kill(pid, signal.SIGKILL)
    os.close(handle)


def _live(request: dict[str, Any], rank: int) -> NoReturn:
    scratch = Path(request["scratch"])
    for name, standard in (("out", 1), ("err", 2)):
        handle = os.open(scratch / f"{name}-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, standard)
    # Ranks that wait for each other for ever would be a test that never ends.
    signal.alarm(_LIMIT_S)
    if request.get("watched"):
        fault = request["faults"].get(str(rank))
        plant(
            Path(request["watched"]),
            names=scratch / f"names-{rank}",
            fault=Fault(**fault) if fault else None,
        )
    code = 1
    try:
        code = _do(request, rank)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _do(request: dict[str, Any], rank: int) -> int:
    if "arguments" in request:
        from apr.cli.main import run

        return run([word.replace("%RANK%", str(rank)) for word in request["arguments"]])
    from apr.train.ranks import Ranks, joined

    module, _, name = request["function"].partition(":")
    function = getattr(importlib.import_module(module), name)
    world_size = request["world_size"]
    with joined(Ranks(rank, world_size, rank, world_size)) as ranks:
        print(json.dumps(function(ranks, **request["options"])))
    return 0


if __name__ == "__main__":
    main()
