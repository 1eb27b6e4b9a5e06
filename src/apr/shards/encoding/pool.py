"""Worker processes on this machine, supervised: one that dies or stops answering is noticed.

Workers are forked from an interpreter that has loaded the encoding (`nursery.py`), and share
nothing with this process but two pipes each. One core each: the encoder's own threads are
switched off, because processes share the work better.
"""

import json
import os
import selectors
import signal
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field

from apr.errors import Refusal
from apr.shards.encoding.messages import as_exception
from apr.shards.encoding.nursery import Child, Nursery, NurseryDied, NurseryFailed
from apr.shards.encoding.plan import Task
from apr.shards.encoding.task import Advance
from apr.shards.encoding.work import Work

# No batch takes minutes; a worker that says nothing for so long will not come back.
STALL_S = 300.0
# A second death on the same task is the task's fault, not the machine's.
_MAX_DEATHS = 2


@dataclass
class _Worker:
    child: Child
    task: Task | None = None
    heard_s: float = field(default_factory=time.monotonic)
    buffer: bytes = b""


def run_in_processes(
    work: Work, *, num_workers: int, stall_s: float = STALL_S, nursery: Nursery | None = None
) -> None:
    """Do every task in worker processes; tell the listener of each.

    A `nursery` that was started before saves the time it has had. It is ended here. Raises
    EncoderDiffers as `run_task` does.

    Refuses: shards.worker-died, shards.worker-stalled, and what a task refuses.
    """
    pool = _Pool(work, num_workers=num_workers, stall_s=stall_s, nursery=nursery or Nursery())
    try:
        pool.run()
    finally:
        pool.stop()


class _Pool:
    def __init__(self, work: Work, *, num_workers: int, stall_s: float, nursery: Nursery) -> None:
        self._waiting = deque(work.tasks)
        self._directory = work.workplace.directory
        self._listener = work.listener
        self._num_workers = num_workers
        self._stall_s = stall_s
        self._nursery = nursery
        self._is_loaded = False
        self._deaths = Counter[str]()
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []

    def run(self) -> None:
        while self._waiting or any(worker.task for worker in self._workers):
            try:
                self._step()
            except NurseryDied as died:
                self._lose_nursery(died.status)
            except NurseryFailed as failed:
                raise as_exception(failed.message) from None
            except TimeoutError as err:
                raise _stalled(str(self._directory), self._stall_s, self._stall_s) from err

    def stop(self) -> None:
        self._end_workers()
        self._nursery.stop()
        self._selector.close()

    def _step(self) -> None:
        if not self._is_loaded:
            self._load()
        while self._waiting and len(self._workers) < self._num_workers:
            self._assign(self._start_worker())
        for key, _ in self._selector.select(timeout=min(1.0, self._stall_s / 4)):
            self._listen(key.data)
        self._require_awake()

    def _load(self) -> None:
        self._nursery.start()
        self._nursery.load(self._directory, patience_s=self._stall_s)
        self._is_loaded = True

    def _start_worker(self) -> _Worker:
        worker = _Worker(self._nursery.fork())
        self._workers.append(worker)
        self._selector.register(worker.child.messages, selectors.EVENT_READ, worker)
        return worker

    def _assign(self, worker: _Worker) -> None:
        worker.task = self._waiting.popleft() if self._waiting else None
        worker.heard_s = time.monotonic()
        with suppress(BrokenPipeError):  # a dead one; the end of its messages says so next
            if worker.task is None:
                worker.child.tasks.close()
            else:
                line = json.dumps(worker.task.as_json()).encode("utf-8") + b"\n"
                worker.child.tasks.write(line)
                worker.child.tasks.flush()

    def _listen(self, worker: _Worker) -> None:
        data = os.read(worker.child.messages.fileno(), 1 << 16)
        if not data:
            self._bury(worker)
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
                raise as_exception(message)

    def _bury(self, worker: _Worker) -> None:
        """Take a dead worker's task away from it and let another try."""
        if worker.task is None:
            self._forget(worker)
            return
        status = self._nursery.wait_for(worker.child)
        self._forget(worker)
        self._deaths[worker.task.key] += 1
        if self._deaths[worker.task.key] == _MAX_DEATHS:
            raise _died(worker.task.describe(), status)
        self._waiting.appendleft(worker.task)

    def _lose_nursery(self, status: int) -> None:
        """Take all tasks back from its workers: nobody can say any more how they end."""
        self._is_loaded = False
        self._waiting.extendleft(worker.task for worker in self._workers if worker.task)
        self._end_workers()
        where = str(self._directory)
        self._deaths[where] += 1
        if self._deaths[where] == _MAX_DEATHS:
            raise _died(where, status)

    def _end_workers(self) -> None:
        for worker in self._workers:
            worker.child.kill()
        for worker in list(self._workers):
            self._forget(worker)

    def _forget(self, worker: _Worker) -> None:
        self._selector.unregister(worker.child.messages)
        self._workers.remove(worker)
        worker.child.close()

    def _require_awake(self) -> None:
        now_s = time.monotonic()
        for worker in self._workers:
            if worker.task is not None and now_s - worker.heard_s > self._stall_s:
                raise _stalled(worker.task.describe(), now_s - worker.heard_s, self._stall_s)


def _died(where: str, status: int) -> Refusal:
    how = f"exit code {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
    return Refusal(
        "shards.worker-died",
        where,
        found=f"a worker that ended with {how}, {_MAX_DEATHS} times",
        expected="a worker that finishes its task",
        fix="give it more memory or fewer workers (--num-workers), then run the same command "
        "again; finished tasks are kept",
    )


def _stalled(where: str, silent_s: float, stall_s: float) -> Refusal:
    return Refusal(
        "shards.worker-stalled",
        where,
        found=f"a worker that said nothing for {silent_s:.0f} s",
        expected=f"a sign of life at least every {stall_s:.0f} s",
        fix="run the same command again; finished tasks are kept",
    )
