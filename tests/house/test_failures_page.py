"""docs/failures.md lists every test of the catalogue of failures, and only ids that there are.

What each fault was answered with is written by `make failures`; that a test was added, renamed or
taken away is seen here, without running any.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import pytest
from tests.failure_classes import CLASSES
from tests.failure_page import (
    DOCUMENT,
    GREEN,
    HEADER,
    HELD,
    SKIPPED,
    entry_of,
    faults_by_entry,
    in_words,
    is_twin,
    page,
    without_what_changes,
)
from tests.house.test_errors_documented import DOCUMENT as ERRORS
from tests.house.test_errors_documented import sections

AGAIN = "make failures writes the page again"


def listed(document: str) -> dict[str, Counter[str]]:
    """The words of the tests below each `## FNN` heading."""
    parts = re.split(r"^## (F\d\d)\n", document, flags=re.M)
    found: dict[str, Counter[str]] = {}
    for entry, text in zip(parts[1::2], parts[2::2], strict=True):
        words = Counter(re.findall(r"^\| (.+?) \| \d+(?: of \d+)? \|", text, re.M))
        for name in (GREEN, HELD, SKIPPED):
            for line in re.findall(rf"^{re.escape(name)} (.+)\.$", text, re.M):
                words.update(line.split("; "))
        found[entry] = words
    return found


def disagreements(document: str, existing: Mapping[str, Sequence[str]]) -> list[str]:
    """Tests that are listed and not there, or there and not listed, by entry."""
    on_page, problems = listed(document), list[str]()
    for entry in CLASSES:
        there, shown = Counter(existing.get(entry, ())), on_page.get(entry)
        if shown is None:
            problems.append(f"{entry} has no section")
            continue
        problems += [f"{entry} does not list: {words}" for words in there - shown]
        problems += [f"{entry} lists what is not there: {words}" for words in shown - there]
    return problems


@pytest.fixture(scope="module")
def existing() -> dict[str, list[str]]:
    return {
        entry: [test.words for test in tests]
        for entry, tests in faults_by_entry(DOCUMENT.parents[1] / "tests").items()
    }


def test_every_entry_of_the_catalogue_has_a_sentence() -> None:
    assert [*CLASSES] == [f"F{number:02}" for number in range(1, 46)]
    assert all(each.what.endswith(".") for each in CLASSES.values())


def test_an_entry_without_a_test_says_that_it_is_not_built(existing: dict[str, list[str]]) -> None:
    assert sum(map(len, existing.values())) > 400
    assert {*existing} <= {*CLASSES}
    assert [
        entry for entry in CLASSES if entry not in existing and not CLASSES[entry].missing
    ] == []


def test_the_page_lists_the_tests_that_there_are(existing: dict[str, list[str]]) -> None:
    assert disagreements(DOCUMENT.read_text(encoding="utf-8"), existing) == [], AGAIN


def test_every_id_on_the_page_is_documented() -> None:
    ids = re.findall(r"`([a-z][a-z0-9.-]+)`[^|`]*?, exit \d", DOCUMENT.read_text(encoding="utf-8"))
    assert len(set(ids)) > 100
    assert {*ids} - {*sections(ERRORS.read_text(encoding="utf-8"))} == set(), AGAIN


CASE = {"file": "tests/test_f01_x.py", "case": "", "outcome": "passed", "checks": []}
ANSWER = {"id": "a.b", "upstream_id": "X-1", "exit_code": 4, "where": "x"} | {
    "found": "/tmp/run-7/x.apr, 0.12345678 | 3"
}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("one bad thing", "another thing"), "F01 does not list: one bad thing"),
        (("it holds", "it held"), "F01 does not list: it holds"),
        (("## F07\n", ""), "F07 has no section"),
    ],
)
def test_a_test_that_was_renamed_or_left_out_is_seen(
    monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], problem: str
) -> None:
    tests = {"F01": [_fault("test_one_bad_thing"), _fault("test_it_holds")]}
    monkeypatch.setattr("tests.failure_page.faults_by_entry", lambda _directory: tests)
    document = page(
        [
            CASE | {"function": "test_one_bad_thing", "answers": [ANSWER]},
            CASE | {"function": "test_one_bad_thing", "answers": []},
            CASE | {"function": "test_it_holds", "answers": []},
        ]
    )
    row = "| one bad thing | 1 of 2 | `a.b` (X-1), exit 4 | `.../x.apr, 0.1234 \\| 3` |\n"
    assert HEADER + row + f"\n{HELD} it holds.\n" in document
    names = {"F01": ["one bad thing", "it holds"]}
    assert disagreements(document, names) == []
    assert problem in disagreements(document.replace(*change), names)


def test_a_page_is_not_made_without_every_test(monkeypatch: pytest.MonkeyPatch) -> None:
    tests = {"F01": [_fault("test_one_bad_thing")]}
    monkeypatch.setattr("tests.failure_page.faults_by_entry", lambda _directory: tests)
    with pytest.raises(SystemExit, match="1 tests did not run, first test_one_bad_thing"):
        page([])


def _fault(function: str) -> object:
    from tests.failure_page import FaultTest

    return FaultTest(str(CASE["file"]), function, in_words("", function))


def test_a_test_belongs_to_the_entry_of_its_name_before_that_of_its_file() -> None:
    assert entry_of("test_f26_x.py", "test_f27_y") == "F27"
    assert entry_of("test_f26_x.py", "test_y") == "F26"
    assert entry_of("test_x.py", "test_y") is None


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("test_the_harmless_twins", True),
        ("test_two_sound_sources_pass", True),
        ("test_a_sound_file_passes_every_gate", True),
        ("test_what_runs_away_is_refused_and_what_does_not_passes", False),
        ("test_a_run_is_passed_over", False),
    ],
)
def test_a_twin_is_known_by_its_name(name: str, is_one: bool) -> None:
    assert is_twin(name) is is_one


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("in /tmp/pytest-of-x/run-3/model.apr: 3", "in .../model.apr: 3"),
        ("sha256 0123456789abcdef0123", "sha256 HASH"),
        ("byte 123456789012345 of 3/4", "byte 123456789012345 of 3/4"),
        ("<f at 0x7f00deadbeef> of process 4711", "<f at ADDRESS> of process N"),
        ("after 12.75 s", "after N s"),
    ],
)
def test_what_changes_from_run_to_run_is_taken_out(text: str, shown: str) -> None:
    assert without_what_changes(text) == shown
