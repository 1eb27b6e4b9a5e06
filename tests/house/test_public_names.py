"""The public door: these names and no others. A change here is a change for every user."""

import pytest

import apr

PUBLIC = [
    "Architecture",
    "Claims",
    "Refusal",
    "ShardReader",
    "SplitRule",
    "Tokenizer",
    "TrainConfig",
    "__version__",
    "bench_checkpoint",
    "bench_load",
    "bench_tokenize",
    "bench_train",
    "compare_runs",
    "decontaminate_corpus",
    "dedup_corpus",
    "demo",
    "describe",
    "describe_quality",
    "diff_containers",
    "encode_corpus",
    "export_gguf",
    "export_hf",
    "import_model",
    "import_tokenizer",
    "lint",
    "load_model",
    "plan",
    "preflight",
    "pretrain",
    "replay",
    "resolve_config",
    "resume",
    "scan_corpus",
    "selftest",
    "split_corpus",
    "stamp",
    "train_bpe",
    "train_tokenizer",
    "validate",
    "write_report",
    "write_text",
]


def test_public_names_are_the_listed_ones() -> None:
    assert sorted(apr.__all__) == PUBLIC
    assert dir(apr) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(apr, name) is not None


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Registry'"):
        _ = apr.Registry
