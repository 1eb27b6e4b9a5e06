"""Names that something has while it is written, before it takes its own: .NAME.XXXXXXXX.tmp.

A process that is killed leaves them behind, as large as a corpus. Each is locked while it is in
use, and the lock dies with the process; so whoever next writes the same name deletes those that
nobody holds, and only those. Where locks are not to be had, nothing is deleted.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

_SUFFIX = ".tmp"


@contextmanager
def staging_directory(parent: Path, name: str) -> Generator[Path]:
    """An empty directory in `parent` in which `name` is made; what is left of it goes at the end.

    Where `parent` is missing it is made, and goes too when the block fails.

    Writes: the directory, and deletes those that dead processes left for the same name.
    """
    with _made(parent):
        _collect(parent, name)
        staged, lock = _held(lambda: _empty_directory(parent, name), os.O_RDONLY)
        try:
            yield staged
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            os.close(lock)


@contextmanager
def staging_file(parent: Path, name: str) -> Generator[tuple[Path, int]]:
    """As `staging_directory`, for a file; also a descriptor that reads and writes it."""
    with _made(parent):
        _collect(parent, name)
        staged, descriptor = _held(lambda: _empty_file(parent, name), os.O_RDWR)
        try:
            yield staged, descriptor
        finally:
            with suppress(FileNotFoundError):
                staged.unlink()
            os.close(descriptor)


@contextmanager
def _made(directory: Path) -> Generator[None]:
    """Make what is missing of `directory`; when the block fails it goes again, if it is empty."""
    absolute = directory.absolute()
    missing = [each for each in (absolute, *absolute.parents) if not each.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for made in missing:
            with suppress(OSError):
                made.rmdir()
        raise


def _empty_directory(parent: Path, name: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=_SUFFIX, dir=parent))


def _empty_file(parent: Path, name: str) -> Path:
    descriptor, staged = tempfile.mkstemp(prefix=f".{name}.", suffix=_SUFFIX, dir=parent)
    os.close(descriptor)
    return Path(staged)


def _held(make: Callable[[], Path], mode: int) -> tuple[Path, int]:
    """What `make` makes, and a descriptor whose lock says that it is in use."""
    while True:
        staged = make()
        # Before it was locked it looked like something that a dead process left.
        with suppress(FileNotFoundError):
            descriptor = os.open(staged, mode | os.O_NOFOLLOW)
            if _try_lock(descriptor) is not False and _is_at(staged, descriptor):
                return staged, descriptor
            os.close(descriptor)


def _try_lock(descriptor: int) -> bool | None:
    """Whether the lock was taken; None where the file system has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether a name still leads to what was opened under it."""
    with suppress(FileNotFoundError):
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    return False


def _collect(parent: Path, name: str) -> None:
    # The eight characters are tempfile's.
    ours = re.compile(rf"\.{re.escape(name)}\.[a-z0-9_]{{8}}{re.escape(_SUFFIX)}")
    with os.scandir(parent) as entries:
        leftovers = [Path(entry.path) for entry in entries if ours.fullmatch(entry.name)]
    for leftover in leftovers:
        with suppress(OSError):
            _delete_unheld(leftover)


def _delete_unheld(leftover: Path) -> None:
    kind = leftover.lstat().st_mode
    if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)):
        return
    descriptor = os.open(leftover, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if _try_lock(descriptor) is not True or not _is_at(leftover, descriptor):
            return
        if stat.S_ISDIR(kind):
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink()
    finally:
        os.close(descriptor)
