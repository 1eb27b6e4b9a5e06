"""Whether llama.cpp itself computes and encodes what apr does, from the GGUF files apr writes.

    make llama-cpp

Small models of every family go through the writer and are computed by llama.cpp in a process of
its own; logits are compared with our transformer's, and ids of texts with our tokenizer's. Not
part of the tests: building llama.cpp takes minutes.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tests import gguf_models, tokenizer_files
from tests.gguf_models import source_tensors

from apr.architecture import Architecture
from apr.convert.gguf import pre_tokenizers, rows, values
from apr.convert.gguf.export import file_type, gguf_fields, gguf_tensors
from apr.convert.gguf.values import Field
from apr.convert.gguf.writer import write_gguf
from apr.convert.source import SourceTensor
from apr.model.transformer import Transformer
from apr.tokenizer.tokenizer import Tokenizer
from apr.tokenizer.train import train_bpe
from apr.tokenizer.trap_texts import trap_texts

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data"
WORKER = Path(__file__).with_name("worker.py")
Fault = Callable[[list[Field], list[SourceTensor]], None]

# llama.cpp adds in another order; measured 2e-7 to 3e-5 of the largest logit.
LARGEST_DIFFERENCE = 1e-4
TRAP_STEP = 8
# Qwen2.5's added tokens that llama.cpp takes for control tokens, whatever the file says.
CONTROL_BY_TEXT = (
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)


@dataclass
class Case:
    """One model to be exported and computed on both sides."""

    name: str
    architecture: Architecture
    tokenizer: Tokenizer
    arrays: dict[str, NDArray[Any]]
    texts: list[str]
    fault: Fault | None = None
    """What is wrong with the file on purpose; llama.cpp must then differ."""


@dataclass
class Outcome:
    """How far apart the two sides are."""

    off: float
    """Of the largest logit."""
    texts: int
    traps: int
    num_traps: int

    @property
    def is_same(self) -> bool:
        """Whether both sides agree; traps are counted, not judged."""
        return self.off <= LARGEST_DIFFERENCE and self.texts == 0


def main(python: str) -> int:
    """Compare every case; the exit code says whether all agree and all faults were seen."""
    failed = 0
    print(f"{'case':28} {'logits off by':>14} {'texts differing':>16} {'traps differing':>16}")
    with tempfile.TemporaryDirectory() as directory:
        for case in cases():
            found = compare(case, Path(directory), python)
            is_right = found.is_same == (case.fault is None)
            failed += not is_right
            texts, traps = f"{found.texts}/{len(case.texts)}", f"{found.traps}/{found.num_traps}"
            verdict = "" if is_right else "   WRONG"
            print(f"{case.name:28} {found.off:14.1e} {texts:>16} {traps:>16}{verdict}", flush=True)
    print("traps are texts made to tell encoders apart: counted, not judged")
    return min(1, failed)


def cases() -> Iterator[Case]:
    """Every family with random weights, every known pre-tokenizer, and a model that was trained."""
    corpus = [path.read_text("utf-8") for path in sorted((ROOT / "src").rglob("*.py"))]
    trained = train_bpe(corpus[:60], vocab_size=600)
    yield from families_cases(trained, corpus)
    for row in pre_tokenizers.TABLE:
        yield Case(
            f"pre {row.name}",
            replace(gguf_models.LLAMA, vocab_size=trained.vocab_size),
            cut_as(trained, row),
            gguf_models.weights(replace(gguf_models.LLAMA, vocab_size=trained.vocab_size)),
            corpus[:20] + sentences(),
        )
    yield from planted(next(families_cases(trained, corpus)))
    if SHARED.is_dir():
        yield stories()
        for folder in ("gpt2", "qwen2.5"):
            yield published(folder, corpus)


def families_cases(trained: Tokenizer, corpus: list[str]) -> Iterator[Case]:
    """Every family with random weights."""
    for name, architecture in families().items():
        # Some rows of the embedding have no token.
        sized = replace(architecture, vocab_size=trained.vocab_size + 5)
        arrays = {key: 0.2 * array for key, array in gguf_models.weights(sized).items()}
        yield Case(name, sized, trained, arrays, corpus[:20] + sentences())


def planted(case: Case) -> Iterator[Case]:
    """The faults of F07 and F01 that no reader refuses, each of which must show."""

    def other_pre(fields: list[Field], tensors: list[SourceTensor]) -> None:
        at = [field.key for field in fields].index("tokenizer.ggml.pre")
        fields[at] = values.text("tokenizer.ggml.pre", "gpt-2")

    def rows_in_halves(fields: list[Field], tensors: list[SourceTensor]) -> None:
        at = [tensor.name for tensor in tensors].index("blk.1.attn_q.weight")
        tensors[at] = rows.to_halves(tensors[at], head_dim=case.architecture.head_dim)

    def other_theta(fields: list[Field], tensors: list[SourceTensor]) -> None:
        at = [field.key for field in fields].index("llama.rope.freq_base")
        fields[at] = values.float32("llama.rope.freq_base", 1e6)

    for fault in (other_pre, rows_in_halves, other_theta):
        yield replace(case, name=f"planted: {fault.__name__}", fault=fault)


def families() -> dict[str, Architecture]:
    """The families, and what an architecture may vary in."""
    llama = gguf_models.LLAMA
    return gguf_models.FAMILIES | {
        "mistral": replace(llama, model_type="mistral"),
        "one key head": replace(llama, num_key_value_heads=1),
        "other epsilon and theta": replace(llama, rms_norm_eps=1e-3, rope_theta=123_456.0),
        "wide heads": replace(llama, head_dim=32),
    }


def cut_as(trained: Tokenizer, row: pre_tokenizers.PreTokenizer) -> Tokenizer:
    """The trained merges with text cut in another way."""
    document = json.loads(trained.json_bytes)
    document["pre_tokenizer"] = row.component()
    document["normalizer"] = None
    document["model"]["ignore_merges"] = row.ignore_merges
    data = json.dumps(document).encode()
    return Tokenizer.from_json_bytes(data, eos_token=tokenizer_files.EOS, where=row.name)


def sentences() -> list[str]:
    """Texts of several scripts, and llama.cpp's own test texts where they are at hand."""
    texts = [
        "", " ", "\n\n \n", "Hello, world! It's 2024 and we'll see.",
        "I'LL 'Re 12345 1\u00bd \u00b2", "\u00c0 bient\u00f4t, gar\u00e7on",
        "\u041f\u0440\u0438\u0432\u0435\u0442", "\u4f60\u597d\uff0c\u4e16\u754c 3333",
        "\U0001f680 (normal) \U0001f636\u200d\U0001f32b\ufe0f", "\tif x:\n\t\treturn  y  \r\n",
        "<|endoftext|> is text", "a" * 100,
    ]  # fmt: skip
    vectors = SHARED / "ggml-vocab" / "ggml-vocab-gpt-2.gguf.inp"
    if vectors.is_file():
        texts += vectors.read_bytes().decode().split("\n__ggml_vocab_test__\n")[:-1]
    return texts


