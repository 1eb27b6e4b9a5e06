"""One worker of an encoding: tasks come in as lines, receipts and progress go out.

Messages are JSON, one object per line. A worker owns no state that matters: it may be killed at
any moment, and the task it was on is then done again by another.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from apr.shards.encoding.messages import as_message
from apr.shards.encoding.plan import Task
from apr.shards.encoding.task import Advance, Encoding, run_task

_REPORT_INTERVAL_S = 0.25


def serve(encoding: Encoding, *, parts: Path, tasks: IO[bytes], messages: IO[bytes]) -> None:
    """Do tasks until there are no more.

    Raises BrokenPipeError when nobody listens any longer.
    """
    worker = _Worker(encoding, parts, messages)
    for line in tasks:
        worker.do(Task.from_json(json.loads(line)))


class _Worker:
    def __init__(self, encoding: Encoding, parts: Path, messages: IO[bytes]) -> None:
        self._encoding = encoding
        self._parts = parts
        self._messages = messages
        self._reported_s = 0.0
        self._unsent = Advance(0, 0)

    def do(self, task: Task) -> None:
        try:
            run_task(task, self._encoding, parts=self._parts, listener=self._report)
            self._send({"kind": "done", "key": task.key})
        except BrokenPipeError:
            raise
        except Exception as err:
            self._send(as_message(err))

    def _report(self, advance: Advance) -> None:
        self._unsent += advance
        now_s = time.monotonic()
        if now_s - self._reported_s < _REPORT_INTERVAL_S:
            return
        self._reported_s = now_s
        self._send({"kind": "advance", **asdict(self._unsent)})
        self._unsent = Advance(0, 0)

    def _send(self, message: dict[str, Any]) -> None:
        self._messages.write(json.dumps(message).encode("utf-8") + b"\n")
        self._messages.flush()
