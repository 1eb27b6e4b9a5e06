"""What a dead process left is deleted by whoever writes the same name next, and nothing else is."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from apr import staging
from apr.files import atomic_directory, write_bytes
from apr.staging import staging_directory, staging_file

HOLD = """
import sys
from pathlib import Path
from apr import staging
make = getattr(staging, sys.argv[1])
with make(Path(sys.argv[2]), "name") as staged:
    staged = staged if isinstance(staged, Path) else staged[0]
    if staged.is_dir():
        (staged / "large").write_text("x")
    print(staged.name, flush=True)
    sys.stdin.read()
"""


class Holder:
    """Another process that is at work on `name`."""

    def __init__(self, kind: str, parent: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, kind, str(parent)],
            env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.name = self.process.stdout.readline().strip()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


def names(directory: Path) -> set[str]:
    return set(os.listdir(directory))


KINDS = ["staging_directory", "staging_file"]


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_a_dead_process_left_is_deleted(tmp_path: Path, kind: str) -> None:
    living, dead = Holder(kind, tmp_path), Holder(kind, tmp_path)
    assert names(tmp_path) == {living.name, dead.name}
    write_bytes(tmp_path / "name", b"x")
    assert names(tmp_path) == {"name", living.name, dead.name}
    dead.kill()
    write_bytes(tmp_path / "name", b"y")
    assert names(tmp_path) == {"name", living.name}
    living.kill()
    with atomic_directory(tmp_path / "name", overwrite=True):
        pass
    assert names(tmp_path) == {"name"}


@pytest.mark.parametrize(
    "other",
    [
        ".name.x.abcdefgh.tmp",
        ".names.abcdefgh.tmp",
        ".name.abcdefghi.tmp",
        ".name.abcdefgh.tmp.gz",
        "name.abcdefgh.tmp",
        ".nameXabcdefgh.tmp",
    ],
)
def test_other_names_are_left_alone(tmp_path: Path, other: str) -> None:
    (tmp_path / other).mkdir()
    write_bytes(tmp_path / "name", b"x")
    assert names(tmp_path) == {"name", other}


def test_a_link_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    (tmp_path / ".name.abcdefgh.tmp").symlink_to("kept")
    write_bytes(tmp_path / "name", b"x")
    assert names(tmp_path) == {"name", "kept", ".name.abcdefgh.tmp"}
    assert names(tmp_path / "kept") == {"file"}


@pytest.mark.parametrize("kind", [staging_directory, staging_file])
def test_without_locks_nothing_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: object
) -> None:
    (tmp_path / ".name.abcdefgh.tmp").mkdir()

    def no_locks(_descriptor: int, _how: int) -> None:
        raise OSError("no locks on this file system")

    monkeypatch.setattr(staging.fcntl, "flock", no_locks)
    assert callable(kind)
    with kind(tmp_path, "name"):
        assert len(names(tmp_path)) == 2
    assert names(tmp_path) == {".name.abcdefgh.tmp"}


def test_what_was_collected_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between making and locking, another process takes it for a leftover."""
    lock, num_calls = staging.fcntl.flock, 0

    def be_late(descriptor: int, how: int) -> None:
        nonlocal num_calls
        num_calls += 1
        if num_calls == 1:
            (made,) = tmp_path.iterdir()
            made.rmdir()
        lock(descriptor, how)

    monkeypatch.setattr(staging.fcntl, "flock", be_late)
    with staging_directory(tmp_path, "name") as staged:
        assert staged.is_dir()
    assert num_calls == 2
    assert names(tmp_path) == set()


def test_old_directories_go_once_there_is_a_new_one(tmp_path: Path) -> None:
    (tmp_path / ".name.0123abcd.old").mkdir()
    with atomic_directory(tmp_path / "name"):
        assert (tmp_path / ".name.0123abcd.old").exists()
    assert names(tmp_path) == {"name"}


@pytest.mark.parametrize("begin", [staging_directory, staging_file])
def test_what_was_made_above_a_name_goes_with_a_failure(
    tmp_path: Path, begin: Callable[..., AbstractContextManager[object]]
) -> None:
    (tmp_path / "there").mkdir()
    parent = tmp_path / "there" / "new" / "newer"

    def stopped(meanwhile: Callable[[], object]) -> None:
        with begin(parent, "x"):
            meanwhile()
            raise KeyboardInterrupt

    seen: list[bool] = []
    with pytest.raises(KeyboardInterrupt):
        stopped(lambda: seen.append(parent.is_dir()))
    assert seen == [True]
    assert [*tmp_path.rglob("*")] == [tmp_path / "there"]
    # What somebody else put there meanwhile stays, and so does what is finished.
    with pytest.raises(KeyboardInterrupt):
        stopped(lambda: (parent.parent / "theirs").write_text("kept"))
    assert [path.name for path in parent.parent.iterdir()] == ["theirs"]
    with begin(parent, "x"):
        pass
    assert parent.is_dir()
