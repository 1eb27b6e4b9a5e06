"""A tokenizer.json is checked once in full, and again whenever anything is not as it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tokenizer_files import EOS, changed, nothing, set_in, without, write

from apr.errors import DamagedFile, Refusal
from apr.files import sha256_bytes
from apr.tokenizer.checks import Checked, Subject, keep_checked, read_checked
from apr.tokenizer.kept import keep
from apr.tokenizer.tokenizer import Tokenizer

# What a load takes from here shows that the file was not checked again.
PLANTED = "0" * 64
FIELDS = sorted(set(Subject.model_fields) - {"json_sha256"})


def renumbered(value: dict[str, Any]) -> None:
    """A fault that only the library's reading of the file shows."""
    value["added_tokens"].reverse()


def bad_merge(value: dict[str, Any]) -> None:
    value["model"]["merges"][1] = "he m"


def bad(directory: Path, change: Callable[[dict[str, Any]], object] = renumbered) -> Path:
    return write(directory, change, control=(EOS, "<|pad|>"))


def sha256_of(directory: Path) -> str:
    return sha256_bytes((directory / "tokenizer.json").read_bytes())


def require_refused(directory: Path, cache: Path) -> None:
    with pytest.raises(DamagedFile) as caught:
        Tokenizer.load(directory, cache_directory=cache)
    assert caught.value.id == "tokenizer.damaged"


def test_a_file_is_checked_once(tmp_path: Path) -> None:
    directory, cache = write(tmp_path / "tok"), tmp_path / "made" / "for" / "it"
    first = Tokenizer.load(directory, eos_token=EOS, cache_directory=cache)
    assert read_checked(cache, sha256_of(directory)) == Checked(fingerprint=first.fingerprint)
    again = Tokenizer.load(directory, eos_token=EOS, cache_directory=cache)
    assert again.fingerprint == Tokenizer.load(directory).fingerprint
    assert again.definition == first.definition
    assert again.encode("hello").tolist() == first.encode("hello").tolist()
    keep_checked(cache, sha256_of(directory), fingerprint=PLANTED)
    assert Tokenizer.load(directory, cache_directory=cache).fingerprint == PLANTED


def test_without_a_cache_nothing_is_kept_or_believed(tmp_path: Path) -> None:
    directory = bad(tmp_path / "tok")
    keep_checked(tmp_path / "cache", sha256_of(directory), fingerprint=PLANTED)
    Tokenizer.load(directory, cache_directory=tmp_path / "cache")
    with pytest.raises(DamagedFile):
        Tokenizer.load(directory)
    keep_checked(None, sha256_of(directory), fingerprint=PLANTED)
    assert read_checked(None, sha256_of(directory)) is None


@pytest.mark.parametrize("change", [renumbered, bad_merge, without("model")])
def test_what_is_refused_is_not_kept(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    directory, cache = bad(tmp_path / "tok", change), tmp_path / "cache"
    for _ in range(2):
        require_refused(directory, cache)
    assert not cache.exists()


def test_one_changed_byte_is_checked_in_full(tmp_path: Path) -> None:
    directory, cache = write(tmp_path / "tok"), tmp_path / "cache"
    Tokenizer.load(directory, cache_directory=cache)
    [kept] = cache.iterdir()
    file = directory / "tokenizer.json"
    sound = file.read_bytes()
    damaged = sound.replace(b'"he l"', b'"he m"')
    assert len(damaged) == len(sound)
    assert damaged != sound
    file.write_bytes(damaged)
    require_refused(directory, cache)
    assert [*cache.iterdir()] == [kept]
    file.write_bytes(sound + b"\n")
    Tokenizer.load(directory, cache_directory=cache)
    assert len([*cache.iterdir()]) == 2


def test_an_entry_of_another_file_is_not_believed(tmp_path: Path) -> None:
    good, directory, cache = write(tmp_path / "good"), bad(tmp_path / "bad"), tmp_path / "cache"
    Tokenizer.load(good, cache_directory=cache)
    [of_good] = cache.iterdir()
    keep_checked(cache, sha256_of(directory), fingerprint=PLANTED)
    [of_bad] = set(cache.iterdir()) - {of_good}
    of_bad.write_bytes(of_good.read_bytes())
    require_refused(directory, cache)
    # With the right hash written into it by hand it is still not what was kept.
    value = json.loads(of_good.read_bytes())
    value["subject"]["json_sha256"] = sha256_of(directory)
    of_bad.write_text(json.dumps(value))
    require_refused(directory, cache)


@pytest.mark.parametrize(
    "change",
    [
        set_in("found", "fingerprint", to="1" * 64),
        set_in("found", "fingerprint", to="short"),
        set_in("found", "fingerprint", to=None),
        set_in("found", "more", to=1),
        set_in("subject", "checks_version", to=0),
        set_in("sha256", to="0" * 64),
        without("sha256"),
        without("found"),
        without("subject", "library_version"),
    ],
)
def test_an_edited_entry_is_not_believed(tmp_path: Path, change: Callable[[Any], object]) -> None:
    directory, cache = bad(tmp_path / "tok"), tmp_path / "cache"
    keep_checked(cache, sha256_of(directory), fingerprint=PLANTED)
    Tokenizer.load(directory, cache_directory=cache)
    [path] = cache.iterdir()
    value = json.loads(path.read_bytes())
    change(value)
    path.write_text(json.dumps(value))
    require_refused(directory, cache)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-40], lambda data: b"[]"])
