"""Evaluation items out of files, and the substance of a text."""

import gzip
import json
from pathlib import Path

import pytest
from tests.evaluation_files import HUMAN_EVAL, MBPP, write_items

from apr.corpus.decontamination.evaluation import Item, list_evaluation_files, read_items
from apr.corpus.similarity.substance import substance
from apr.errors import Refusal


def items(path: Path) -> list[Item]:
    (file,) = list_evaluation_files([path])
    return list(read_items(file, content_field="content"))


def test_human_eval_as_published(tmp_path: Path) -> None:
    first, second = items(write_items(tmp_path / "a.jsonl", HUMAN_EVAL))
    assert first.name == "Invented/0"
    assert first.parts == {
        key: HUMAN_EVAL[0][key] for key in ("prompt", "canonical_solution", "test")
    }
    assert second.name == "Invented/1"


def test_mbpp_as_published_and_sanitized(tmp_path: Path) -> None:
    item = items(write_items(tmp_path / "a.jsonl", MBPP))[0]
    assert (item.name, list(item.parts)) == ("7001", ["text", "code", "test_list"])
    assert item.parts["test_list"].splitlines() == MBPP[0]["test_list"]
    sanitized = dict(MBPP[0])
    sanitized["prompt"] = sanitized.pop("text")
    (tmp_path / "sanitized.json").write_text(json.dumps([sanitized]))
    (item,) = items(tmp_path / "sanitized.json")
    assert list(item.parts) == ["prompt", "code", "test_list"]


def test_every_text_of_an_unknown_shape_counts(tmp_path: Path) -> None:
    row = {
        "id": 3,
        "question": "why",
        "choices": ["a", 4, "b"],
        "n": 1,
        "meta": {"x": "y"},
        "e": " ",
    }
    (item,) = items(write_items(tmp_path / "a.jsonl", [row]))
    assert (item.name, item.parts) == ("3", {"question": "why", "choices": "a\nb"})


def test_any_text_is_an_item(tmp_path: Path) -> None:
    (tmp_path / "held.py").write_text("x = 1\n")
    (item,) = items(tmp_path / "held.py")
    assert item.parts == {"text": "x = 1\n"}


@pytest.mark.parametrize(
    "text",
    [
        "[1]\n",
        "3\n",
        '{"a": "b"\n',
        '{"a": NaN}\n',
        '{"a": 1, "a": 2}\n',
        '{"a": "\\ud800"}\n',
        "\xff\n",
    ],
)
def test_what_is_no_item_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "b"}\n\n' + text.encode("latin-1"))
    with pytest.raises(Refusal) as refused:
        items(path)
    assert (refused.value.id, refused.value.exit_code) == ("corpus.evaluation-damaged", 4)
    assert refused.value.where == f"{path}:3"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.gz", gzip.compress(b'{"a": "b"}\n' * 9, mtime=0)[:-8]),
        ("a.jsonl.gz", b"no gzip"),
        ("a.json", b'{"a": 1}'),
        ("a.json", b"[1]"),
        ("a.json", b"["),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(Refusal) as refused:
        items(tmp_path / name)
    assert refused.value.id == "corpus.evaluation-damaged"


NOTICE = "# Copyright 2020 Someone\n# Licensed under the MIT License.\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n", "x = 1"),
        (NOTICE + "x = 1\n", "x = 1"),
        ("/*\n * SPDX-License-Identifier: MIT\n */\nint x;\n", "int x;"),
        ("import os\nfrom a.b import c\n#include <x.h>\nx\n", "x"),
        ("from a import (\n    b,\n    c,\n)\nx\n", "x"),
        ("const a = require('b')\nx\n", "x"),
        ("# an ordinary comment\nx\n", "# an ordinary comment\nx"),
        ("important = 1\nusers = 2\n", "important = 1\nusers = 2"),
        ("x\n" + NOTICE, "x"),
        ("x = 'the licence'\n", "x = 'the licence'"),
        ("", ""),
    ],
)
def test_the_substance_of_a_text(text: str, expected: str) -> None:
    assert substance(text) == expected
