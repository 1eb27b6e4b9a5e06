"""OUTPUT.partial: where an encoding is while it is under way, beside its target.

    .lock, .merge.lock   who works here
    job.json             the settings, for worker processes
    tokenizer.json       the tokenizer, byte for byte
    removals-0.jsonl     removal lists, as they were given
    parts/               finished tasks, each in a directory named by its key
    quarantine.jsonl     rows that claimed to be documents and were none
    shards/              the result, before it takes its name

Everything here can be made again, so a kill at any moment loses only time. When the encoding is
done the directory is deleted.
"""

import shutil
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from apr.corpus.removals import Removals
from apr.errors import DamagedFile, Refusal
from apr.files import (
    hold_lock,
    io_refusals,
    parse_json,
    read_bytes,
    require_replaceable,
    write_bytes,
)
from apr.shards.encoding.plan import Settings
from apr.shards.encoding.task import Encoding
from apr.tokenizer.choice import build_encoder
from apr.tokenizer.encoders import ReferenceEncoder
from apr.tokenizer.tokenizer import Tokenizer

_NAMES = (
    r"\.lock|\.merge\.lock|\.slice-\d+-of-\d+\.lock|job\.json|tokenizer\.json|removals-\d+\.jsonl"
    r"|parts|shards|quarantine\.jsonl|\..*\.tmp"
)


_JOB_NAME = "job.json"


class Job(BaseModel):
    """job.json: what a worker process must know besides its task."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_: Literal["apr-encode-job-v1"] = "apr-encode-job-v1"
    settings: Settings
    num_removal_lists: int


class Workplace:
    """The directory of one encoding under way."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.parts = directory / "parts"
        self.staged = directory / "shards"
        self.quarantine = directory / "quarantine.jsonl"

    @classmethod
    def beside(cls, output: Path) -> "Workplace":
        """The workplace of a target.

        Refuses: files.foreign-content.
        """
        workplace = cls(output.parent / f"{output.name}.partial")
        require_replaceable(
            workplace.directory,
            names=_NAMES,
            what="an unfinished encoding",
            because="an encoding works there and deletes it at its end",
        )
        return workplace

    def hold(self, *, shared: bool = False) -> AbstractContextManager[None]:
        """Keep other encoders out; `shared` lets those in that share the work.

        Refuses: shards.busy.
        """
        lock = self.directory / ".lock"
        return hold_lock(lock, id="shards.busy", what="encoding", shared=shared)

    def hold_slice(self, index: int, count: int) -> AbstractContextManager[None]:
        """Keep others off the same slice.

        Refuses: shards.busy.
        """
        lock = self.directory / f".slice-{index}-of-{count}.lock"
        return hold_lock(lock, id="shards.busy", what="slice of the encoding")

    def hold_merge(self) -> AbstractContextManager[None]:
        """Be the one that puts the parts together.

        Refuses: shards.busy.
        """
        return hold_lock(self.directory / ".merge.lock", id="shards.busy", what="encoding")

    def require_same_job(self, settings: Settings) -> None:
        """Refuse to share work that another slice does with other settings.

        Refuses: shards.slices-differ.
        """
        path = self.directory / _JOB_NAME
        if not path.exists():
            return
        others = self._read_job().settings.model_dump()
        mine = settings.model_dump()
        differing = [name for name in mine if mine[name] != others[name]]
        if differing:
            raise Refusal(
                "shards.slices-differ",
                self.directory,
                found=", ".join(f"{name} {mine[name]}" for name in differing),
                expected=", ".join(f"{name} {others[name]}" for name in differing),
                fix="give every slice the same options and versions; to start over, delete "
                f"{self.directory}",
            )

    def prepare(self, settings: Settings, tokenizer: Tokenizer, removals: Sequence[Path]) -> None:
        """Write what worker processes read.

        Refuses: files.io-failed.
        Writes: job.json, tokenizer.json, removals-N.jsonl.
        """
        with io_refusals(self.directory):
            self.parts.mkdir(parents=True, exist_ok=True)
        for path, copy in zip(removals, self.removal_lists(len(removals)), strict=True):
            with io_refusals(path):
                write_bytes(copy, path.read_bytes())
        write_bytes(self.directory / "tokenizer.json", tokenizer.json_bytes)
        job = Job(settings=settings, num_removal_lists=len(removals))
        write_bytes(self.directory / _JOB_NAME, job.model_dump_json().encode("utf-8"))

    def load_encoding(self) -> Encoding:
        """What `prepare` wrote, loaded in another process."""
        job = self._read_job()
        tokenizer = Tokenizer.load(
            self.directory / "tokenizer.json", checked_sha256=job.settings.tokenizer_sha256
        )
        return make_encoding(job.settings, tokenizer, self.removal_lists(job.num_removal_lists))

    def _read_job(self) -> Job:
        data = read_bytes(
            self.directory / _JOB_NAME,
            limit_bytes=1 << 20,
            id="shards.job-damaged",
            what="what apr writes there",
        )
        try:
            return Job.model_validate(parse_json(data), strict=False)
        except ValueError as err:
            raise DamagedFile(
                "shards.job-damaged",
                self.directory / _JOB_NAME,
                found=str(err).partition("\n")[0],
                expected="what apr writes there",
                fix=f"delete {self.directory} and run the same command again",
            ) from err

    def removal_lists(self, count: int) -> list[Path]:
        """The copies of the removal lists."""
        return [self.directory / f"removals-{number}.jsonl" for number in range(count)]

    def clear_parts(self, keep: set[str]) -> int:
        """Delete parts of other plans, and what a kill left half-written; return how many."""
        if not self.parts.exists():
            return 0
        with io_refusals(self.parts):
            stale = [entry for entry in self.parts.iterdir() if entry.name not in keep]
            for entry in stale:
                shutil.rmtree(entry, ignore_errors=True)
        return sum(not entry.name.endswith(".tmp") for entry in stale)

    def remove_part(self, key: str) -> None:
        """Delete one part; its task is then done again."""
        shutil.rmtree(self.parts / key, ignore_errors=True)

    @contextmanager
    def forget_if_empty(self) -> Generator[None]:
        """Leave nothing behind when a refusal came before there was anything to keep."""
        try:
            yield
        except BaseException:
            if not self.quarantine.exists() and not any(self.parts.glob("*/receipt.json")):
                self.remove()
            raise

    def remove(self) -> None:
        """Delete the workplace; it has served."""
        shutil.rmtree(self.directory, ignore_errors=True)


def make_encoding(settings: Settings, tokenizer: Tokenizer, removals: Sequence[Path]) -> Encoding:
    """Build the encoders that the settings name."""
    is_reference = settings.encoder == ReferenceEncoder.name
    # First the fast one: the reference is built while it is.
    fast = None if is_reference else build_encoder(tokenizer, version=settings.encoder_version)
    return Encoding(
        settings=settings,
        tokenizer=tokenizer,
        encoder=fast or tokenizer.reference,
        reference=tokenizer.reference,
        removals=Removals.load(removals),
    )