def test_a_damaged_entry_is_not_believed(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    directory, cache = bad(tmp_path / "tok"), tmp_path / "cache"
    keep_checked(cache, sha256_of(directory), fingerprint=PLANTED)
    [path] = cache.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    require_refused(directory, cache)


@pytest.mark.parametrize("field", FIELDS)
def test_checks_by_another_version_do_not_count(tmp_path: Path, field: str) -> None:
    directory, cache = bad(tmp_path / "tok"), tmp_path / "cache"
    subject = Subject(json_sha256=sha256_of(directory))
    other: dict[str, Any] = {field: 0 if field == "checks_version" else "0.0.1"}
    keep(cache, subject.model_copy(update=other), Checked(fingerprint=PLANTED))
    require_refused(directory, cache)
    # Nor does such an entry in the place of one of this version.
    [path] = cache.iterdir()
    keep_checked(cache, sha256_of(directory), fingerprint=PLANTED)
    [ours] = set(cache.iterdir()) - {path}
    ours.write_bytes(path.read_bytes())
    require_refused(directory, cache)


def test_files_beside_it_are_compared_every_time(tmp_path: Path) -> None:
    directory, cache = write(tmp_path / "tok"), tmp_path / "cache"
    Tokenizer.load(directory, cache_directory=cache)
    (directory / "vocab.json").write_text('{"a": 0}')
    with pytest.raises(Refusal) as caught:
        Tokenizer.load(directory, cache_directory=cache)
    assert caught.value.id == "tokenizer.sibling-disagrees"


def test_a_manifest_is_compared_every_time(tmp_path: Path) -> None:
    saved, cache = tmp_path / "tok", tmp_path / "cache"
    Tokenizer.load(write(tmp_path / "from"), eos_token=EOS).save(saved)
    for _ in range(2):
        assert Tokenizer.load(saved, cache_directory=cache).eos_token == EOS
    other = changed(nothing, words=("he", "hel", "hell"))
    (saved / "vocab.json").unlink()
    (saved / "merges.txt").unlink()
    (saved / "tokenizer.json").write_bytes(other)
    for _ in range(2):
        with pytest.raises(DamagedFile) as caught:
            Tokenizer.load(saved, cache_directory=cache)
        assert caught.value.id == "tokenizer.manifest-mismatch"


def test_the_separator_is_looked_up_every_time(tmp_path: Path) -> None:
    directory, cache = write(tmp_path / "tok"), tmp_path / "cache"
    Tokenizer.load(directory, eos_token=EOS, cache_directory=cache)
    with pytest.raises(Refusal) as caught:
        Tokenizer.load(directory, eos_token="he", cache_directory=cache)
    assert caught.value.id == "tokenizer.eos-unknown"


def test_a_cache_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    directory = write(tmp_path / "tok")
    (tmp_path / "file").write_text("")
    cache = tmp_path / "file" / "below"
    for _ in range(2):
        assert Tokenizer.load(directory, cache_directory=cache).vocab_size == 260
    require_refused(bad(tmp_path / "bad"), cache)
