"""F23: benchmark items in the training data.

A document that holds a prompt, a solution or a test is named, whatever its layout and even with a
name changed. A file that shares no more than licence text and imports is not.
"""

import gzip
import json
import re
import textwrap
from pathlib import Path

import pytest
from tests.corpus_files import program, texts_in, write_jsonl
from tests.evaluation_files import HUMAN_EVAL, MBPP, SOLUTION, write_items

from apr.corpus.certificate import read_certificate
from apr.corpus.decontamination.decontaminate import Decontamination, decontaminate_corpus
from apr.corpus.reading.documents import document_hash
from apr.corpus.removals import Removals

LICENCE = (
    "# Copyright 2020 The Authors. All rights reserved.\n#\n"
    "# Licensed under the Apache License, Version 2.0 (the 'License'); you may not use this file\n"
    "# except in compliance with the License. You may obtain a copy of the License anywhere.\n"
    "# Unless required by applicable law or agreed to in writing, software is distributed on an\n"
    "# 'AS IS' BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.\n"
)
IMPORTS = (
    "from __future__ import annotations\nimport os\nimport sys\nimport collections\n"
    "from typing import (\n    Any,\n    List,\n    Optional,\n)\nimport numpy as np\n\n\n"
)
BEFORE, AFTER = program(1), program(2)
HARMLESS = [program(3), program(4)]


def decontaminate(folder: Path, texts: list[str]) -> Decontamination:
    return decontaminate_corpus(
        [write_jsonl(folder / "train.jsonl", [{"content": text} for text in texts])],
        against=[
            write_items(folder / "HumanEval.jsonl", HUMAN_EVAL),
            write_items(folder / "mbpp.jsonl", MBPP),
        ],
        output=folder / "out.jsonl",
        num_shown=100,
    )


def left(folder: Path) -> list[str]:
    of_list = Removals.load([folder / "out.jsonl"]).filter()
    texts = texts_in(folder / "train.jsonl")
    return [text for text in texts if of_list.reason(document_hash(text)) is None]


def in_a_class(solution: str) -> str:
    return BEFORE + "class Found:\n    def method(self, levels, floor):\n" + solution + AFTER


def renamed(text: str, name: str, other: str) -> str:
    return re.sub(rf"\b{name}\b", other, text)


PLANTED = {
    "verbatim": in_a_class(SOLUTION),
    "prompt and solution": HUMAN_EVAL[0]["prompt"] + SOLUTION,
    "prompt alone": BEFORE + HUMAN_EVAL[0]["prompt"] + "    raise NotImplementedError\n",
    "test alone": BEFORE + HUMAN_EVAL[0]["test"],
    "other indentation": in_a_class(textwrap.indent(SOLUTION.replace("    ", "\t"), "\t\t")),
    "other line ends": in_a_class(SOLUTION).replace("\n", "\r\n"),
    "blank lines and trailing blanks": in_a_class(SOLUTION.replace("\n", "   \n\n")),
    "on one line": BEFORE + " ".join(SOLUTION.split()),
    "upper case": in_a_class(SOLUTION.upper()),
    "one name changed": in_a_class(renamed(SOLUTION, "level", "height")),
    "a rarer name changed": in_a_class(renamed(SOLUTION, "widest", "result")),
    "the rarest name changed": in_a_class(renamed(SOLUTION, "previous", "p")),
    "MBPP code": BEFORE + MBPP[0]["code"],
    "a short solution, one name changed": BEFORE + renamed(MBPP[1]["code"], "boat", "b") + AFTER,
    "MBPP code, one name changed": BEFORE + renamed(MBPP[0]["code"], "ship", "s") + "\n" + AFTER,
    "MBPP text": BEFORE + f"# {MBPP[0]['text']}\n",
    "MBPP tests": BEFORE + "\n".join(MBPP[0]["test_list"]),
    "under a licence": LICENCE + IMPORTS + in_a_class(SOLUTION),
}
# In the others half of the runs have no changed name in them.
NEEDS_THE_NAME = (
    "one name changed",
    "the rarest name changed",
    "MBPP code, one name changed",
    "a short solution, one name changed",
)


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_item_is_removed(tmp_path: Path, planted: str) -> None:
    found = decontaminate(tmp_path, [HARMLESS[0], PLANTED[planted], HARMLESS[1]])
    assert left(tmp_path) == HARMLESS
    assert found.counts == {"contaminated": 1}
    (removal,) = found.worst
    assert (removal["row"], removal["reason"]) == (2, "contaminated")
    assert removal["share"] >= 0.5
    assert ("renamed" in removal) == (planted in NEEDS_THE_NAME)
    assert removal["found"].split()[0] in ("mbpp.jsonl", "HumanEval.jsonl")


