"""A corpus in two parts, so that a model is judged on text it never saw.

The rule decides by groups. Text that is on the held-out side of one group may also lie in a
training group: the copy is left out of training and counted, so that no text is on both sides.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from apr.corpus.certificate import (
    CERTIFICATE_NAME,
    Certificate,
    DocumentSet,
    DocumentTally,
    Draw,
    ExactCheck,
    write_certificate,
)
from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import Document
from apr.corpus.reading.listed import ListedCorpus
from apr.corpus.similarity import normal_form
from apr.corpus.similarity.normal_form import normal_hash
from apr.corpus.splitting.parts import PART_NAMES, PartWriter
from apr.corpus.splitting.split_rule import GroupedCorpus, SplitRule
from apr.errors import DamagedFile, Refusal
from apr.files import (
    atomic_directory,
    require_absent,
    require_apart,
    require_replaceable,
    require_writable_place,
    write_json,
)
from apr.progress import Report, silent

SPLIT_NAME = "split.json"
TRAIN_NAME = "train"
HELD_OUT_NAME = "held-out"

_OUR_FILES = rf"{TRAIN_NAME}|{HELD_OUT_NAME}|{SPLIT_NAME}|{CERTIFICATE_NAME}"
_GROUPS_SHOWN = 100

Read = Callable[[str], Iterator[Document]]
"""Reads all documents again, each with its group; takes what the reading is for."""


@dataclass(frozen=True)
class Split:
    """What a split gave."""

    rule: SplitRule
    train: DocumentSet
    held_out: DocumentSet
    held_out_groups: tuple[str, ...]
    """The first hundred by name; none where each text is its own group."""
    certificate_sha256: str
    account: Account

    def as_dict(self) -> dict[str, Any]:
        """The record in split.json."""
        return {
            "schema": "apr-split-v1",
            "group": self.rule.group,
            "fraction": self.rule.fraction,
            "seed": self.rule.seed,
            TRAIN_NAME: self.train.model_dump(),
            HELD_OUT_NAME: self.held_out.model_dump(),
            "held_out_groups": list(self.held_out_groups),
            "certificate_sha256": self.certificate_sha256,
            "account": self.account.as_dict(),
        }


def split_corpus(
    paths: Sequence[Path | str],
    *,
    output: Path,
    rule: SplitRule,
    group_field: str | None = None,
    content_field: str = "content",
    exclude: Sequence[str] = (),
    max_quarantined: int | None = 0,
    overwrite: bool = False,
    progress: Report = silent,
) -> Split:
    """Split files and trees of text into the training and the held-out part of `output`.

    `group_field` is the field of a row that names its group; by default it is named as the kind
    of group, `repo` or `package`.

    Refuses: corpus.split-impossible, corpus.group-unknown, corpus.input-changed,
    corpus.read-back, files.exists, files.foreign-content, files.output-overlaps-input, and as
    apr.corpus.reading.documents.read_documents.
    Writes: train/, held-out/, split.json, certificate.json.
    """
    require_apart(output, [path for path in paths if isinstance(path, Path)])
    require_absent(output, overwrite=overwrite)
    require_writable_place(output)
    require_replaceable(output, names=_OUR_FILES, what="a split")
    for side in (TRAIN_NAME, HELD_OUT_NAME):
        require_replaceable(output / side, names=PART_NAMES, what="a split")
    corpus = ListedCorpus(
        paths,
        content_field=content_field,
        group_field=None if rule.group == "file" else group_field or rule.group,
        exclude=exclude,
        max_quarantined=max_quarantined,
    )
    grouped = GroupedCorpus(corpus, rule.group)
    with atomic_directory(output, overwrite=overwrite) as staged:
        return write_split(
            partial(grouped.documents, progress=progress),
            staged,
            rule=rule,
            account=corpus.account,
            progress=progress,
        )


def write_split(
    read: Read, directory: Path, *, rule: SplitRule, account: Account, progress: Report = silent
) -> Split:
    """Write both sides of some documents below an empty directory, and read them back.

    Refuses: corpus.split-impossible, corpus.input-changed, corpus.read-back.
    Writes: train/, held-out/, split.json, certificate.json.
    """
    held_out = _write_held_out(read, directory / HELD_OUT_NAME, rule)
    train, num_copies = _write_train(read, directory / TRAIN_NAME, rule, held_out, account)
    if not (train.num_documents and held_out.tally.num_documents):
        _refuse_one_sided(rule, train.num_documents, held_out.tally.num_documents, num_copies)
    certificate = Certificate(
        train=train.as_set(),
        held_out=held_out.tally.as_set(),
        split=Draw(group=rule.group, fraction=rule.fraction, seed=rule.seed),
        checks=[ExactCheck(rule=normal_form.RULE, num_removed=num_copies)],
        removals=[],
        refines=None,
    )
    _require_as_written(directory, certificate, progress)
    split = Split(
        rule=rule,
        train=certificate.train,
        held_out=held_out.tally.as_set(),
        held_out_groups=tuple(sorted(held_out.groups)[:_GROUPS_SHOWN]),
        certificate_sha256=write_certificate(directory / CERTIFICATE_NAME, certificate),
        account=account,
    )
    write_json(directory / SPLIT_NAME, split.as_dict())
    return split


@dataclass
class _HeldOut:
    """What the training part must not repeat."""

    tally: DocumentTally = field(default_factory=DocumentTally)
    normal_hashes: set[bytes] = field(default_factory=set[bytes])
    groups: set[str] = field(default_factory=set[str])
    num_read: int = 0
    """Documents of both sides."""


def _write_held_out(read: Read, directory: Path, rule: SplitRule) -> _HeldOut:
    held_out = _HeldOut()
    with PartWriter(directory) as writer:
        for document in read("finding the held-out documents"):
            held_out.num_read += 1
            if rule.side_of(document.group) != "held-out":
                continue
            writer.append(document)
            held_out.tally.add(document.text)
            held_out.normal_hashes.add(normal_hash(document.text))
            if rule.group != "file":
                held_out.groups.add(document.group)
    return held_out


def _write_train(
    read: Read, directory: Path, rule: SplitRule, held_out: _HeldOut, account: Account
) -> tuple[DocumentTally, int]:
    train = DocumentTally()
    num_copies = num_held_out = 0
    with PartWriter(directory) as writer:
        for document in read("writing the training documents"):
            if rule.side_of(document.group) == "held-out":
                num_held_out += 1
            # Where each text is its own group, its copies went with it.
            elif rule.group != "file" and normal_hash(document.text) in held_out.normal_hashes:
                num_copies += 1
                account.withdraw("duplicate_of_held_out", document.source, document.row)
            else:
                writer.append(document)
                train.add(document.text)
    num_read = (train.num_documents + num_copies + num_held_out, num_held_out)
    _require_same_input((held_out.num_read, held_out.tally.num_documents), num_read)
    return train, num_copies


def _require_same_input(first: tuple[int, int], second: tuple[int, int]) -> None:
    if first == second:
        return
    raise DamagedFile(
        "corpus.input-changed",
        "the documents that are split",
        found=f"{second[0]} documents, {second[1]} of them held out, at the second reading",
        expected=f"{first[0]} and {first[1]}, as at the first",
        fix="let the files be written to their end, then split them",
    )


def _refuse_one_sided(
    rule: SplitRule, num_train: int, num_held_out: int, num_copies: int
) -> NoReturn:
    copies = f"; {num_copies} training documents repeat held-out text" if num_copies else ""
    finer = {"repo": "package or file", "package": "file", "file": None}[rule.group]
    by_group = f"group by {finer}" if finer else "use a larger corpus"
    raise Refusal(
        "corpus.split-impossible",
        "the split into training and held-out documents",
        found=f"{num_train} training and {num_held_out} held-out documents when a share of "
        f"{rule.fraction:g} is held out by {rule.group}{copies}",
        expected="at least one document on each side",
        fix=f"{by_group}, or choose another --val-fraction or --seed",
    )


def _require_as_written(directory: Path, certificate: Certificate, progress: Report) -> None:
    """Read both sides back: the very sets, and no text of one on the other."""
    held_out_hashes: set[bytes] = set()
    for name, expected in (HELD_OUT_NAME, certificate.held_out), (TRAIN_NAME, certificate.train):
        tally, num_shared = DocumentTally(), 0
        for document in ListedCorpus([directory / name]).documents(f"checking {name}", progress):
            tally.add(document.text)
            if name == HELD_OUT_NAME:
                held_out_hashes.add(normal_hash(document.text))
            else:
                num_shared += normal_hash(document.text) in held_out_hashes
        if tally.as_set() != expected or num_shared:
            raise DamagedFile(
                "corpus.read-back",
                name,
                found=f"{tally.as_set()}; {num_shared} texts on both sides",
                expected=f"{expected}; none",
                fix="the disk gave back other bytes than it was given; check it, or report this",
            )
