"""Files that appear whole or not at all, and their hashes."""

import fcntl
import hashlib
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import IO, Any

from apr.errors import DamagedFile, IoFailed, PathNotFound, Refusal, UsageRefusal
from apr.staging import staging_directory, staging_file


@contextmanager
def io_refusals(where: object) -> Generator[None]:
    """Turn the operating system's errors inside the block into refusals.

    Refuses: files.not-found, files.io-failed.
    """
    try:
        yield
    except FileNotFoundError as err:
        raise PathNotFound(
            "files.not-found",
            err.filename or where,
            found="no such file or directory",
            expected="an existing path",
            fix="check the spelling of the path",
        ) from err
    except OSError as err:
        raise IoFailed(
            "files.io-failed",
            err.filename or where,
            found=err.strerror or str(err),
            expected="a readable source and a writable target with free space",
            fix="free space or correct permissions, then run the same command again",
        ) from err


def require_exists(path: Path, what: str) -> None:
    """Refuse a path that is not there, naming what it should have been.

    Refuses: files.not-found.
    """
    if not path.exists():
        raise PathNotFound(
            "files.not-found",
            path,
            found="nothing",
            expected=what,
            fix="check the spelling of the path",
        )


def require_absent(path: Path, *, overwrite: bool) -> None:
    """Refuse to write over something without consent.

    Refuses: files.exists.
    """
    if not overwrite and (path.is_symlink() or path.exists()):
        raise Refusal(
            "files.exists",
            path,
            found="something is there already",
            expected="a free path",
            fix="name another output, or pass --overwrite",
        )


def require_writable_place(path: Path) -> None:
    """Refuse a target that nothing could be written to, before work is done for it.

    Refuses: files.io-failed.
    """
    above = path.absolute().parents
    place = next((each for each in above if os.path.lexists(each)), path)
    if not place.is_dir():
        found = "a file, not a directory"
    elif not os.access(place, os.W_OK | os.X_OK):
        found = "a directory that may not be written to"
    else:
        return
    raise IoFailed(
        "files.io-failed",
        place,
        found=found,
        expected=f"a directory that {path.name} can be written to",
        fix="name another output, or correct permissions",
    )


def require_no_directory(path: Path) -> None:
    """Refuse a directory where a file is to be written, before work is done for it.

    Refuses: files.io-failed.
    """
    if path.is_dir():
        raise IoFailed(
            "files.io-failed",
            path,
            found="a directory",
            expected="the name of a file",
            fix="name a file, for example one in that directory",
        )


