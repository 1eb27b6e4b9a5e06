"""The cache directory: where the person or the system says, and nowhere without a home."""

from pathlib import Path

import pytest

from apr.cli import cache

PART = Path("apr") / "encoder-proofs"


def test_the_person_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.encoder_proofs() == tmp_path / PART


@pytest.mark.parametrize("named", ["", "relative/path"])
def test_otherwise_it_is_in_the_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.encoder_proofs() == tmp_path / ".cache" / PART


def test_without_a_home_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache.encoder_proofs() is None
