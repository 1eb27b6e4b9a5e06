"""`apr tokenize import-hf`: a published tokenizer becomes a tokenizer directory of apr's.

tokenizer.json is kept byte for byte, so the ids are the published ones. The other files are
written from it, never copied: a reader of any of them sees the same tokenizer.
"""

from dataclasses import replace
from pathlib import Path

from apr.errors import Refusal
from apr.files import require_apart, require_exists
from apr.tokenizer.directory import Import
from apr.tokenizer.tokenizer import Tokenizer


def import_tokenizer(
    source: Path,
    *,
    output: Path,
    include_added_tokens: bool = False,
    eos_token: str | None = None,
    overwrite: bool = False,
) -> Tokenizer:
    """Read a Hugging Face tokenizer, a tokenizer.json or its directory, and write it as ours.

    `include_added_tokens` decides what vocab.json lists; `eos_token` declares the document
    separator. The files beside a tokenizer.json must agree with it.

    Refuses: tokenizer.not-bpe and what else `Tokenizer.load` refuses, tokenizer.eos-unknown,
    tokenizer.merge-not-a-line, files.exists, files.foreign-content,
    files.output-overlaps-input, files.io-failed.
    Writes: tokenizer.json, tokenizer_config.json, vocab.json, merges.txt, manifest.json.
    """
    require_exists(source, "a tokenizer.json or a directory with one")
    require_apart(output, [source])
    # Under any other name, what lies beside the file need not belong to it.
    is_one_of_several = source.is_file() and source.name == "tokenizer.json"
    found = Tokenizer.load(source.parent if is_one_of_several else source, eos_token=eos_token)
    _require_merges(found)
    imported = Import(
        file="tokenizer.json" if source.is_dir() else source.name,
        includes_added_tokens=include_added_tokens,
        vocab_size_without_added_tokens=len(found.definition.vocab),
        vocab_size_with_added_tokens=found.vocab_size,
        config_eos_token=found.declaration.config_eos_token,
    )
    found.declaration = replace(found.declaration, imported=imported)
    found.save(output, overwrite=overwrite)
    return found


def _require_merges(tokenizer: Tokenizer) -> None:
    if tokenizer.definition.merges:
        return
    raise Refusal(
        "tokenizer.not-bpe",
        tokenizer.where,
        found="BPE without merges, which is a character model",
        expected="BPE",
        fix="use a model whose tokenizer is BPE, or train one: apr tokenize train",
        upstream_id="FALSIFY-TOK-IMPORT-HF-005",
    )
