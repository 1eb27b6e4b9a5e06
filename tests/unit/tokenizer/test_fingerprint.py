"""Two spellings of one tokenizer have one fingerprint; two tokenizers never do."""

import json
from typing import Any

import pytest
import tokenizers
from tests.tokenizer_files import (
    Change,
    changed,
    control_token,
    nothing,
    set_in,
    swapped,
    tokenizer,
    without,
)

from apr.tokenizer.definition import read_definition

PLAIN = tokenizer().fingerprint


def as_pairs(value: dict[str, Any]) -> None:
    value["model"]["merges"] = [merge.split(" ") for merge in value["model"]["merges"]]


SAME: dict[str, Change] = {
    "merges as pairs": as_pairs,
    "no model type": without("model", "type"),
    "defaults written out": lambda value: value["model"].update(
        dropout=None, unk_token=None, continuing_subword_prefix="", fuse_unk=False
    ),
    "truncation": set_in(
        "truncation",
        to={"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
    ),
    "offsets": set_in("pre_tokenizer", "trim_offsets", to=False),
    "use_regex written out": set_in("pre_tokenizer", "use_regex", to=True),
    "no decoder": set_in("decoder", to=None),
    "another version": set_in("version", to="1.1"),
}
DIFFERENT: dict[str, Change] = {
    "two ids swapped": swapped("a", "b"),
    "merge order": lambda value: value["model"]["merges"].reverse(),
    "normalizer": set_in("normalizer", to={"type": "NFC"}),
    "prefix space": set_in("pre_tokenizer", "add_prefix_space", to=True),
    "regex off": set_in("pre_tokenizer", "use_regex", to=False),
    "another control token": lambda value: value["added_tokens"].append(
        control_token("<x>", len(value["model"]["vocab"]) + 1)
    ),
    "control token not special": set_in("added_tokens", 0, "special", to=False),
    "ignore_merges": set_in("model", "ignore_merges", to=True),
}


@pytest.mark.parametrize("name", SAME)
def test_spelling_does_not_change_it(name: str) -> None:
    assert read_definition(changed(SAME[name]), where="x").fingerprint == PLAIN


def test_formatting_does_not_change_it() -> None:
    value = json.loads(changed(nothing))
    reordered = dict(sorted(value.items(), reverse=True))
    text = json.dumps(reordered, indent=7, ensure_ascii=False)
    assert read_definition(text.encode(), where="x").fingerprint == PLAIN


def test_the_librarys_own_spelling_does_not_change_it() -> None:
    saved = tokenizers.Tokenizer.from_str(changed(nothing).decode()).to_str(pretty=True)
    assert read_definition(saved.encode(), where="x").fingerprint == PLAIN


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_decides_ids_changes_it(name: str) -> None:
    assert read_definition(changed(DIFFERENT[name]), where="x").fingerprint != PLAIN
