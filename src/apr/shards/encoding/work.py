"""Tasks that are still to be done, and where."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from apr.shards.encoding.plan import Task
from apr.shards.encoding.task import Advance, Encoding
from apr.shards.encoding.workplace import Workplace


@dataclass(frozen=True)
class Work:
    """What an executor is given."""

    tasks: Sequence[Task]
    workplace: Workplace
    load_encoding: Callable[[], Encoding]
    """The encoders and the tokenizer, for a worker in this process; others use `workplace`."""
    listener: Callable[[Task | Advance], None]
    """Told of every finished task, and of advances in between."""
