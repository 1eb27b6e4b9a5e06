"""Outputs that may replace something, and inputs that may be too large."""

import os
import tracemalloc
from pathlib import Path

import pytest

from apr.errors import DamagedFile, Refusal, UsageRefusal
from apr.files import atomic_directory, read_bytes, require_apart, require_replaceable


@pytest.mark.parametrize("output", ["in", "in/deep/out", ".", "link", "link/out"])
def test_an_output_that_overlaps_an_input_is_refused(tmp_path: Path, output: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(UsageRefusal) as refused:
        require_apart(tmp_path / output, [tmp_path / "other", tmp_path / "in"])
    assert refused.value.id == "files.output-overlaps-input"


@pytest.mark.parametrize("output", ["out", "in-more", "in.out"])
def test_an_output_beside_an_input_is_fine(tmp_path: Path, output: str) -> None:
    (tmp_path / "in").mkdir()
    require_apart(tmp_path / output, [tmp_path / "in"])


def test_only_a_directory_of_known_files_may_be_replaced(tmp_path: Path) -> None:
    names = r"a\.txt|b-\d\.txt"
    require_replaceable(tmp_path / "nothing", names=names, what="texts")
    for name in ("a.txt", "b-7.txt"):
        (tmp_path / name).touch()
    require_replaceable(tmp_path, names=names, what="texts")
    (tmp_path / "a.txt.bak").touch()
    for path in (tmp_path, tmp_path / "a.txt.bak"):
        with pytest.raises(Refusal) as refused:
            require_replaceable(path, names=names, what="texts")
        assert refused.value.id == "files.foreign-content"
        assert "a.txt.bak" in refused.value.found


def test_reading_takes_no_more_memory_than_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"small")
    tracemalloc.start()
    data = read_bytes(path, limit_bytes=1 << 30, id="planted.fault", what="a file")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data == b"small"
    assert peak_bytes < 1 << 20


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    os.truncate(path, 1 << 40)
    tracemalloc.start()
    with pytest.raises(DamagedFile) as refused:
        read_bytes(path, limit_bytes=1 << 30, id="planted.fault", what="a file")
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused.value.id == "planted.fault"
    assert peak_bytes < 1 << 20


def test_a_link_that_is_replaced_leaves_nothing_and_takes_nothing_with_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    (tmp_path / "name").symlink_to("elsewhere")
    with atomic_directory(tmp_path / "name", overwrite=True) as staged:
        (staged / "new").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "name"]
    assert (tmp_path / "name" / "new").exists()
    assert (tmp_path / "elsewhere" / "kept").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appeared_while_a_directory_was_made_is_not_lost(
    tmp_path: Path, overwrite: bool
) -> None:
    def make() -> None:
        with atomic_directory(tmp_path / "name", overwrite=overwrite) as staged:
            (staged / "ours").touch()
            (tmp_path / "name").mkdir()
            (tmp_path / "name" / "theirs").touch()

    if overwrite:
        make()
    else:
        with pytest.raises(Refusal) as refused:
            make()
        assert refused.value.id == "files.exists"
    assert [path.name for path in tmp_path.iterdir()] == ["name"]
    kept = "ours" if overwrite else "theirs"
    assert [path.name for path in (tmp_path / "name").iterdir()] == [kept]
