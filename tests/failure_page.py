"""docs/failures.md: every planted fault and the refusal it got, made of the notes of a test run.

    python -m pytest tests --failures build/failures.json
    python -m tests.failure_page build/failures.json

is what `make failures` does. `tests.failure_catalogue` takes the notes; which tests there are is
read from their sources, so that a test that did not run is not passed over.
"""

import ast
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.failure_classes import CLASSES

TESTS = Path(__file__).resolve().parent
DOCUMENT = TESTS.parent / "docs" / "failures.md"
HEADER = "| planted fault | cases | refused by | it said |\n| --- | --- | --- | --- |\n"
GREEN, HELD = "Stays green:", "Holds, or is seen by comparing:"
SKIPPED, MISSING = "Not run where this page was made:", "Not built yet:"
_SAID_LENGTH, _SAYS_LITTLE = 100, 20
_NAME = re.compile(r"test_f([0-4]\d)_")
_TWIN = re.compile(r"_(twins?|pass|passes)(_|$)")
_REFUSES = re.compile(r"_(refused|fails?)(_|$)")
# What changes from run to run, and what stands for it.
_CHANGING = (
    (re.compile(r"(?<![\w.])(?:/[\w.+=@~-]+)+/([\w.+=@~-]+)"), r".../\1"),
    (re.compile(r"\b(?=[0-9a-f]*[a-f])[0-9a-f]{12,}\b"), "HASH"),
    (re.compile(r"\b0x[0-9a-f]{6,}\b"), "ADDRESS"),
    (re.compile(r"\b(pid|process) \d+\b"), r"\1 N"),
    (re.compile(r"\b\d+\.\d+ ?(s|seconds)\b"), r"N \1"),
    (re.compile(r"(\d+\.\d{4})\d+"), r"\1"),
)

INTRODUCTION = """\
# Failures

Every way to fail silently that apr knows of, and what happened when it was planted. An entry names
the failure, then the faults that tests plant through files, flags, signals or an explicit seam, and
what each was answered with: the id of the refusal or gate, the Rust tools' id for the same
condition where there is one, the exit code, and what the first case found. [errors.md](errors.md)
says of every id what to do. *Cases* are the variants of a fault; "5 of 8" means that the others met
no refusal, which the test wants as well. Below stand the tests without a refusal: harmless twins
that must pass, and what holds, or goes wrong visibly, without anything to refuse.

`make failures` plants every fault again and writes this page; a test compares the page with the
tests that there are. Paths, hashes and times are left out, and long answers are cut.
"""


@dataclass(frozen=True)
class FaultTest:
    """A test function of the catalogue, by the words that it is listed under."""

    file: str
    function: str
    words: str


def entry_of(file_name: str, function: str) -> str | None:
    """The entry of the catalogue that a test belongs to: by its own name, else by its file's."""
    named = _NAME.match(function) or _NAME.match(file_name)
    return f"F{named[1]}" if named else None


