"""When texts count as degenerate: each fault, and the twin that passes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.container_models import LLAMA, model_file
from tests.tokenizer_files import tokenizer

from apr.architecture import preset
from apr.jobs import quality
from apr.jobs.quality import WrittenText, describe_quality, judge
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.model.weights import save_model

GOOD = WrittenText("greedy", 64, 0.5, 3, False, 0.3)
TEXTS = [replace(GOOD, kind=kind) for kind in ("greedy", "sampled") for _ in range(3)]


def changed(number: int, kind: str, **keys: Any) -> list[WrittenText]:
    """The good texts, the first few of one kind with something changed."""
    chosen = [text for text in TEXTS if text.kind == kind]
    rest = [text for text in TEXTS if text.kind != kind]
    return [replace(text, **keys) for text in chosen[:number]] + chosen[number:] + rest


@pytest.mark.parametrize("kind", ["greedy", "sampled"])
@pytest.mark.parametrize(
    "keys",
    [
        {"longest_run": 17},
        {"distinct": 0.03},
        {"is_all_special": True},
        {"entropy": 0.91},
    ],
)
def test_most_texts_of_a_kind_decide(kind: str, keys: dict[str, Any]) -> None:
    assert judge(TEXTS).verdict == "PASS"
    assert judge(changed(1, kind, **keys)).verdict == "PASS"
    found = judge(changed(2, kind, **keys))
    assert found.verdict == "FAIL"
    assert found.found.startswith("2 of 6 texts degenerate")


def test_greedy_text_may_repeat_itself_more_than_sampled() -> None:
    assert judge(changed(3, "greedy", distinct=0.1)).verdict == "PASS"
    assert judge(changed(3, "sampled", distinct=0.1)).verdict == "FAIL"


def test_tokens_that_never_come_back_are_no_language() -> None:
    assert judge([replace(text, distinct=0.94) for text in TEXTS]).verdict == "PASS"
    assert judge([replace(text, distinct=0.96) for text in TEXTS]).verdict == "FAIL"


def test_too_little_text_is_unknown() -> None:
    assert judge([]).verdict == "UNKNOWN"
    short = [replace(text, num_tokens=15) for text in TEXTS]
    found = judge(short)
    assert (found.verdict, found.found) == ("UNKNOWN", "6 texts, none over 15 tokens")
    assert judge([*short, replace(GOOD, num_tokens=16)]).verdict == "PASS"


def fresh_model(max_positions: int) -> Transformer:
    shape = preset("tiny", tokenizer_vocab_size=tokenizer().vocab_size)
    model = Transformer(replace(shape, max_position_embeddings=max_positions))
    initialize(model, seed=0)
    return model


def test_a_model_that_cannot_hold_a_sentence_is_not_judged_by_it(tmp_path: Path) -> None:
    path = tmp_path / "x.apr"
    for max_positions, verdict in ((15, "UNKNOWN"), (16, "FAIL")):
        model = fresh_model(max_positions)
        save_model(path, model, tokenizer=tokenizer(), provenance=[], overwrite=True)
        checks = describe_quality(path)["behaviour"]["checks"]
        reading = next(each for each in checks if each["id"] == "text-better-than-guessing")
        assert reading["verdict"] == verdict
        assert checks[-1]["id"] == "generation-not-degenerate"
        assert checks[-1]["verdict"] == "UNKNOWN"
        assert "none over" in checks[-1]["found"]


def generation_of(path: Path) -> dict[str, Any]:
    (check,) = [
        check
        for check in describe_quality(path)["behaviour"]["checks"]
        if check["id"] == "generation-not-degenerate"
    ]
    return check


def test_a_model_that_cannot_run_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_file().write(tmp_path / "x.apr")
    check = generation_of(path)
    assert (check["verdict"], "no tokenizer" in check["found"]) == ("UNKNOWN", True)
    words = [f"word{number}" for number in range(LLAMA.vocab_size)]
    model_file(free={"tokenizer.vocabulary": words, "tokenizer.merges": []}).write(path)
    check = generation_of(path)
    assert (check["verdict"], "tokenizer-inexact" in check["found"]) == ("UNKNOWN", True)
    monkeypatch.setattr(quality, "_available_bytes", lambda: 1000)
    check = generation_of(path)
    assert (check["verdict"], "1000 are free" in check["found"]) == ("UNKNOWN", True)
    file = model_file()
    file.set(hf_model_type="mamba")
    check = generation_of(file.write(path))
    assert (check["verdict"], "identity-derived is UNKNOWN" in check["found"]) == ("UNKNOWN", True)
