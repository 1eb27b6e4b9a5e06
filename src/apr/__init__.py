"""apr: from a code corpus to a small language model that provably learned from it.

The public names below are resolved on first use, so that `import apr` costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC: dict[str, str] = {
    "Architecture": "apr.architecture",
    "Claims": "apr.container.stamp",
    "Refusal": "apr.errors",
    "ShardReader": "apr.shards.reader",
    "SplitRule": "apr.corpus.splitting.split_rule",
    "Tokenizer": "apr.tokenizer.tokenizer",
    "TrainConfig": "apr.train.config",
    "bench_checkpoint": "apr.jobs.bench_checkpoint",
    "bench_load": "apr.jobs.bench_load",
    "bench_tokenize": "apr.jobs.bench_tokenize",
    "bench_train": "apr.jobs.bench_train",
    "compare_runs": "apr.report.comparison",
    "decontaminate_corpus": "apr.corpus.decontamination.decontaminate",
    "dedup_corpus": "apr.corpus.deduplication.dedup",
    "demo": "apr.jobs.demo",
    "describe": "apr.container.inspecting.inspection",
    "describe_quality": "apr.jobs.quality",
    "diff_containers": "apr.container.inspecting.diff",
    "encode_corpus": "apr.shards.encode",
    "export_gguf": "apr.jobs.export_gguf",
    "export_hf": "apr.jobs.export_hf",
    "import_model": "apr.jobs.import_model",
    "import_tokenizer": "apr.jobs.import_tokenizer",
    "lint": "apr.container.inspecting.lint",
    "load_model": "apr.model.weights",
    "plan": "apr.jobs.plan",
    "preflight": "apr.jobs.pretrain",
    "pretrain": "apr.jobs.pretrain",
    "replay": "apr.jobs.selftest",
    "resolve_config": "apr.train.resolved_config",
    "resume": "apr.jobs.resume",
    "scan_corpus": "apr.corpus.scanning.scan",
    "selftest": "apr.jobs.selftest",
    "split_corpus": "apr.corpus.splitting.split",
    "stamp": "apr.container.stamp",
    "train_bpe": "apr.tokenizer.train",
    "train_tokenizer": "apr.jobs.train_tokenizer",
    "validate": "apr.container.inspecting.validation",
    "write_report": "apr.report.page",
    "write_text": "apr.jobs.write_text",
}

__all__ = ["__version__", *_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'apr' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
