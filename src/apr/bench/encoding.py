"""How fast text becomes ids on one core: texts in memory, ids counted and hashed, not kept."""

import hashlib
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from apr.corpus.interpreter import interpreter_documents
from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import read_documents
from apr.errors import FeatureMissing
from apr.progress import Progress, Report, silent
from apr.tokenizer.encoders import NotAllowed
from apr.tokenizer.tokenizer import Tokenizer

_TEXTS_PER_CALL = 64
EncoderName = Literal["fastokens", "tokenizers"]
# Of one process; the libraries read them when they are loaded.
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Encoded:
    """One pass over the texts."""

    encoder: str
    version: str
    num_texts: int
    text_bytes: int
    num_tokens: int
    ids_sha256: str
    elapsed_s: float
    cpu_s: float


def sample_texts(corpus: Sequence[Path | str], *, limit_bytes: int) -> list[str]:
    """The first documents of a corpus, or of the interpreter's sources where none is named.

    Refuses: corpus.*, and corpus.interpreter-too-small.
    """
    documents = (
        read_documents(corpus, drops=Account())
        if corpus
        else interpreter_documents(drops=Account())
    )
    texts: list[str] = []
    left_bytes = limit_bytes
    for document in documents:
        texts.append(document.text)
        left_bytes -= len(document.text.encode())
        if left_bytes <= 0:
            break
    return texts


def measure_encoder(
    name: EncoderName,
    tokenizer: Path,
    corpus: Sequence[Path | str],
    *,
    limit_bytes: int,
    eos_token: str | None = None,
    progress: Report = silent,
) -> Encoded:
    """Encode a sample with one encoder; nothing is written and no encoder is proven here.

    Refuses: bench.no-fast-encoder, and what loading the tokenizer and reading the corpus refuse.
    """
    loaded = Tokenizer.load(tokenizer, eos_token=eos_token)
    encoder = loaded.reference if name == "tokenizers" else loaded.fast
    if isinstance(encoder, NotAllowed):
        raise FeatureMissing(
            "bench.no-fast-encoder",
            tokenizer,
            found=encoder.reason,
            expected="a tokenizer that the fast encoder knows, and that encoder installed",
            fix="pip install fastokens, or measure the reference encoder",
        )
    texts = sample_texts(corpus, limit_bytes=limit_bytes)
    text_bytes = sum(len(text.encode()) for text in texts)
    # The first call builds tables.
    encoder.encode_flat(["x"])
    digest, num_tokens, elapsed_s, cpu_s = hashlib.sha256(), 0, 0.0, 0.0
    for done, batch in _batches(texts):
        progress(Progress(f"encoding with {name}", done, len(texts), "documents"))
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        ids, _ = encoder.encode_flat(batch)
        cpu_s += time.process_time() - started_cpu_s
        elapsed_s += time.perf_counter() - started_s
        num_tokens += len(ids)
        digest.update(ids.astype("<u4").tobytes())
    return Encoded(
        name,
        encoder.version,
        len(texts),
        text_bytes,
        num_tokens,
        digest.hexdigest(),
        elapsed_s,
        cpu_s,
    )


def _batches(texts: Sequence[str]) -> Iterable[tuple[int, list[str]]]:
    remaining = iter(texts)
    done = 0
    while batch := list(islice(remaining, _TEXTS_PER_CALL)):
        yield done, batch
        done += len(batch)
