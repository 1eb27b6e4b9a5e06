"""Several ranks of one run, started at once: children of a process that has everything loaded.

Each is a real process that meets the others over the network of this machine, as torchrun starts
them; only the seconds that loading torch takes are spared. `WarmRanks` is the side that asks.
"""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

_ROOT = Path(__file__).resolve().parents[2]
_LIMIT_S = 90


@dataclass(frozen=True)
class Ended:
    """How one rank ended; `answer` is what a called function returned."""

    returncode: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        return json.loads(self.out)


class WarmRanks:
    """Runs commands and functions on several ranks; a context manager."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *sys.path]),
            "OMP_NUM_THREADS": "1",
            "NO_COLOR": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.ranks.warm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=_ROOT,
            text=True,
        )

    def __enter__(self) -> "WarmRanks":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(self, arguments: list[str], *, world_size: int) -> list[Ended]:
        """An `apr` command on every rank, as torchrun would start it; %RANK% is its number."""
        return self._ask(world_size, {"arguments": arguments})

    def call(self, function: str, *, world_size: int, **options: Any) -> list[Ended]:
        """`module:function(ranks, **options)` on every rank that has joined the others."""
        return self._ask(world_size, {"function": function, "options": options})

    def _ask(self, world_size: int, job: dict[str, Any]) -> list[Ended]:
        assert self._process.stdin
        assert self._process.stdout
        request = job | {"world_size": world_size, "scratch": str(self._scratch)}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the warm process has died"
        return [
            Ended(code, *(self._said(name, rank) for name in ("out", "err")))
            for rank, code in enumerate(json.loads(answer))
        ]

    def _said(self, name: str, rank: int) -> str:
        return (self._scratch / f"{name}-{rank}").read_text()


def main() -> None:
    """Read requests, fork for each rank, answer with the exit codes."""
    _load()
    for line in sys.stdin:
        request = json.loads(line)
        environment = _meeting_place(request["world_size"])
        pids: list[int] = []
        for rank in range(request["world_size"]):
            pid = os.fork()
            if pid == 0:
                os.environ |= environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                _live(request, rank)
            pids.append(pid)
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


def _live(request: dict[str, Any], rank: int) -> NoReturn:
    for name, standard in (("out", 1), ("err", 2)):
        path = Path(request["scratch"]) / f"{name}-{rank}"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(handle, standard)
    # Ranks that wait for each other for ever would be a test that never ends.
    signal.alarm(_LIMIT_S)
    code = 1
    try:
        code = _do(request, rank)
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
