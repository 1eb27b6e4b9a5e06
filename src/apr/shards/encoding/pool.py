"""Worker processes on this machine, supervised: one that dies or stops answering is noticed.

Each worker is a fresh interpreter that shares nothing with its parent but a pipe. One core each:
the encoder's own threads are switched off, because processes share the work better.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import apr
from apr import errors
from apr.errors import AprError, Refusal
from apr.shards.encoding.plan import Task
from apr.shards.encoding.proof import EncoderDiffers
from apr.shards.encoding.task import Advance
from apr.shards.encoding.work import Work

# No batch takes minutes; a worker that says nothing for so long will not come back.
STALL_S = 300.0
# A second death on the same task is the task's fault, not the machine's.
_MAX_ATTEMPTS = 2
# -P and the appended path: apr is imported from where it was, never from the current directory.
_PROGRAM = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from apr.cli.encode_worker import main; main(sys.argv[2])"
)


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    task: Task | None = None
    heard_s: float = field(default_factory=time.monotonic)
    buffer: bytes = b""

    @property
    def output(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def end(self) -> int:
        """Wait for a process that was killed or has died; return its status."""
        status = self.process.wait()
        self.output.close()
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        return status


def run_in_processes(work: Work, *, num_workers: int, stall_s: float = STALL_S) -> None:
    """Do every task in worker processes; tell the listener of each.

    Raises EncoderDiffers as `run_task` does.

    Refuses: shards.worker-died, shards.worker-stalled, and what a task refuses.
    """
    pool = _Pool(work, stall_s=stall_s)
    try:
        pool.start(min(num_workers, len(work.tasks)))
        pool.run()
    finally:
        pool.stop()


class _Pool:
    def __init__(self, work: Work, *, stall_s: float) -> None:
        self._waiting = deque(work.tasks)
        self._directory = work.workplace.directory
        self._listener = work.listener
        self._attempts: dict[str, int] = {}
        self._stall_s = stall_s
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []

    def start(self, num_workers: int) -> None:
        # All begin to load before the first is waited for.
        for worker in [self._start_worker() for _ in range(num_workers)]:
            self._assign(worker)

    def _start_worker(self) -> _Worker:
        source = str(Path(apr.__file__).parents[1])
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _PROGRAM, source, str(self._directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        worker = _Worker(process)
        self._workers.append(worker)
        self._selector.register(worker.output, selectors.EVENT_READ, worker)
        return worker

    def run(self) -> None:
        while any(worker.task for worker in self._workers):
            for key, _ in self._selector.select(timeout=min(1.0, self._stall_s / 4)):
                self._listen(key.data)
            self._require_awake()

    def stop(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.end()
        self._selector.close()

    def _assign(self, worker: _Worker) -> None:
        worker.task = self._waiting.popleft() if self._waiting else None
        worker.heard_s = time.monotonic()
        if worker.task is None:
            return
        self._attempts[worker.task.key] = self._attempts.get(worker.task.key, 0) + 1
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):  # a dead one; the end of its output says so next
            worker.process.stdin.write(json.dumps(worker.task.as_json()).encode("utf-8") + b"\n")
            worker.process.stdin.flush()

    def _listen(self, worker: _Worker) -> None:
        data = os.read(worker.output.fileno(), 1 << 16)
        if not data:
            self._replace(worker)
            return
        worker.heard_s = time.monotonic()
        *lines, worker.buffer = (worker.buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["kind"] == "advance":
                self._listener(Advance(message["text_bytes"], message["num_tokens"]))
            elif message["kind"] == "done":
                assert worker.task is not None
                self._listener(worker.task)
                self._assign(worker)
            else:
                raise _exception(message)

    def _replace(self, worker: _Worker) -> None:
        """Take a dead worker's task away from it and let another try."""
        self._selector.unregister(worker.output)
        self._workers.remove(worker)
        status = worker.end()
        task = worker.task
        if task is None:
            return
        if self._attempts[task.key] >= _MAX_ATTEMPTS:
            raise _died(task, status)
        self._waiting.appendleft(task)
        self._assign(self._start_worker())

    def _require_awake(self) -> None:
        now_s = time.monotonic()
        for worker in self._workers:
            if worker.task is not None and now_s - worker.heard_s > self._stall_s:
                raise Refusal(
                    "shards.worker-stalled",
                    worker.task.describe(),
                    found=f"a worker that said nothing for {now_s - worker.heard_s:.0f} s",
                    expected=f"a sign of life at least every {self._stall_s:.0f} s",
                    fix="run the same command again; finished tasks are kept",
                )


def _died(task: Task, status: int) -> Refusal:
    how = f"exit code {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
    return Refusal(
        "shards.worker-died",
        task.describe(),
        found=f"a worker that ended with {how}, {_MAX_ATTEMPTS} times",
        expected="a worker that finishes its task",
        fix="give it more memory or fewer workers (--num-workers), then run the same command "
        "again; finished tasks are kept",
    )


def _exception(message: dict[str, Any]) -> Exception:
    """The exception that ended a task in a worker, as if it had been raised here."""
    kind = message.pop("kind")
    if kind == "differs":
        return EncoderDiffers(**message)
    if kind == "failed":
        return AprError(f"a worker failed:\n{message['traceback']}")
    refusal = getattr(errors, message.pop("type"))
    fields = {name: message[name] for name in ("found", "expected", "fix", "upstream_id")}
    return refusal(message["id"], message["where"], **fields)