TWINS = {
    "licence and imports": LICENCE + IMPORTS + program(5),
    "imports of the item": "from typing import List\n\n\n" + program(5),
    "the name of the function": BEFORE
    + "def widest_gap(levels, floor):\n    return levels[floor]\n",
    "a line of the solution": BEFORE + SOLUTION.splitlines()[2] + "\n        print(level)\n",
    "a short item": BEFORE + "def twice(x):\n    return 2 * x\n",
    "every name changed": BEFORE
    + renamed(renamed(renamed(SOLUTION, "widest", "a"), "level", "b"), "previous", "c"),
}


@pytest.mark.parametrize("twin", TWINS)
def test_a_harmless_twin_stays(tmp_path: Path, twin: str) -> None:
    found = decontaminate(tmp_path, [TWINS[twin], *HARMLESS])
    assert left(tmp_path) == [TWINS[twin], *HARMLESS]
    assert found.counts == {}


def test_an_item_under_the_licence_of_the_corpus_is_no_reason(tmp_path: Path) -> None:
    """What an item and a file share is licence and imports; the item's own text is not there."""
    item = {"task_id": "L/0", "content": LICENCE + IMPORTS + "".join(PLANTED["verbatim"])}
    write_items(tmp_path / "set.jsonl", [item])
    for number, text in enumerate([LICENCE + IMPORTS + program(5), LICENCE + in_a_class(SOLUTION)]):
        train = write_jsonl(
            tmp_path / f"{number}.jsonl", [{"content": text}, {"content": HARMLESS[0]}]
        )
        found = decontaminate_corpus(
            [train], against=[tmp_path / "set.jsonl"], output=tmp_path / f"out-{number}"
        )
        assert found.counts == ({"contaminated": 1} if number else {})


def test_the_certificate_says_what_was_looked_for_and_what_is_left(tmp_path: Path) -> None:
    found = decontaminate(
        tmp_path, [HARMLESS[0], PLANTED["verbatim"], TWINS["a line of the solution"]]
    )
    certificate, sha256 = read_certificate(tmp_path / "out.certificate.json")
    assert (certificate, sha256) == (found.certificate, found.certificate_sha256)
    (check,) = certificate.checks
    assert check.kind == "ngram"
    assert [(each.name, each.num_items, each.num_too_short) for each in check.evaluation_sets] == [
        ("HumanEval.jsonl", 2, 1),
        ("mbpp.jsonl", 2, 0),
    ]
    assert check.num_contaminated == 1
    assert check.largest_containment_left is not None
    assert 0 <= check.largest_containment_left < 0.5
    assert check.largest_overlap_left is None
    assert "paraphrase" in check.misses
    assert certificate.train.num_documents == 2
    assert certificate.held_out is None


def test_a_published_file_may_be_packed(tmp_path: Path) -> None:
    lines = "".join(json.dumps(item) + "\n" for item in HUMAN_EVAL)
    (tmp_path / "HumanEval.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    train = write_jsonl(
        tmp_path / "train.jsonl", [{"content": PLANTED["verbatim"]}, {"content": HARMLESS[0]}]
    )
    found = decontaminate_corpus(
        [train], against=[tmp_path / "HumanEval.jsonl.gz"], output=tmp_path / "out"
    )
    assert found.counts == {"contaminated": 1}
