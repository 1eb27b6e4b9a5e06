"""Verdicts kept between runs: trusted only whole, and only for what they are about."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tokenizer_files import set_in, without

from apr.tokenizer.verdicts import Subject, Verdict, keep_verdict, read_verdict

SUBJECT = Subject(fingerprint="f", reference_version="1", encoder="fast", encoder_version="2")
EQUAL = Verdict(verdict="equal", reason=None, num_strings=20, num_code_points=9, detail=None)
DIFFERS = Verdict(verdict="differs", reason="r", num_strings=1, num_code_points=0, detail="d:1")


def kept_file(directory: Path, verdict: Verdict = EQUAL) -> Path:
    keep_verdict(directory, SUBJECT, verdict)
    [path] = directory.iterdir()
    return path


@pytest.mark.parametrize("verdict", [EQUAL, DIFFERS])
def test_what_is_kept_is_read(tmp_path: Path, verdict: Verdict) -> None:
    directory = tmp_path / "made" / "for" / "it"
    assert read_verdict(directory, SUBJECT) is None
    keep_verdict(directory, SUBJECT, verdict)
    assert read_verdict(directory, SUBJECT) == verdict


def test_a_later_verdict_takes_the_place(tmp_path: Path) -> None:
    keep_verdict(tmp_path, SUBJECT, EQUAL)
    keep_verdict(tmp_path, SUBJECT, DIFFERS)
    assert read_verdict(tmp_path, SUBJECT) == DIFFERS


@pytest.mark.parametrize("field", sorted(set(Subject.model_fields) - {"texts_version", "seed"}))
def test_another_subject_has_no_verdict(tmp_path: Path, field: str) -> None:
    path = kept_file(tmp_path)
    other = SUBJECT.model_copy(update={field: "other"})
    assert read_verdict(tmp_path, other) is None
    keep_verdict(tmp_path, other, DIFFERS)
    [others] = set(tmp_path.iterdir()) - {path}
    others.write_bytes(path.read_bytes())
    assert read_verdict(tmp_path, other) is None
    assert read_verdict(tmp_path, SUBJECT) == EQUAL


def test_other_texts_have_no_verdict(tmp_path: Path) -> None:
    kept_file(tmp_path)
    for field in ("texts_version", "seed"):
        number = getattr(SUBJECT, field) + 1
        assert read_verdict(tmp_path, SUBJECT.model_copy(update={field: number})) is None


@pytest.mark.parametrize(
    "change",
    [
        set_in("found", "verdict", to="equal"),
        set_in("found", "reason", to="q"),
        set_in("found", "num_strings", to=2),
        set_in("found", "num_strings", to="1"),
        set_in("subject", "fingerprint", to="g"),
        set_in("sha256", to=""),
        set_in("sha256", to=None),
        set_in("new", to=1),
        without("sha256"),
        without("found"),
        without("found", "detail"),
    ],
)
def test_an_edited_file_is_as_good_as_none(tmp_path: Path, change: Callable[[Any], object]) -> None:
    path = kept_file(tmp_path, DIFFERS)
    value = json.loads(path.read_bytes())
    path.write_text(json.dumps(value))
    assert read_verdict(tmp_path, SUBJECT) == DIFFERS
    change(value)
    path.write_text(json.dumps(value))
    assert read_verdict(tmp_path, SUBJECT) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-40],
        lambda data: b"[]",
        lambda data: b"null",
        lambda data: data.replace(b"{", b"[", 1),
        lambda data: b'{"a":' * 20_000,
        lambda data: data.replace(b'"subject"', b'"subject": {}, "subject"'),
        lambda data: data.replace(b"20", b"NaN", 1),
        lambda data: b" " * (1 << 17) + data,
        lambda data: data.replace(b'"f"', b'"\xff"'),
        lambda data: bytes(len(data)),
    ],
)
def test_a_damaged_file_is_as_good_as_none(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = kept_file(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert read_verdict(tmp_path, SUBJECT) is None
    keep_verdict(tmp_path, SUBJECT, EQUAL)
    assert read_verdict(tmp_path, SUBJECT) == EQUAL


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_as_good_as_none(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """A pipe that nobody writes to must not be waited for."""
    path = kept_file(tmp_path)
    path.unlink()
    make(path)
    assert read_verdict(tmp_path, SUBJECT) is None
    keep_verdict(tmp_path, SUBJECT, EQUAL)


def test_a_directory_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    directory = tmp_path / "file" / "below"
    keep_verdict(directory, SUBJECT, EQUAL)
    assert read_verdict(directory, SUBJECT) is None
    keep_verdict(None, SUBJECT, EQUAL)
    assert read_verdict(None, SUBJECT) is None
