"""Removal lists: read strictly, and the same result however the input is cut into tasks."""

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apr.corpus.reading.documents import Document, document_hash
from apr.corpus.removals import Removal, Removals, write_removals
from apr.errors import Refusal


def entry(text: str, reason: str = "duplicate", **fields: Any) -> dict[str, Any]:
    return {"hash": document_hash(text).hex(), "reason": reason} | fields


def write(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in entries))
    return path


def reasons(removals: Removals, texts: str) -> list[str | None]:
    of_list = removals.filter()
    return [of_list.reason(document_hash(text)) for text in texts]


def test_a_listed_text_is_removed_wherever_it_lies(tmp_path: Path) -> None:
    removals = Removals.load([write(tmp_path / "a.jsonl", entry("x", "near_duplicate"))])
    assert reasons(removals, "axbx") == [None, "near_duplicate", None, "near_duplicate"]


def test_of_copies_the_first_stays(tmp_path: Path) -> None:
    removals = Removals.load([write(tmp_path / "a.jsonl", *[entry("x", keep="first")] * 2)])
    assert reasons(removals, "axxbx") == [None, None, "duplicate", None, "duplicate"]
    assert removals.copies == {document_hash("x")}


def test_what_is_removed_altogether_keeps_no_copy(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", entry("x", keep="first"), entry("y", keep="first"))
    second = write(tmp_path / "b.jsonl", entry("x", "contaminated"))
    for lists in ([first, second], [second, first]):
        removals = Removals.load(lists)
        assert reasons(removals, "xyxy") == ["contaminated", None, "contaminated", "duplicate"]
        assert removals.copies == {document_hash("y")}
        assert [each.num_entries for each in removals.lists] == [
            len(path.read_text().splitlines()) for path in lists
        ]


def test_no_list_removes_nothing(tmp_path: Path) -> None:
    for removals in (Removals(), Removals.load([]), Removals.load([write(tmp_path / "e.jsonl")])):
        assert reasons(removals, "xx") == [None, None]


def test_lists_made_elsewhere_need_two_fields_and_may_be_packed(tmp_path: Path) -> None:
    path = tmp_path / "theirs.jsonl.gz"
    line = json.dumps(entry("x", "pii") | {"score": 0.5, "kept": None, "url": ["a"]})
    path.write_bytes(gzip.compress(line.encode()))
    assert reasons(Removals.load([path]), "ax") == [None, "pii"]


TEXTS = st.lists(st.sampled_from("abcdef"), max_size=30)


@given(texts=TEXTS, cuts=st.lists(st.integers(0, 30), max_size=4), order=st.randoms())
def test_tasks_in_any_order_remove_what_one_pass_removes(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], cuts: list[int], order: Any
) -> None:
    """As an encoder does it: first who owns which text, then each task alone, in any order."""
    removals = Removals.load(
        [
            write(
                tmp_path_factory.getbasetemp() / "list.jsonl",
                entry("a", keep="first"),
                entry("b", keep="first"),
                entry("c"),
            )
        ]
    )
    whole = reasons(removals, "".join(texts))
    edges = [0, *sorted(min(cut, len(texts)) for cut in cuts), len(texts)]
    tasks = [texts[start:stop] for start, stop in itertools.pairwise(edges)]
    owned: list[set[bytes]] = []
    taken: set[bytes] = set()
    for task in tasks:
        held = removals.find_copies(Document(text, "s", "g") for text in task)
        owned.append(held - taken)
        taken |= held
    found: dict[int, list[str | None]] = {}
    for number in order.sample(range(len(tasks)), len(tasks)):
        of_task = removals.filter(owned=owned[number])
        found[number] = [of_task.reason(document_hash(text)) for text in tasks[number]]
    assert [reason for number in range(len(tasks)) for reason in found[number]] == whole


def test_what_is_written_is_read(tmp_path: Path) -> None:
    kept = {"source": "k", "row": 3, "hash": "0" * 32}
    removals = [
        Removal(document_hash("x"), "duplicate", "s", 1, keep_first=True, kept=kept),
        Removal(document_hash("y"), "contaminated", "s", None, score={"containment": 0.75}),
    ]
    path = tmp_path / "out.jsonl"
    written = write_removals(path, removals)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        entry("x", keep="first", source="s", row=1, kept=kept),
        entry("y", "contaminated", source="s", containment=0.75),
    ]
    read = Removals.load([path])
    assert read.lists == [written]
    assert reasons(read, "xyx") == [None, "contaminated", "duplicate"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "not json",
        "[]",
        "{}",
        '{"hash": "00", "reason": "x"}',
        json.dumps(entry("x") | {"hash": document_hash("x").hex().upper()}),
        json.dumps(entry("x") | {"hash": 7}),
        json.dumps(entry("x", "")),
        json.dumps(entry("x", "Two Words")),
        json.dumps(entry("x", keep="last")),
        json.dumps(entry("x")).replace("{", '{"hash": "0", '),
        json.dumps(entry("x"))[:-1],
        "\ufeff" + json.dumps(entry("x")),
    ],
)
def test_a_line_that_is_no_entry_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    path = write(tmp_path / "a.jsonl", entry("ok"))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(Refusal) as refused:
        Removals.load([path])
    assert (refused.value.id, refused.value.exit_code) == ("corpus.removals-damaged", 4)
    assert refused.value.where == f"{path}:2"


def test_a_list_that_is_not_there_or_cut_off_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as refused:
        Removals.load([tmp_path / "none.jsonl"])
    assert refused.value.id == "files.not-found"
    with pytest.raises(Refusal) as refused:
        Removals.load([tmp_path])
    assert refused.value.id == "corpus.removals-damaged"
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(entry("x")).encode() * 99)[:-9])
    with pytest.raises(Refusal) as refused:
        Removals.load([path])
    assert refused.value.id == "corpus.removals-damaged"
