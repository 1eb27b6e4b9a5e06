"""One worker of an encoding: tasks come in as lines, receipts and progress go out.

Messages are JSON, one object per line. A worker owns no state that matters: it may be killed at
any moment, and the task it was on is then done again by another.
"""

import json
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from apr.errors import Refusal
from apr.shards.encoding.plan import Task
from apr.shards.encoding.proof import EncoderDiffers
from apr.shards.encoding.task import Advance, Encoding, run_task
from apr.shards.encoding.workplace import Workplace

_REPORT_INTERVAL_S = 0.25


def serve(work_directory: Path, tasks: IO[bytes], messages: IO[bytes]) -> None:
    """Do tasks until there are no more.

    Raises BrokenPipeError when nobody listens any longer.
    """
    worker = _Worker(Workplace(work_directory), messages)
    for line in tasks:
        worker.do(Task.from_json(json.loads(line)))


class _Worker:
    def __init__(self, workplace: Workplace, messages: IO[bytes]) -> None:
        self._workplace = workplace
        self._messages = messages
        self._encoding: Encoding | None = None
        self._reported_s = 0.0
        self._unsent = Advance(0, 0)

    def do(self, task: Task) -> None:
        try:
            if self._encoding is None:
                self._encoding = self._workplace.load_encoding()
            run_task(task, self._encoding, parts=self._workplace.parts, listener=self._report)
            self._send({"kind": "done", "key": task.key})
        except EncoderDiffers as err:
            self._send({"kind": "differs", **err.as_dict()})
        except Refusal as err:
            self._send({"kind": "refused", "type": type(err).__name__, **err.as_dict()})
        except BrokenPipeError:
            raise
        except Exception:
            self._send({"kind": "failed", "traceback": traceback.format_exc()})

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
