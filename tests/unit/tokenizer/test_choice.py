"""The choice of an encoder: what is compared when, and what is said about it."""

from pathlib import Path

import pytest
from tests.fast_encoders import BYTES, WORDS, cut_by, wrong

from apr.errors import FeatureMissing
from apr.progress import Progress
from apr.tokenizer import trap_texts
from apr.tokenizer.choice import build_encoder, choose_encoder
from apr.tokenizer.encoders import FastEncoder

NUM_STRINGS = trap_texts.NUM_TEXTS + trap_texts.num_code_point_texts()


def test_the_first_use_compares_and_the_second_remembers(tmp_path: Path) -> None:
    used = cut_by(WORDS)
    first_reports: list[Progress] = []
    first = choose_encoder(used, cache_directory=tmp_path, progress=first_reports.append)
    assert (first.name, first.version) == ("fastokens", used.fast.version)
    assert first.reference_version == used.reference.version
    assert first.proof == {
        "verdict": "equal",
        "reason": None,
        "num_strings": NUM_STRINGS,
        "num_code_points": trap_texts.num_code_points(),
        "seed": trap_texts.SEED,
        "texts_version": trap_texts.VERSION,
    }
    assert (first_reports[-1].done, first_reports[-1].total) == (NUM_STRINGS, NUM_STRINGS)
    second_reports: list[Progress] = []
    second = choose_encoder(cut_by(WORDS), cache_directory=tmp_path, progress=second_reports.append)
    assert second == first
    assert second_reports == []


def test_an_encoder_found_wrong_is_never_used_again(tmp_path: Path) -> None:
    used = cut_by(WORDS)
    used.fast = wrong(used)
    first = choose_encoder(used, cache_directory=tmp_path)
    assert (first.name, first.version) == ("tokenizers", used.reference.version)
    assert first.proof["verdict"] == "differs"
    assert ": token " in str(first.proof["reason"])
    assert first.proof["num_code_points"] == 0
    [kept] = tmp_path.iterdir()
    again = choose_encoder(used, cache_directory=tmp_path)
    assert again == first
    kept.write_bytes(kept.read_bytes().replace(b'"differs"', b'"equal"'))
    assert choose_encoder(used, cache_directory=tmp_path) == first
    assert choose_encoder(used, cache_directory=None) == first


def test_a_worker_builds_what_was_chosen() -> None:
    used = cut_by(WORDS)
    assert isinstance(used.fast, FastEncoder)
    assert build_encoder(used, version=used.fast.version) is used.fast


def test_a_worker_with_another_version_is_refused() -> None:
    used = cut_by(WORDS)
    with pytest.raises(FeatureMissing) as caught:
        build_encoder(used, version="0.0.1")
    assert caught.value.id == "tokenizer.fast-encoder-missing"
    assert caught.value.found == f"fastokens {used.fast.version}"
    assert "fastokens==0.0.1" in caught.value.fix


def test_a_worker_without_the_encoder_is_refused() -> None:
    with pytest.raises(FeatureMissing) as caught:
        build_encoder(cut_by(BYTES), version="0.3.5")
    assert caught.value.found.startswith("pre_tokenizer ")