def faults_by_entry(directory: Path) -> dict[str, list[FaultTest]]:
    """Every test of the catalogue below a directory, read from the sources."""
    found: dict[str, list[FaultTest]] = defaultdict(list)
    for path in sorted(directory.rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            entry = entry_of(path.name, node.name)
            if entry is not None:
                file = path.relative_to(directory.parent).as_posix()
                found[entry].append(FaultTest(file, node.name, in_words(file, node.name)))
    return dict(found)


def in_words(file: str, function: str) -> str:
    """A test's name with spaces; of a harmless twin also of what, as there are many."""
    words = re.sub(r"^test_(f\d\d_)?", "", function).replace("_", " ")
    if not words.startswith("the harmless twin"):
        return words
    subject = re.sub(r"^test_(f\d\d_)?", "", Path(file).stem).replace("_", " ")
    return f"{words}, of {subject}"


def page(cases: list[dict[str, Any]]) -> str:
    """The whole document."""
    by_test: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for case in cases:
        by_test[case["file"], case["function"]].append(case)
    listed = faults_by_entry(TESTS)
    unrun = [test for tests in listed.values() for test in tests if not _ran(by_test, test)]
    if unrun:
        raise SystemExit(f"not written: {len(unrun)} tests did not run, first {unrun[0].function}")
    sections = [_section(entry, listed.get(entry, []), by_test) for entry in CLASSES]
    return "\n".join([INTRODUCTION, *sections])


def _ran(by_test: dict[tuple[str, str], list[dict[str, Any]]], test: FaultTest) -> bool:
    return (test.file, test.function) in by_test


def _section(
    entry: str,
    tests: list[FaultTest],
    by_test: dict[tuple[str, str], list[dict[str, Any]]],
) -> str:
    rows = list[str]()
    lines: dict[str, list[str]] = {GREEN: [], HELD: [], SKIPPED: []}
    for test in tests:
        cases = by_test[test.file, test.function]
        run = [case for case in cases if case["outcome"] != "skipped"]
        refused = [case for case in run if case.get("answers") or case.get("checks")]
        if not run:
            lines[SKIPPED].append(test.words)
        elif is_twin(test.function):
            lines[GREEN].append(test.words)
        elif not refused:
            lines[HELD].append(test.words)
        else:
            rows.append(_row(test.words, refused, num_cases=len(run)))
    parts = [f"## {entry}\n\n{CLASSES[entry].what}\n"]
    if rows:
        parts.append(HEADER + "\n".join(rows) + "\n")
    parts += [f"{name} {'; '.join(words)}.\n" for name, words in lines.items() if words]
    if CLASSES[entry].missing:
        parts.append(f"{MISSING} {CLASSES[entry].missing}\n")
    return "\n".join(parts)


def is_twin(function: str) -> bool:
    """Whether a test is, by its name, of something that must pass."""
    return bool(_TWIN.search(function)) and not _REFUSES.search(function)


def _row(words: str, refused: list[dict[str, Any]], *, num_cases: int) -> str:
    answers = {
        (answer["id"], answer["upstream_id"], answer["exit_code"]): answer
        for case in reversed(refused)
        for answer in reversed(case["answers"])
    }
    names = [_refusal(*key) for key in reversed(answers)]
    names += dict.fromkeys(check for case in refused for check in case["checks"] if not names)
    said = next((_said(case["answers"][0]) for case in refused if case["answers"]), "")
    count = str(num_cases) if len(refused) == num_cases else f"{len(refused)} of {num_cases}"
    return f"| {words} | {count} | {'<br>'.join(names)} | {_code(said)} |"


def _said(answer: dict[str, Any]) -> str:
    """What was found, and where it was, if that alone says little."""
    where, found = answer["where"], answer["found"]
    return f"{where}: {found}" if where and len(found) < _SAYS_LITTLE else found


def _refusal(id: str, upstream_id: str | None, exit_code: int) -> str:
    upstream = f" ({upstream_id})" if upstream_id else ""
    return f"`{id}`{upstream}, exit {exit_code}"


def without_what_changes(text: str) -> str:
    """A text in which paths, hashes, addresses and times of one run do not stand."""
    for pattern, replacement in _CHANGING:
        text = pattern.sub(replacement, text)
    return text


def _code(text: str) -> str:
    text = " ".join(without_what_changes(text).split())
    if len(text) > _SAID_LENGTH:
        text = text[:_SAID_LENGTH].rsplit(" ", 1)[0] + " ..."
    return f"`{_cell(text)}`" if text else "-"


def _cell(text: str) -> str:
    """A text that a cell of a table can hold, whatever characters a fault has put into it."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown.replace("`", "'").replace("|", "\\|")


def failed(cases: Iterable[dict[str, Any]]) -> list[str]:
    """The tests of which a case failed."""
    return sorted({case["function"] for case in cases if case["outcome"] == "failed"})


def main(notes: Path) -> None:
    """Write the page, unless a test failed."""
    cases = json.loads(notes.read_text(encoding="utf-8"))
    red = failed(cases)
    if red:
        raise SystemExit(f"not written: {', '.join(red)} failed")
    DOCUMENT.write_text(page(cases), encoding="utf-8")
    print(f"{DOCUMENT.relative_to(TESTS.parent)}: {len(cases)} cases")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
