"""What a person asks of an encoding, and the plan that follows from it and the input."""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from apr.corpus.certificate import RemovalList, read_certificate
from apr.corpus.document import Document
from apr.corpus.reading.account import Account, LeftOut
from apr.corpus.reading.documents import list_files
from apr.corpus.reading.span_reader import SpanReader
from apr.corpus.reading.tree import CorpusFile
from apr.corpus.removals import Removals
from apr.errors import Refusal
from apr.files import (
    require_absent,
    require_apart,
    require_replaceable,
    require_writable_place,
    sha256_bytes,
    sha256_file,
)
from apr.progress import Progress, Report, silent
from apr.shards.certified import find_certificate
from apr.shards.encoding.plan import Settings, Task, plan_tasks
from apr.shards.encoding.workplace import Workplace
from apr.shards.manifest import EosPolicy
from apr.shards.writer import require_shard_tokens
from apr.tokenizer.choice import Choice, choose_encoder, choose_reference
from apr.tokenizer.encoders import ReferenceEncoder
from apr.tokenizer.tokenizer import Tokenizer

EncoderName = Literal["auto", "reference"]

ENCODE_NAME = "encode.json"

# The names of everything an encoding writes; nothing else in a target may be replaced.
OUR_FILES = (
    r"shard-\d{5}\.(bin|idx)|(manifest|encode|certificate)\.json|"
    r"documents\.jsonl\.zst|quarantine\.jsonl"
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be encoded, into what, and how; the arguments of `encode_corpus`."""

    corpus: Sequence[Path | str]
    tokenizer: Tokenizer
    output: Path
    shard_tokens: int
    content_field: str
    eos_policy: EosPolicy
    exclude: Sequence[str]
    removals: Sequence[Path]
    certificate: Path | None
    """Where None, the certificate beside the corpus counts, if it is one of these documents."""
    max_quarantined: int
    overwrite: bool
    task_bytes: int
    encoder: EncoderName
    cache_directory: Path | None
    num_threads: int = 1
    progress: Report = silent
    started_s: float = field(default_factory=time.monotonic)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @cached_property
    def workplace(self) -> Workplace:
        """Where the work is done: beside the target."""
        return Workplace.beside(self.output)

    def require_possible(self) -> None:
        """Refuse what could only fail later.

        Refuses: as require_settings, files.exists, files.foreign-content, files.io-failed,
        files.output-overlaps-input, corpus.certificate-damaged, corpus.certificate-edited.
        """
        self.require_settings()
        if (certificate := self.find_certificate()) is not None:
            read_certificate(certificate)
        inputs = [*self.corpus, *self.removals]
        require_apart(self.output, [path for path in inputs if isinstance(path, Path)])
        require_absent(self.output, overwrite=self.overwrite)
        require_writable_place(self.output)
        require_replaceable(self.output, names=OUR_FILES, what="shards")

    def require_settings(self) -> None:
        """Refuse settings that allow no encoding.

        Refuses: tokenizer.eos-undeclared, shards.shard-tokens.
        """
        if self.eos_policy != "none":
            self.tokenizer.require_eos_token_id()
        require_shard_tokens(self.shard_tokens)

    def find_certificate(self) -> Path | None:
        """The certificate that was named, or the one beside the corpus."""
        return find_certificate(self.certificate, self.corpus)


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before the first document is encoded."""

    files: list[CorpusFile]
    listed: Account
    """What listing the input left out: links, special files, excluded names."""
    unopened: Sequence[LeftOut]
    """The same, one by one."""
    choice: Choice
    settings: Settings
    tasks: list[Task]
    task_bytes: int
    owned: Sequence[Collection[bytes]]
    removal_lists: Sequence[RemovalList]

    def again_with(self, choice: Choice) -> "Plan":
        """The same with another encoder."""
        settings = _with_encoder(self.settings, choice)
        return replace(
            self,
            choice=choice,
            settings=settings,
            tasks=plan_tasks(self.files, settings, task_bytes=self.task_bytes, owned=self.owned),
        )


def make_plan(request: Request) -> Plan:
    """List the input, choose and prove the encoder, cut the tasks.

    Refuses: corpus.* (what cannot be listed), corpus.empty.
    """
    unopened: list[LeftOut] = []
    listed = Account(record=unopened.append)
    files = list_files(request.corpus, drops=listed, exclude=request.exclude)
    tokenizer = request.tokenizer
    settings = Settings(
        tokenizer_sha256=sha256_bytes(tokenizer.json_bytes),
        encoder=ReferenceEncoder.name,
        encoder_version=ReferenceEncoder.version,
        reference_version=ReferenceEncoder.version,
        eos_policy=request.eos_policy,
        eos_token_id=tokenizer.eos_token_id,
        content_field=request.content_field,
        removals_sha256=tuple(sha256_file(path) for path in request.removals),
    )
    tasks = plan_tasks(files, settings, task_bytes=request.task_bytes)
    if not tasks:
        raise empty_corpus(request, files, listed)
    choice = _choose(request)
    removals = Removals.load(request.removals)
    plan = Plan(
        files=files,
        listed=listed,
        unopened=unopened,
        choice=choice,
        settings=settings,
        tasks=tasks,
        task_bytes=request.task_bytes,
        owned=_owners(tasks, removals, request),
        removal_lists=removals.lists,
    )
    return plan.again_with(choice)


def empty_corpus(request: Request, files: Sequence[CorpusFile], account: Account) -> Refusal:
    """The refusal of a corpus without a document."""
    return Refusal(
        "corpus.empty",
        request.corpus[0] if request.corpus else "the corpus",
        found=f"{len(files)} files, no document; left out: {account.describe()}",
        expected="at least one document with text",
        fix="name files or directories that hold text",
    )


def _choose(request: Request) -> Choice:
    if request.encoder == "reference":
        return choose_reference()
    # Every task compares documents of its own, so none has to be read for it here.
    return choose_encoder(
        request.tokenizer, cache_directory=request.cache_directory, progress=request.progress
    )


def _owners(tasks: Sequence[Task], removals: Removals, request: Request) -> list[set[bytes]]:
    """For each task, the texts of which one copy stays and whose first copy it has.

    Only with removal lists that keep a first copy is the input read for it: tasks that run side
    by side cannot see which of them comes first.
    """
    if not removals.copies:
        return []
    owners: list[set[bytes]] = []
    seen: set[bytes] = set()
    total_bytes = sum(task.weight_bytes for task in tasks)
    done_bytes = 0
    for task in tasks:
        owners.append(removals.find_copies(_documents(task, request)) - seen)
        seen |= owners[-1]
        done_bytes += task.weight_bytes
        request.progress(Progress("finding first copies", done_bytes, total_bytes, "bytes"))
    return owners


def _documents(task: Task, request: Request) -> Iterator[Document]:
    for span in task.spans:
        yield from SpanReader(span, content_field=request.content_field, account=Account())


def _with_encoder(settings: Settings, choice: Choice) -> Settings:
    return settings.model_copy(
        update={
            "encoder": choice.name,
            "encoder_version": choice.version,
            "reference_version": choice.reference_version,
        }
    )
