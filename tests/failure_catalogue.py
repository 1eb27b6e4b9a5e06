"""What every planted fault was answered with: notes taken while the tests of the catalogue run.

`pytest --failures NOTES.json` runs the tests that belong to an entry of the catalogue of failure
classes, and no others. The refusals that are made while a test is called are noted, the verdicts
that would block, and what a command that it started printed. Nothing that runs is changed: the
constructors note the finished object, as does the end of a process what it printed.
`tests.failure_page` makes docs/failures.md of the notes.
"""

import ast
import functools
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.failure_page import entry_of

import apr
from apr.container.inspecting import lint, validation
from apr.errors import Refusal
from apr.train import gates

_NOTES = "apr failures"
_PRINTED = re.compile(r"refused\[([a-z0-9.-]+)\](?: \(([^)\n]+)\))? (.*)\n +found: +(.*)")
_FRAMES = 12


@dataclass
class Notes:
    """What one call of a test saw, each id once, in the order of seeing."""

    refused: dict[str, dict[str, Any]] = field(default_factory=dict)
    judged: dict[str, dict[str, Any]] = field(default_factory=dict)
    waived: set[str] = field(default_factory=set)
    checks: list[str] = field(default_factory=list)

    def refusal(
        self, id: str, upstream_id: str | None, exit_code: int, where: str, found: str
    ) -> None:
        """A refusal that was made, or that a command printed."""
        self.refused.setdefault(id, _answer(id, upstream_id, exit_code, where, found))

    def verdict(self, id: str, upstream_id: str | None, found: str) -> None:
        """A gate that would block."""
        self.judged.setdefault(id, _answer(id, upstream_id, Refusal.exit_code, "", found))

    def check(self, text: str) -> None:
        """A finding that is no refusal and has no exit code of its own."""
        if text not in self.checks:
            self.checks.append(text)

    def as_dict(self, item: pytest.Item) -> dict[str, Any]:
        """What counts of it.

        A gate that was waived does only where it refused all the same, and where a file is about
        some gates the verdicts of others do not. Where the test itself names some of the ids that
        were seen, the rest is of the way there.
        """
        text = item.path.read_text(encoding="utf-8")
        names_gates = any(_is_named(id, text) for id in gates.UPSTREAM_IDS)
        blocked = {
            id: said
            for id, said in self.judged.items()
            if id not in self.waived and (_is_named(id, text) or not names_gates)
        }
        seen, text = self.refused | blocked, _text_of(item)
        named = [said for id, said in seen.items() if _is_named(id, text)]
        return {"answers": named or list(seen.values()), "checks": self.checks}


def _is_named(id: str, text: str) -> bool:
    """Whether a text has an id in quotes, with its subject or without."""
    subject, _, rest = id.partition(".")
    return bool(re.search(rf"""["']({subject}\.)?{rest or subject}["']""", text))


def _text_of(item: pytest.Item) -> str:
    """The source of a test, and what its case is given as text, without what others are given."""
    text = inspect.getsource(item.function)  # pyright: ignore[reportAttributeAccessIssue]
    text = re.split(r"^def ", text, maxsplit=1, flags=re.M)[-1]
    if hasattr(item, "callspec"):
        values = item.callspec.params.values()  # pyright: ignore[reportAttributeAccessIssue]
        text += " ".join(repr(value) for value in values if isinstance(value, str))
    return text


def _answer(
    id: str, upstream_id: str | None, exit_code: int, where: str, found: str
) -> dict[str, Any]:
    return {
        "id": id,
        "upstream_id": upstream_id,
        "exit_code": exit_code,
        "where": where[:2000],
        "found": found[:2000],
    }