def require_apart(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse an output that lies inside an input, or that an input lies inside.

    Refuses: files.output-overlaps-input.
    """
    target = Path(os.path.realpath(output))
    for path in inputs:
        source = Path(os.path.realpath(path))
        if target.is_relative_to(source) or source.is_relative_to(target):
            raise UsageRefusal(
                "files.output-overlaps-input",
                output,
                found=f"it overlaps {path}, which is read",
                expected="an output apart from every input",
                fix="name another output",
            )


def require_replaceable(
    directory: Path, *, names: str, what: str, because: str = "--overwrite deletes it"
) -> None:
    """Refuse to replace a directory that holds anything but `what`.

    `names` is a regular expression for the whole name of each file that may be lost, and
    `because` says why it would be.

    Refuses: files.foreign-content.
    """
    if not directory.exists():
        return
    with io_refusals(directory):
        entries = sorted(directory.iterdir()) if directory.is_dir() else [directory]
    foreign = [entry.name for entry in entries if not re.fullmatch(names, entry.name)]
    if foreign:
        raise Refusal(
            "files.foreign-content",
            directory,
            found=f"{len(foreign)} other entries: {', '.join(foreign[:4])}",
            expected=f"nothing there but {what}, as {because}",
            fix="name another output, or move the other files away",
        )


def sha256_bytes(data: bytes | memoryview) -> str:
    """Hex sha256 of a buffer."""
    return hashlib.sha256(data).hexdigest()


def sha256_chunks(chunks: Iterable[bytes | memoryview]) -> str:
    """Hex sha256 of buffers that follow one another."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file, read in bounded memory.

    Refuses: files.not-found, files.io-failed.
    """
    with io_refusals(path), path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def sync_directory(directory: Path) -> None:
    """Make renames inside a directory durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_writer(path: Path) -> Generator[IO[bytes]]:
    """A binary file that replaces `path` only when the block ends without an exception.

    The bytes are written beside the target, fsynced, then renamed over it.

    Refuses: files.io-failed, files.not-found.
    Writes: `path`.
    """
    with io_refusals(path), staging_file(path.parent, path.name) as (staged, handle):
        # The descriptor stays open, and with it the lock, until the file has its name.
        with os.fdopen(handle, "w+b", closefd=False) as target:
            yield target
            target.flush()
            os.fsync(target.fileno())
        # mkstemp makes the file private to its owner; what apr writes follows the umask.
        umask = os.umask(0)
        os.umask(umask)
        staged.chmod(0o666 & ~umask)
        staged.replace(path)
        sync_directory(path.parent)


@contextmanager
def syncing(target: IO[bytes]) -> Generator[None]:
    """Bring a written file to the disk while the block reads it back from memory.

    The block may end first; leaving it waits for the disk.

    Raises OSError when the disk says so.
    """
    with ThreadPoolExecutor(max_workers=1) as disk:
        synced = disk.submit(os.fsync, target.fileno())
        yield
        synced.result()


@contextmanager
def to_disk() -> Generator[Callable[[Path], None]]:
    """Yield what a finished file is named to; it is brought to the disk while the block goes on.

    Leaving the block waits for the disk.

    Raises OSError when the disk says so.
    """
    disk = ThreadPoolExecutor(max_workers=1)
    synced: list[Future[None]] = []
    try:
        yield lambda path: synced.append(disk.submit(_sync_file, path))
        for each in synced:
            each.result()
    finally:
        disk.shutdown(cancel_futures=True)


def _sync_file(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_writer(path) as target:
        target.write(data)


def write_json(path: Path, value: Any) -> None:
    """Write an object as indented JSON, atomically; NaN and infinity are a bug of the caller."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, text.encode("utf-8") + b"\n")


@contextmanager
def atomic_directory(path: Path, *, overwrite: bool = False) -> Generator[Path]:
    """A directory that takes the place of `path` only when the block ends without an exception.

    Yields a staging directory beside the target. Every file in it is fsynced before the rename.
    With `overwrite` the old directory is moved away first and deleted last.

    Refuses: files.exists, files.io-failed.
    """
    require_absent(path, overwrite=overwrite)
    with io_refusals(path), staging_directory(path.parent, path.name) as staged:
        yield staged
        publish_directory(staged, path, overwrite=overwrite)


def publish_directory(staged: Path, path: Path, *, overwrite: bool) -> None:
    """Let a finished directory take the place of `path`, durably; an old one is deleted last.

    What appeared there while the work was done belongs to somebody else.

    Refuses: files.exists, files.io-failed.
    """
    require_absent(path, overwrite=overwrite)
    with io_refusals(path):
        for file in sorted(staged.rglob("*")):
            if file.is_file():
                _sync_file(file)
        sync_directory(staged)
        umask = os.umask(0)
        os.umask(umask)
        staged.chmod(0o777 & ~umask)
        retired = path.parent / f".{path.name}.{secrets.token_hex(4)}.old"
        try:
            if path.exists():
                path.replace(retired)
            staged.replace(path)
            sync_directory(path.parent)
        except BaseException:
            if retired.exists() and not path.exists():
                retired.replace(path)
            raise
        # Also those of killed processes: what takes their place is there.
        for old in path.parent.glob(f".{escape(path.name)}.{'[0-9a-f]' * 8}.old"):
            if old.is_symlink() or not old.is_dir():
                old.unlink(missing_ok=True)  # Where a link led stays as it is.
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def hold_lock(path: Path, *, id: str, what: str, shared: bool = False) -> Generator[None]:
    """Hold a lock file, created if need be; the lock dies with the process.

    Refuses: files.io-failed, and `id` while another process holds it.
    """
    with io_refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError as err:
                raise Refusal(
                    id,
                    path.parent,
                    found=f"another process is working on this {what}",
                    expected="to be the only one at work on it",
                    fix="wait for it, or stop it",
                ) from err
            yield


def read_chunks(
    path: Path, *, start: int, size_bytes: int, chunk_bytes: int
) -> Generator[memoryview]:
    """A part of a file in pieces of `chunk_bytes`; only the last may be shorter.

    Read, not mapped: pages of a map count as memory of the process, and a file that shrinks under a
    map is a crash, not an error.

    Refuses: files.not-found, files.io-failed, files.shrank.
    """
    with io_refusals(path), path.open("rb", buffering=0) as source:
        source.seek(start)
        for at in range(0, size_bytes, chunk_bytes):
            piece = bytearray(min(chunk_bytes, size_bytes - at))
            filled, view = 0, memoryview(piece)
            while filled < len(piece):
                count = source.readinto(view[filled:])
                if not count:
                    raise _shrank(path, start + size_bytes)
                filled += count
            yield view


def _shrank(path: Path, expected_bytes: int) -> DamagedFile:
    return DamagedFile(
        "files.shrank",
        path,
        found="a file that became shorter while it was read",
        expected=f"at least {expected_bytes} bytes, as when it was opened",
        fix="let nothing write to the file, then run the same command again",
    )


def read_bytes(path: Path, *, limit_bytes: int, id: str, what: str) -> bytes:
    """Read a small file whole, refusing one that is larger than such a file can be.

    Refuses: files.not-found, files.io-failed, and `id` for anything over the limit or no file.
    """
    require_exists(path, what)
    if not path.is_file():
        raise DamagedFile(id, path, found="not a regular file", expected=what, fix="name a file")
    with io_refusals(path), path.open("rb") as source:
        size_bytes = os.fstat(source.fileno()).st_size
        # Python reserves as much memory as it is asked to read.
        data = source.read(size_bytes + 1) if size_bytes <= limit_bytes else b""
    if max(size_bytes, len(data)) > limit_bytes:
        raise DamagedFile(
            id,
            path,
            found=f"more than {limit_bytes} bytes",
            expected=f"{what}, far smaller",
            fix="check that the path names the right file",
        )
    return data


def read_json(path: Path, *, limit_bytes: int, id: str, what: str) -> Any:
    """Read JSON strictly: UTF-8, no repeated key, no NaN or infinity.

    Refuses: files.not-found, files.io-failed, and `id` when the text is not strict JSON.
    """
    data = read_bytes(path, limit_bytes=limit_bytes, id=id, what=what)
    try:
        return parse_json(data)
    except ValueError as err:
        raise DamagedFile(
            id, path, found=str(err), expected=what, fix="restore the file from its source"
        ) from err


def parse_json(data: bytes | str) -> Any:
    """Parse JSON strictly; ValueError for a repeated key, NaN, infinity or bad UTF-8."""
    text = data.decode("utf-8") if isinstance(data, bytes) else data
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_float=_finite,
            # Only where it may matter: it is a call for every integer.
            parse_int=_integer if "-0" in text else None,
        )
        if _SURROGATE_ESCAPE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError as err:
        raise ValueError("nested too deeply") from err
    return value


# Python reads half of a surrogate pair as a character that has no UTF-8 form.
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} is repeated")
            seen.add(key)
    return result


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _integer(text: str) -> int | float:
    # As the Rust tools read it, to whom it is no count; to Python it would be 0.
    return -0.0 if text == "-0" else int(text)


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is no finite number")
    return number
