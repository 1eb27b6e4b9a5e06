"""What an encoding would give and take, from a sample of the corpus."""

import time
from dataclasses import dataclass
from itertools import islice

from apr.corpus.document import Document
from apr.corpus.reading.account import Account
from apr.corpus.reading.span_reader import SpanReader
from apr.corpus.reading.spans import Span
from apr.shards.encoding.plan import Task
from apr.shards.encoding.request import Request, empty_corpus, make_plan
from apr.shards.encoding.workplace import make_encoding
from apr.shards.layout import TOKEN_DTYPE


@dataclass(frozen=True)
class Estimate:
    """Sampled figures, and what follows from them for the whole corpus."""

    num_files: int
    num_tasks: int
    corpus_bytes: int
    """As it lies on disk."""
    num_sampled_documents: int
    sampled_bytes: int
    bytes_per_token: float
    estimated_text_bytes: int
    """A compressed file is taken for four to five times its size."""
    estimated_tokens: int
    estimated_shards: int
    estimated_disk_bytes: int
    """At the peak: parts and shards side by side."""
    estimated_s: float
    """Reading and encoding at the rate of the sample, on the workers asked for."""


def estimate(request: Request, *, num_documents: int = 1000, num_workers: int = 1) -> Estimate:
    """Encode some documents from all over the corpus and extrapolate; nothing is written.

    Refuses: corpus.* (what cannot be read), corpus.empty, tokenizer.eos-undeclared,
    shards.shard-tokens.
    """
    request.require_settings()
    plan = make_plan(request)
    encoding = make_encoding(plan.settings, request.tokenizer, request.removals)
    encoding.encoder.encode_flat(["x"])  # what is built at the first call is not the rate
    started_s = time.monotonic()
    documents = _sample(plan.tasks, request.content_field, num_documents)
    if not documents:
        raise empty_corpus(request, plan.files, plan.listed)
    ids, _ = encoding.encoder.encode_flat([document.text for document in documents])
    elapsed_s = time.monotonic() - started_s
    sampled_bytes = sum(len(document.text.encode("utf-8")) for document in documents)
    text_bytes = sum(task.weight_bytes for task in plan.tasks)
    separators = len(documents) if plan.settings.has_separators else 0
    num_tokens = round((len(ids) + separators) / sampled_bytes * text_bytes)
    return Estimate(
        num_files=len(plan.files),
        num_tasks=len(plan.tasks),
        corpus_bytes=sum(file.size_bytes for file in plan.files),
        num_sampled_documents=len(documents),
        sampled_bytes=sampled_bytes,
        bytes_per_token=round(sampled_bytes / len(ids), 3),
        estimated_text_bytes=text_bytes,
        estimated_tokens=num_tokens,
        estimated_shards=-(-num_tokens // request.shard_tokens),
        estimated_disk_bytes=2 * num_tokens * TOKEN_DTYPE.itemsize,
        estimated_s=round(elapsed_s / sampled_bytes * text_bytes / num_workers, 1),
    )


def _sample(tasks: list[Task], content_field: str, num_documents: int) -> list[Document]:
    spans: list[Span] = [span for task in tasks for span in task.spans]
    stride = max(1, len(spans) // num_documents)
    chosen = spans[::stride]
    per_span = -(-num_documents // len(chosen))
    documents: list[Document] = []
    for span in chosen:
        reader = SpanReader(span, content_field=content_field, account=Account())
        documents += islice(reader, per_span)
    return documents[:num_documents]
