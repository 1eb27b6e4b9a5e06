"""`apr tokenize train`: a corpus becomes a tokenizer directory."""

from collections.abc import Sequence
from pathlib import Path

from apr.corpus.reading.account import Account
from apr.corpus.reading.documents import list_files, read_files
from apr.files import require_apart
from apr.progress import Report, silent
from apr.tokenizer.directory import require_writable
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.train import Normalization, train_bpe


def train_tokenizer(
    corpus: Sequence[Path | str],
    *,
    output: Path,
    vocab_size: int,
    min_frequency: int = 2,
    normalization: Normalization = "nfc",
    eos_token: str = "<|endoftext|>",
    content_field: str = "content",
    exclude: Sequence[str] = (),
    overwrite: bool = False,
    drops: Account | None = None,
    progress: Report = silent,
) -> Tokenizer:
    """Learn a tokenizer from files and trees of text, and write its directory.

    What was left out of the corpus is counted in `drops`.

    Refuses: tokenizer.vocab-size, tokenizer.min-frequency, tokenizer.eos-ordinary,
    tokenizer.no-text, corpus.* (what cannot be read), files.exists, files.foreign-content,
    files.output-overlaps-input, files.io-failed.
    Writes: tokenizer.json, tokenizer_config.json, vocab.json, merges.txt, manifest.json.
    """
    require_apart(output, [path for path in corpus if isinstance(path, Path)])
    require_writable(output, overwrite=overwrite)
    drops = Account() if drops is None else drops
    files = list_files(corpus, drops=drops, exclude=exclude)
    documents = read_files(files, content_field=content_field, drops=drops)
    tokenizer = train_bpe(
        (document.text for document in documents),
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        normalization=normalization,
        eos_token=eos_token,
        expected_bytes=sum(file.size_bytes for file in files),
        progress=progress,
    )
    tokenizer.save(output, overwrite=overwrite)
    return tokenizer
