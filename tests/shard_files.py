"""Shard directories made from a few texts, and made to lie."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tests.tokenizer_files import tokenizer

from apr.shards.encode import encode_corpus
from apr.shards.manifest import Manifest
from apr.tokenizer.tokenizer import Tokenizer

TEXTS = ("hello hello\n", "he said <|endoftext|>", "x = 1\n" * 5, "naïve\n")


def write_corpus(path: Path, texts: Sequence[str] = TEXTS) -> Path:
    lines = [json.dumps({"content": text, "source": str(at)}) for at, text in enumerate(texts)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def encode(
    directory: Path,
    texts: Sequence[str] = TEXTS,
    *,
    with_tokenizer: Tokenizer | None = None,
    name: str = "shards",
    **options: Any,
) -> tuple[Path, Manifest]:
    """Shards of `texts` below `directory`, two documents in each shard."""
    corpus = write_corpus(directory / f"{name}.jsonl", texts)
    output = directory / name
    manifest = encode_corpus(
        [corpus],
        tokenizer=with_tokenizer or tokenizer(),
        output=output,
        **{"shard_tokens": 20, "encoder": "reference"} | options,
    )
    return output, manifest


def edit_manifest(directory: Path, **fields: Any) -> None:
    """Change fields of a manifest and seal it again, as someone who knows the format would."""
    path = directory / "manifest.json"
    value = json.loads(path.read_bytes())
    del value["manifest_content_sha256"]
    value |= fields
    value["manifest_content_sha256"] = sha256(spell(value))
    path.write_bytes(spell(value))


def manifest_value(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "manifest.json").read_bytes())


def rewrite_shard(directory: Path, shard_index: int, ids: Sequence[int]) -> None:
    """Replace the ids of one shard, with every hash and size made to fit."""
    data = np.array(ids, "<u4").tobytes()
    value = manifest_value(directory)
    shards = value["shards"]
    (directory / shards[shard_index]["file"]).write_bytes(data)
    shards[shard_index] |= {"sha256": sha256(data)}
    edit_manifest(directory, shards=shards)


def ids_of(directory: Path, shard_index: int) -> list[int]:
    file = manifest_value(directory)["shards"][shard_index]["file"]
    return np.fromfile(directory / file, "<u4").tolist()


def spell(value: dict[str, Any]) -> bytes:
    return json.dumps(value, indent=2).encode() + b"\n"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
