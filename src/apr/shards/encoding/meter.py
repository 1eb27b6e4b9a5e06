"""How far an encoding is, in bytes of text, and what it left out, for the person who waits."""

import time
from collections.abc import Sequence
from pathlib import Path

from apr.progress import Progress, Report
from apr.shards.encoding.plan import Task
from apr.shards.encoding.receipts import Receipt, merged_account, read_receipt, total
from apr.shards.encoding.task import Advance
from apr.units import format_count


class Meter:
    """Adds up advances and finished tasks; an estimate becomes exact when its task is done."""

    def __init__(
        self, tasks: Sequence[Task], finished: Sequence[Receipt], *, parts: Path, report: Report
    ) -> None:
        self._report = report
        self._parts = parts
        self._num_tasks = len(tasks) + len(finished)
        self._num_done = len(finished)
        self._done_bytes = total(finished, "text_bytes")
        self._expected_bytes = self._done_bytes + sum(task.weight_bytes for task in tasks)
        self._account = merged_account(receipt.read_account() for receipt in finished)
        self._num_tokens = 0
        self._started_s = time.monotonic()

    def __call__(self, event: Task | Advance) -> None:
        """Take in what a worker reports."""
        if isinstance(event, Task):
            self._num_done += 1
            receipt = read_receipt(self._parts / event.key)
            if receipt is not None:
                self._account.merge(receipt.read_account())
        else:
            self._done_bytes += event.text_bytes
            self._num_tokens += event.num_tokens
        # Compressed text may turn out larger than expected; it is not done before it is.
        self._show(max(self._expected_bytes, self._done_bytes + 1))

    def finish(self) -> None:
        """Show the end: what was estimated is known now."""
        self._show(self._done_bytes)

    def _show(self, total_bytes: int) -> None:
        elapsed_s = time.monotonic() - self._started_s
        detail = f"{self._num_done} of {self._num_tasks} tasks"
        if self._num_tokens and elapsed_s > 0:
            detail += f"  {format_count(self._num_tokens / elapsed_s)} tokens/s"
        if self._account.drops or self._account.quarantined:
            detail += f"  left out: {self._account.describe()}"
        self._report(Progress("encoding", self._done_bytes, total_bytes, "bytes", detail))
