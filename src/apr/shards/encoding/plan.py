"""What an encoding consists of: settings, and an ordered list of pure tasks.

A task reads spans of the input and yields documents' ids; what it yields is a function of the
settings and the bytes of its spans alone. Its key is the hash of both descriptions, so finished
work is found again by key, whoever did it, and a changed input or setting never meets it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from apr.corpus.reading.documents import CorpusFile
from apr.corpus.reading.spans import Span, cut_spans
from apr.files import sha256_bytes
from apr.shards.manifest import EosPolicy

# Small enough to keep every core busy on a small corpus and to lose little at a kill, large
# enough that starting and committing a task costs nothing beside it.
TASK_BYTES = 32 << 20
# A compressed file cannot be cut; text is some four times its size.
_EXPANSION = {None: 1, "gz": 4, "zst": 5}


class Settings(BaseModel):
    """Everything but the input that decides which ids come out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    # Raised whenever the same input would give other files; old parts are then done again.
    part_version: int = 3
    tokenizer_sha256: str
    encoder: str
    encoder_version: str
    reference_version: str
    eos_policy: EosPolicy
    eos_token_id: Annotated[int, Field(ge=0)] | None
    content_field: str
    removals_sha256: tuple[str, ...]

    @property
    def has_separators(self) -> bool:
        """Whether a part ends its documents with the separator."""
        return self.eos_policy != "none"


@dataclass(frozen=True)
class Task:
    """One unit of work: some spans, read in order."""

    key: str
    spans: tuple[Span, ...]
    owned: tuple[str, ...] = ()
    """Hashes, in hex, of texts of which a removal list keeps one copy, and this task has it."""

    @cached_property
    def weight_bytes(self) -> int:
        """About how much text its spans hold."""
        return sum(_weight_bytes(span) for span in self.spans)

    def describe(self) -> str:
        """Where in the input it lies, for a person."""
        first = self.spans[0]
        more = f" and {len(self.spans) - 1} more" if len(self.spans) > 1 else ""
        return f"{first.location} from byte {first.start}{more}"

    def as_json(self) -> dict[str, Any]:
        """The task as a worker process receives it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Task":
        """The task that another process described."""
        spans = tuple(Span(**fields) for fields in value["spans"])
        return cls(value["key"], spans, tuple(value["owned"]))


def plan_tasks(
    files: Sequence[CorpusFile],
    settings: Settings,
    *,
    task_bytes: int = TASK_BYTES,
    owned: Sequence[Iterable[bytes]] = (),
) -> list[Task]:
    """Cut the input into tasks, the same for any number of workers.

    `owned` gives, for each task, the texts whose first copy it has.
    """
    tasks: list[Task] = []
    groups = _grouped(cut_spans(files, span_bytes=task_bytes), task_bytes)
    for group, copies in zip_longest(groups, owned, fillvalue=()):
        hashes = tuple(sorted(copy.hex() for copy in copies))
        content = {
            "settings": settings.model_dump(),
            "spans": [asdict(span) for span in group],
            "owned": hashes,
        }
        key = sha256_bytes(orjson.dumps(content, option=orjson.OPT_SORT_KEYS))[:32]
        tasks.append(Task(key, group, hashes))
    # Two tasks of one key would share a part, and one would be lost.
    assert len({task.key for task in tasks}) == len(tasks)
    return tasks


def _grouped(spans: Iterable[Span], task_bytes: int) -> Iterator[tuple[Span, ...]]:
    group: list[Span] = []
    size_bytes = 0
    for span in spans:
        if group and size_bytes + _weight_bytes(span) > task_bytes:
            yield tuple(group)
            group, size_bytes = [], 0
        group.append(span)
        size_bytes += _weight_bytes(span)
    if group:
        yield tuple(group)


def _weight_bytes(span: Span) -> int:
    return (span.stop - span.start) * _EXPANSION[span.compression]