def published(folder: str, corpus: list[str]) -> Case:
    """A published tokenizer, at the size it has."""
    path = SHARED / "tokenizers" / folder / "tokenizer.json"
    tokenizer = Tokenizer.load(path, eos_token=tokenizer_files.EOS)
    sized = replace(gguf_models.QWEN2, vocab_size=tokenizer.vocab_size + 271)
    arrays = {key: 0.2 * array for key, array in gguf_models.weights(sized).items()}
    return Case(f"tokenizer {folder}", sized, tokenizer, arrays, corpus + sentences())


def stories() -> Case:
    """A model that was trained, with a SentencePiece tokenizer."""
    folder = SHARED / "checkpoints" / "stories260K" / "hf"
    architecture = replace(
        gguf_models.LLAMA,
        vocab_size=512,
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=4,
        rms_norm_eps=1e-5,
        max_position_embeddings=512,
    )
    arrays = load_file(folder / "model.safetensors")
    tokenizer = Tokenizer.load(folder, eos_token="</s>")
    listed = {name: arrays[name] for name in architecture.parameter_shapes()}
    return Case("stories260K", architecture, tokenizer, listed, sentences())


def compare(case: Case, directory: Path, python: str) -> Outcome:
    """Write the model, have llama.cpp read it, and compare logits and ids with our own."""
    path = directory / "model.gguf"
    tensors = gguf_tensors(case.architecture, source_tensors(case.arrays))
    found = gguf_fields(
        case.architecture,
        case.tokenizer,
        {"bos_token_id": 1, "eos_token_id": case.tokenizer.eos_token_id},
        file_type=file_type(tensors),
    )
    fields = list(found.fields)
    if case.fault is not None:
        case.fault(fields, tensors)
    write_gguf(path, fields=fields, tensors=tensors, overwrite=True)
    ids = np.random.default_rng(0).integers(0, case.tokenizer.vocab_size, size=48).tolist()
    traps = list(islice(trap_texts(case.tokenizer.definition), 0, None, TRAP_STEP))
    theirs, logits = run_llama_cpp(path, case.texts + traps, ids, directory, python)
    ours = our_logits(case, ids)
    differs = [
        encoded != other for encoded, other in zip(encode_all(case, traps), theirs, strict=True)
    ]
    return Outcome(
        off=float(np.abs(logits - ours).max() / np.abs(ours).max()),
        texts=sum(differs[: len(case.texts)]),
        traps=sum(differs[len(case.texts) :]),
        num_traps=len(traps),
    )


def encode_all(case: Case, traps: list[str]) -> list[list[int]]:
    """Ids of texts in which special tokens are text, and added tokens that are not special are not.

    That is how llama.cpp reads a prompt that it is not told to parse. It does not normalize, so
    neither does this.
    """
    document = json.loads(case.tokenizer.json_bytes)
    if document["normalizer"] == {"type": "NFC"}:
        document["normalizer"] = None
    for token in document["added_tokens"]:
        token["special"] |= token["content"] in CONTROL_BY_TEXT
    library = tokenizers.Tokenizer.from_str(json.dumps(document))
    library.encode_special_tokens = True
    encoded = library.encode_batch(case.texts + traps, add_special_tokens=False)
    return [each.ids for each in encoded]


def run_llama_cpp(
    path: Path, texts: list[str], ids: list[int], directory: Path, python: str
) -> tuple[list[list[int]], NDArray[np.float32]]:
    """Ids and logits from llama.cpp, in a process of its own."""
    job, result = directory / "job.json", directory / "result.npz"
    job.write_text(json.dumps({"path": str(path), "texts": texts, "ids": ids}), encoding="utf-8")
    subprocess.run([python, str(WORKER), str(job), str(result)], check=True)
    with np.load(result) as arrays:
        ends = np.cumsum(arrays["lengths"])[:-1]
        encoded = [part.tolist() for part in np.split(arrays["ids"], ends)]
        return encoded, arrays["logits"]


def our_logits(case: Case, ids: list[int]) -> NDArray[np.float32]:
    """The same from our transformer, which never saw the file."""
    model = Transformer(case.architecture)
    weights = {name: torch.from_numpy(array.copy()) for name, array in case.arrays.items()}
    state = model.state_dict()
    state.update(weights)
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([ids]))
    return logits[0].numpy()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
