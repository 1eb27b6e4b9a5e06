"""The wall clock may be set back or forward at any time: it dates records, and measures nothing."""

import ast

import pytest
from tests.house.refusal_ids import read_source

READS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today"}
# Where a moment is written down, under a name that says so.
DATED = {
    "apr.train.run_record": "now",
    "apr.shards.encoding.request": "Request",
    "apr.container.stamp": "_entry",
}


def reads(text: str) -> list[str]:
    """The top-level definitions of a module that look at the wall clock."""
    return [
        getattr(definition, "name", "module")
        for definition in ast.parse(text).body
        for node in ast.walk(definition)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in READS
    ]


def test_the_wall_clock_is_read_where_a_record_is_dated() -> None:
    found = {name: where for name, text in read_source().items() if (where := reads(text))}
    assert found == {name: [where] for name, where in DATED.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f():\n    return time.time() - 1\n", ["f"]),
        ("class A:\n    at = datetime.now(UTC)\n", ["A"]),
        ("def f():\n    return time.monotonic()\n", []),
    ],
)
def test_a_look_at_the_wall_clock_is_seen(text: str, expected: list[str]) -> None:
    assert reads(text) == expected
