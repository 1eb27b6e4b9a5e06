"""What apr raises when it will not go on, and the exit code each ending has.

A refusal is not a crash: it says what was found, what was expected and what to do now. Its
subject is in the id (`container.truncated`), its kind is the class, and the class owns the
exit code:

    AprError                1  a bug in apr
    +- Refusal              5  a check said no
    |  +- UsageRefusal      2  the request itself makes no sense
    |  +- PathNotFound      3  the path is not there
    |  +- DamagedFile       4  the file is not what it claims to be
    |  +- IoFailed          7  reading or writing failed
    |  +- FeatureMissing    9  needs something that is not installed
    |  +- NetworkFailed    10  the network failed; the same request may succeed later
    +- Interrupted        130  stopped by a signal; the last checkpoint is good
"""

from typing import Any, ClassVar

EXIT_DONE = 0
EXIT_BUG = 1


class AprError(Exception):
    """Anything apr raises on purpose."""

    exit_code: ClassVar[int] = EXIT_BUG


class Refusal(AprError):
    """A check said no; nothing was written.

    `id` is a stable slug, never reused; `upstream_id` is the Rust tools' id for the same
    condition, where there is one.
    """

    exit_code: ClassVar[int] = 5

    def __init__(
        self,
        id: str,
        where: object,
        *,
        found: object,
        expected: object,
        fix: str,
        upstream_id: str | None = None,
    ) -> None:
        super().__init__(id, str(where), str(found), str(expected), fix, upstream_id)
        self.id = id
        self.where = str(where)
        self.found = str(found)
        self.expected = str(expected)
        self.fix = fix
        self.upstream_id = upstream_id

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only arguments do not survive BaseException's own pickling, and a refusal
        # raised in a worker process must arrive whole.
        return _rebuild, (type(self), *self.args)

    def __str__(self) -> str:
        upstream = f" ({self.upstream_id})" if self.upstream_id else ""
        return (
            f"refused[{self.id}]{upstream} {self.where}\n"
            f"  found:    {self.found}\n"
            f"  expected: {self.expected}\n"
            f"  fix:      {self.fix}"
        )

    def as_dict(self) -> dict[str, str | None]:
        """The refusal as the object that `--json` prints under `refused`."""
        return {
            "id": self.id,
            "upstream_id": self.upstream_id,
            "where": self.where,
            "found": self.found,
            "expected": self.expected,
            "fix": self.fix,
        }


def _rebuild(
    kind: type[Refusal],
    id: str,
    where: str,
    found: str,
    expected: str,
    fix: str,
    upstream_id: str | None,
) -> Refusal:
    return kind(id, where, found=found, expected=expected, fix=fix, upstream_id=upstream_id)


class UsageRefusal(Refusal):
    """The request contradicts itself or names something that does not exist."""

    exit_code: ClassVar[int] = 2


class PathNotFound(Refusal):
    """A path that was asked for is not there."""

    exit_code: ClassVar[int] = 3


class DamagedFile(Refusal):
    """The file is not what it claims to be."""

    exit_code: ClassVar[int] = 4


class IoFailed(Refusal):
    """The operating system could not read or write."""

    exit_code: ClassVar[int] = 7


class FeatureMissing(Refusal):
    """The request needs a package or a device that is not here."""

    exit_code: ClassVar[int] = 9


class NetworkFailed(Refusal):
    """Something far away could not be reached, or went away; trying again may help."""

    exit_code: ClassVar[int] = 10


class Interrupted(AprError):
    """Stopped by a signal after saving; `resume_command` continues the same run."""

    exit_code: ClassVar[int] = 130

    def __init__(self, message: str, *, resume_command: str | None = None) -> None:
        super().__init__(message, resume_command)
        self.message = message
        self.resume_command = resume_command

    def __str__(self) -> str:
        return self.message
