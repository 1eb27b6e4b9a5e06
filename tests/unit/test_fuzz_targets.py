"""The fuzzer itself: it reaches the readers, finds what is planted in them, and reports it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fuzz import run
from tests.fuzz.execution import execute
from tests.fuzz.target import ACCEPTED, Target

from apr.container import sections
from apr.convert.gguf import cursor
from apr.convert.huggingface import rope as hf_rope
from apr.convert.huggingface import safetensors_file

TARGETS = {name: Target(name) for name in run.SHARES}
# What a seed is refused for, where it is there to be refused.
REFUSED_SEEDS = {
    "container.version-1",
    "container.footer-missing",
    "container.architecture-missing",
    "container.sharded",
}


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_read_to_their_end(name: str) -> None:
    target = TARGETS[name]
    outcomes = [target.outcome(data) for data in target.seeds]
    assert set(outcomes) - {ACCEPTED} == (REFUSED_SEEDS if name == "container" else set())
    assert outcomes.count(ACCEPTED) >= 3


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_accepted_or_refused_in_many_ways(name: str) -> None:
    target = TARGETS[name]
    outcomes: set[str | None] = set()
    for number in range(300):
        execution = execute(target, number, target.case(1, number), limit_s=5.0)
        assert execution.finding is None, execution.finding
        outcomes.add(execution.outcome)
    assert ACCEPTED in outcomes
    assert len(outcomes) >= 7


def test_a_case_is_the_same_bytes_in_another_process_and_run() -> None:
    for name, target in TARGETS.items():
        again = Target(name)
        assert [target.case(7, n) for n in range(20)] == [again.case(7, n) for n in range(20)]
        assert len({target.case(7, n) for n in range(20)}) > 10


def _nothing(*_args: Any, **_options: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "owner", "check", "instead"),
    [
        ("container", sections, "require_sound", _nothing),
        ("safetensors", safetensors_file, "_is_count", lambda _value: True),
        ("gguf", cursor.Cursor, "require", _nothing),
        ("gguf-front", cursor.Cursor, "require", _nothing),
        ("config", hf_rope, "_object", lambda raw, key, _where: raw.get(key)),
    ],
    ids=["container", "safetensors", "gguf", "gguf-front", "config"],
)
def test_a_check_that_is_taken_out_is_missed(
    name: str, owner: Any, check: str, instead: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = TARGETS[name]
    monkeypatch.setattr(owner, check, instead)
    executions = (
        execute(target, number, target.case(0, number), limit_s=5.0) for number in range(1000)
    )
    assert any(execution.finding for execution in executions)


def test_every_kind_of_finding_is_reported_and_outlived(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One crash, one hang, one sleep, one greedy and one deadly file among forty."""
    options = ["--target", "planted", "--seed", "95", "--executions", "40", "--workers", "1"]
    assert run.main([*options, "--limit-s", "0.2", "--out", str(tmp_path)]) == 5
    printed, _ = capfd.readouterr()
    assert "40 executions, 18 accepted, 1 refusal ids" in printed
    assert "17 planted.refused" in printed
    for what in (
        "IndexError at fuzz/planted_target.py",
        'Hung at fuzz/planted_target.py: while kind == "hang"',
        "memory, outcome accepted",
        "it died",
        "it is stuck",
    ):
        assert f"1 FINDING {what}" in printed
    kept = {path.read_bytes() for path in tmp_path.glob("*.bin")}
    assert kept == {b"crash", b"hang", b"asleep", b"memory", b"death"}


def test_a_finding_is_run_again_by_its_number(capfd: pytest.CaptureFixture[str]) -> None:
    target = Target("planted")
    number = next(n for n in range(99) if target.case(95, n) == b"crash")
    options = ["--target", "planted", "--seed", "95", "--case"]
    assert run.main([*options, str(number)]) == 5
    assert "a bounds check that is not there" in capfd.readouterr().out
    sound = next(n for n in range(99) if target.case(95, n) == b"sound")
    assert run.main([*options, str(sound)]) == 0


def test_a_run_of_nothing_is_no_success(tmp_path: Path) -> None:
    options = ["--target", "planted", "--executions", "40", "--seconds", "0.0000001"]
    assert run.main([*options, "--out", str(tmp_path)]) == 5
