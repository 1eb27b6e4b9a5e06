"""What `apr corpus dedup` and `decontaminate` write: a removal list and a certificate beside it."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from apr.corpus.certificate import (
    CERTIFICATE_NAME,
    Certificate,
    Check,
    DocumentSet,
    RemovalList,
    is_certificate,
    read_certificate,
)
from apr.corpus.removals import is_removal_list
from apr.errors import Refusal, UsageRefusal
from apr.files import (
    io_refusals,
    require_absent,
    require_apart,
    require_writable_place,
    sync_directory,
)
from apr.staging import staging_directory

_CHECK_ORDER = ("exact", "near", "ngram")


@dataclass(frozen=True)
class OutputFiles:
    """Where a removal list and its certificate go."""

    removals: Path
    certificate: Path

    @classmethod
    def below(cls, output: Path) -> "OutputFiles":
        """The list is `output` itself if that is a .jsonl file, else both lie in a directory."""
        if output.suffix == ".jsonl":
            return cls(output, output.with_suffix(".certificate.json"))
        return cls(output / "removals.jsonl", output / CERTIFICATE_NAME)

    @contextmanager
    def staged(self, *, overwrite: bool) -> Generator["OutputFiles"]:
        """The two files in a scratch directory; what is there at the end takes its place.

        A certificate of before, to which the new list does not belong, is deleted.

        Refuses: files.exists, for what appeared there meanwhile, and files.io-failed.
        Writes: both files, the list first.
        """
        parent = self.removals.parent.absolute()
        # Nothing but the scratch directory is made before there is something to keep.
        existing = next(each for each in (parent, *parent.parents) if each.is_dir())
        with io_refusals(parent), staging_directory(existing, self.removals.name) as scratch:
            staged = OutputFiles(scratch / "removals.jsonl", scratch / CERTIFICATE_NAME)
            yield staged
            for path in (self.removals, self.certificate):
                require_absent(path, overwrite=overwrite)
            parent.mkdir(parents=True, exist_ok=True)
            self.certificate.unlink(missing_ok=True)
            staged.removals.replace(self.removals)
            if staged.certificate.exists():
                staged.certificate.replace(self.certificate)
            sync_directory(parent)

    def require_writable(self, inputs: Sequence[Path | str], *, overwrite: bool) -> None:
        """Refuse outputs that would replace something, or that are among what is read.

        A name that ends in .jsonl may be that of a corpus, so what is replaced must be known for
        a list or a certificate.

        Refuses: files.exists, files.foreign-content, files.io-failed,
        files.output-overlaps-input.
        """
        for path in (self.removals, self.certificate):
            require_apart(path, [each for each in inputs if isinstance(each, Path)])
            require_absent(path, overwrite=overwrite)
            require_writable_place(path)
        for path, is_ours, what in (
            (self.removals, is_removal_list, "a removal list"),
            (self.certificate, is_certificate, "a certificate"),
        ):
            if path.exists() and not is_ours(path):
                raise Refusal(
                    "files.foreign-content",
                    path,
                    found=f"something that is not {what}",
                    expected=f"nothing there but {what}, as --overwrite deletes it",
                    fix="name another output, or move the other file away",
                )


def require_two_sides(train: Sequence[Path | str], held_out: Sequence[Path | str]) -> None:
    """Refuse a held-out part that is, holds, or lies inside what is trained on.

    Refuses: corpus.sides-overlap.
    """
    for one in train:
        for other in held_out:
            if _overlap(one, other):
                raise UsageRefusal(
                    "corpus.sides-overlap",
                    other,
                    found=f"it is or overlaps {one}, which is trained on",
                    expected="held-out documents apart from the training documents",
                    fix="split the corpus first: apr corpus split",
                )


@dataclass(frozen=True)
class Previous:
    """A certificate that is carried on."""

    certificate: Certificate
    sha256: str

    @classmethod
    def read(cls, path: Path) -> "Previous":
        """Read it.

        Refuses: as read_certificate.
        """
        return cls(*read_certificate(path))

    def require_fits(
        self, train: Sequence[DocumentSet], held_out: DocumentSet | None, where: object
    ) -> None:
        """Refuse other documents than it was made for; `train` are the stages they went through.

        Removing training documents never makes two parts overlap, so what was checked before a
        removal still holds after it.

        Refuses: corpus.certificate-mismatch.
        """
        certified = self.certificate
        fits = certified.train.documents_sha256 in [each.documents_sha256 for each in train]
        if fits and certified.held_out is not None and held_out is not None:
            fits = certified.held_out.documents_sha256 == held_out.documents_sha256
        if fits:
            return
        raise Refusal(
            "corpus.certificate-mismatch",
            where,
            found=f"training documents {train[0].documents_sha256[:12]}, held-out "
            f"{held_out.documents_sha256[:12] if held_out else 'none'}",
            expected=f"{certified.train.documents_sha256[:12]} and "
            f"{certified.held_out.documents_sha256[:12] if certified.held_out else 'none'}, as "
            "the certificate says",
            fix="name the documents and removal lists that it was made for, or leave it out",
        )


def certify(
    previous: Previous | None,
    *,
    train: DocumentSet,
    held_out: DocumentSet | None,
    checks: Sequence[Check],
    removals: Sequence[RemovalList],
) -> Certificate:
    """A certificate of new checks, and of the earlier ones that were not made again."""
    made = {check.kind for check in checks}
    old = previous.certificate if previous else None
    carried = [check for check in old.checks if check.kind not in made] if old else []
    lists: list[RemovalList] = []
    for each in [*(old.removals if old else []), *removals]:
        lists += [each] if each not in lists else []
    return Certificate(
        train=train,
        held_out=held_out if held_out is not None or old is None else old.held_out,
        split=old.split if old else None,
        checks=sorted([*carried, *checks], key=lambda check: _CHECK_ORDER.index(check.kind)),
        removals=lists,
        refines=previous.sha256 if previous else None,
    )


def nothing_left(num_documents: int, counts: Mapping[str, int]) -> Refusal:
    """The refusal of removals that take every training document away; `counts` by reason."""
    reasons = [f"{count} {reason}" for reason, count in sorted(counts.items())]
    others = num_documents - sum(counts.values())
    reasons += [f"{others} by the lists of --remove"] if others else []
    return Refusal(
        "corpus.nothing-left",
        "the training documents",
        found=f"all {num_documents} would be removed: {', '.join(reasons)}",
        expected="at least one that stays",
        fix=f"check that {' and '.join(_compared_with(counts))} are not the training documents",
    )


def _compared_with(counts: Mapping[str, int]) -> list[str]:
    """What could have removed so much."""
    evaluation = ["the evaluation sets (--against)"] if "contaminated" in counts else []
    held_out = any("held_out" in reason for reason in counts)
    return evaluation + (["the held-out documents"] if held_out or not evaluation else [])


def _overlap(one: Path | str, other: Path | str) -> bool:
    if isinstance(one, Path) and isinstance(other, Path):
        first, second = one.resolve(), other.resolve()
        return first.is_relative_to(second) or second.is_relative_to(first)
    first_text, second_text = str(one).rstrip("/") + "/", str(other).rstrip("/") + "/"
    return first_text.startswith(second_text) or second_text.startswith(first_text)