class Catalogue:
    """The plugin: keeps the tests of the catalogue, watches them, and writes the notes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cases: list[dict[str, Any]] = []
        self._notes: Notes | None = None
        self._ids = ids_of_checks(Path(apr.__file__).parent / "train")
        _after(Refusal, "__init__", self._see_refusal)
        _after(gates.Finding, "__init__", self._see_finding)
        _after(gates.Gate, "__init__", self._see_gate)
        _after(validation.Check, "__init__", self._see_check)
        _after(lint.Finding, "__init__", self._see_lint)
        _after(subprocess.Popen, "communicate", self._see_output)

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Leave out every test without an entry."""
        others = [item for item in items if entry_of(item.path.name, _function(item)) is None]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """Note what is seen during the call alone; fixtures belong to all tests of a file."""
        self._notes = Notes()
        try:
            return (yield)
        finally:
            # A report's properties travel from the workers of xdist to the one that writes.
            item.user_properties.append((_NOTES, json.dumps(self._notes.as_dict(item))))
            self._notes = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep one line for every case."""
        if report.when != "call" and report.passed:
            return
        file, _, rest = report.nodeid.partition("::")
        function, _, case = rest.partition("[")
        seen = json.loads(str(dict(report.user_properties).get(_NOTES, "{}")))
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else None
        self.cases.append(
            {
                "file": file,
                "function": function,
                "case": case.removesuffix("]"),
                "outcome": report.outcome,
                "reason": reason,
            }
            | seen
        )

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the notes, where the reports came together."""
        if not hasattr(session.config, "workerinput"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.cases, indent=1), encoding="utf-8")

    def _see_refusal(self, refusal: Refusal, _result: Any) -> None:
        if self._notes is not None:
            self._notes.refusal(
                refusal.id, refusal.upstream_id, refusal.exit_code, refusal.where, refusal.found
            )

    def _see_finding(self, finding: gates.Finding, _result: Any) -> None:
        if self._notes is None or finding.verdict == "PASS":
            return
        id = self._id_of_check()
        if id is not None:
            upstream_id = finding.upstream_id or gates.UPSTREAM_IDS.get(id)
            self._notes.verdict(id, upstream_id, f"{finding.verdict}: {finding.found}")

    def _see_gate(self, gate: gates.Gate, _result: Any) -> None:
        if self._notes is None or gate.verdict == "PASS":
            return
        if gate.waiver is not None:
            self._notes.waived.add(gate.id)
        self._notes.verdict(gate.id, gate.upstream_id, f"{gate.verdict}: {gate.found}")

    def _see_check(self, check: validation.Check, _result: Any) -> None:
        if self._notes is not None and check.verdict != "PASS":
            self._notes.check(f"apr validate: {check.id} {check.verdict}")

    def _see_lint(self, finding: lint.Finding, _result: Any) -> None:
        if self._notes is not None:
            self._notes.check(f"apr lint: {finding.id}")

    def _see_output(self, process: "subprocess.Popen[Any]", result: Any) -> None:
        if self._notes is None:
            return
        for output in result or ():
            text = output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""
            for id, upstream_id, where, found in _refusals_in(text):
                self._notes.refusal(id, upstream_id, process.returncode, where, found)

    def _id_of_check(self) -> str | None:
        """The gate whose check is being made, from the functions that are under way."""
        frame = sys._getframe(2)
        for _ in range(_FRAMES):
            if frame.f_code.co_name in self._ids:
                return self._ids[frame.f_code.co_name]
            if frame.f_back is None:
                return None
            frame = frame.f_back
        return None


def ids_of_checks(directory: Path) -> dict[str, str]:
    """Check functions and the gate each is judged as, read where they are: `judge(ID, check)`."""
    ids: dict[str, str] = {}
    for path in sorted(directory.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        local = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        for call in ast.walk(tree):
            if not isinstance(call, ast.Call) or len(call.args) != 2:
                continue
            id, check = call.args
            if not isinstance(id, ast.Constant) or "." not in str(id.value):
                continue
            body = local.get(check.id) if isinstance(check, ast.Name) else check
            for inner in ast.walk(body) if body else ():
                if isinstance(inner, ast.Name) and inner.id.startswith("check_"):
                    ids[inner.id] = str(id.value)
    return ids


def _after(kind: type, method: str, see: Callable[[Any, Any], None]) -> None:
    """Have `see` look at the object and at the result after each call of a method."""
    original = getattr(kind, method)

    @functools.wraps(original)
    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        result = original(self, *arguments, **options)
        see(self, result)
        return result

    setattr(kind, method, watched)


def _refusals_in(text: str) -> list[tuple[str, str | None, str, str]]:
    """Refusals that a command printed, for a person or as JSON: id, upstream's, where, found."""
    printed: list[tuple[str, str | None, str, str]] = [
        (id, upstream_id or None, where, found)
        for id, upstream_id, where, found in _PRINTED.findall(text)
    ]
    try:
        answer = json.loads(text)
    except ValueError:
        return printed
    refused = answer.get("refused") if isinstance(answer, dict) else None
    if isinstance(refused, dict):
        upstream_id = refused["upstream_id"]
        printed.append((refused["id"], upstream_id, refused["where"], refused["found"]))
    return printed


def _function(item: pytest.Item) -> str:
    return getattr(item, "originalname", item.name)
