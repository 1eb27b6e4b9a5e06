"""F16: input that is too large is named, in memory that does not grow with it."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from tests.peak_memory import measured
from tests.tokenizer_files import tokenizer

MEGABYTE = 1 << 20

ENCODE = """
import json, sys
from pathlib import Path
from apr.errors import Refusal
from apr.shards.encode import encode_corpus
from apr.tokenizer.tokenizer import Tokenizer
from tests.peak_memory import peak_kib
corpus, tok, output, allowed = sys.argv[1:]
before = peak_kib()
try:
    manifest = encode_corpus(
        [Path(corpus)], tokenizer=Tokenizer.load(Path(tok)), output=Path(output),
        encoder="reference", max_quarantined=int(allowed),
    )
    result = {"documents": manifest.total_documents, "quarantined": manifest.quarantined}
except Refusal as refusal:
    result = {"refused": refusal.id, "found": refusal.found}
print(json.dumps(result | {"grown_mib": (peak_kib() - before) / 1024}))
"""


def run(corpus: Path, *, allowed: int) -> dict[str, object]:
    tokenizer().save(corpus.parent / "tok", overwrite=True)
    tok, output = corpus.parent / "tok", corpus.parent / f"out-{allowed}"
    return measured(ENCODE, corpus, tok, output, allowed)


def write_rows(path: Path, *, long_line_bytes: int) -> Path:
    ordinary = json.dumps({"content": "hello\n" * 20}).encode() + b"\n"
    with path.open("wb") as plain:
        target = zstandard.ZstdCompressor().stream_writer(plain) if path.suffix == ".zst" else plain
        target.write(ordinary * 10 + b'{"content": "')
        for _ in range(long_line_bytes // MEGABYTE):
            target.write(b"x" * MEGABYTE)
        target.write(b'"}\n' + ordinary * 10)
        target.close()
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.zst"])
def test_a_line_of_200_megabytes_is_named_in_bounded_memory(tmp_path: Path, name: str) -> None:
    corpus = write_rows(tmp_path / name, long_line_bytes=200 * MEGABYTE)
    refused = run(corpus, allowed=0)
    assert refused["refused"] == "corpus.quarantined"
    assert "1 line_too_long" in str(refused["found"])
    kept = run(corpus, allowed=1)
    assert kept["documents"] == 20
    assert kept["quarantined"] == {"line_too_long": 1}
    for result in (refused, kept):
        assert float(str(result["grown_mib"])) < 150


@pytest.mark.slow
def test_a_full_disk_costs_nothing_that_was_there(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the write fails the same way."""
    corpus = write_rows(tmp_path / "a.jsonl", long_line_bytes=0)
    corpus.write_bytes(corpus.read_bytes() * 400)
    tokenizer().save(tmp_path / "tok")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, 64 << 10))

    words = ["tokenize", "encode-corpus", "--corpus", corpus, "--tokenizer", tmp_path / "tok"]
    words += ["-o", tmp_path / "out", "--encoder", "reference", "--num-workers", 1, "--json"]
    environment = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-m", "apr", *map(str, words)]
    full = subprocess.run(
        command, env=environment, capture_output=True, text=True, preexec_fn=limit
    )
    assert full.returncode == 7, full.stderr
    assert json.loads(full.stdout)["refused"]["id"] == "files.io-failed"
    assert not (tmp_path / "out").exists()
    again = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["total_documents"] == 8000
