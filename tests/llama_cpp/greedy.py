"""Whether llama.cpp goes on with a text as `apr run` does, from the files that `apr export` writes.

    make llama-cpp

A model that was trained is exported in every number format. llama.cpp continues a prompt greedily
from the GGUF file, and apr from a container that it imports back from the same file. Then matrices
wide enough for Q4_K blocks: no text, since the weights are random, but logits. Not part of the
tests: building llama.cpp takes minutes.
"""

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from tests import source_models, tokenizer_files

from apr.architecture import Architecture
from apr.jobs.export_gguf import export_gguf
from apr.jobs.import_model import import_model
from apr.jobs.write_text import write_text
from apr.model.weights import load_model

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
WORKER = Path(__file__).with_name("worker.py")
NUM_TOKENS = 64
PROMPT = "Once upon a time"
FORMATS = ("f32", "f16", "bf16", "q8_0", "q4_k")
# llama.cpp rounds activations to eight bits before it multiplies quantised weights.
LARGEST_DIFFERENCE = {"f32": 1e-4, "f16": 2e-3, "bf16": 1e-2, "q8_0": 5e-2, "q4_k": 5e-2}


@dataclass
class Answer:
    """What llama.cpp made of a file."""

    ids: list[int]
    logits: np.ndarray


def main(python: str) -> int:
    """Compare every format; the exit code says whether all agree."""
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        if SHARED.is_dir():
            failed += stories(directory, python)
        failed += wide(directory, python)
    return min(1, failed)


def stories(directory: Path, python: str) -> int:
    """The trained model: the same text, id by id."""
    source = directory / "stories.apr"
    import_model(
        SHARED / "checkpoints" / "stories260K" / "hf", output=source, ask_transformers=False
    )
    print(f"{'stories260K':14} {'tokens equal':>14}")
    failed = 0
    for form in FORMATS:
        gguf, back = directory / f"{form}.gguf", directory / f"{form}.apr"
        exported = export_gguf(source, output=gguf, quantize=form, overwrite=True)
        import_model(gguf, output=back, ask_transformers=False, overwrite=True)
        ours = write_text(back, PROMPT, max_new_tokens=NUM_TOKENS)
        theirs = ask(gguf, ours.prompt_token_ids, directory, python)
        equal = sum(a == b for a, b in zip(ours.token_ids, theirs.ids, strict=False))
        is_right = ours.token_ids == theirs.ids
        failed += not is_right
        formats = ", ".join(f"{n} {name}" for name, n in exported.formats.items())
        wrong = "" if is_right else "   WRONG"
        print(f"{form:14} {equal:>7} of {NUM_TOKENS}{wrong}   {formats}", flush=True)
    return failed


def wide(directory: Path, python: str) -> int:
    """Random weights of the Qwen2 family whose rows 256 divides: real Q4_K blocks."""
    tokenizer = tokenizer_files.tokenizer()
    architecture = Architecture(
        model_type="qwen2",
        vocab_size=tokenizer.vocab_size,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
        rope_theta=1_000_000.0,
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
    )
    hf = directory / "wide"
    hf.mkdir()
    # Smaller than in narrow models, or every rounding grows from layer to layer.
    arrays = {
        name: array if array.ndim == 1 else array * np.float32(0.25)
        for name, array in source_models.random_arrays(architecture).items()
    }
    save_file(arrays, hf / "model.safetensors")
    config = architecture.to_hf_config() | {"eos_token_id": 0}
    (hf / "config.json").write_text(json.dumps(config))
    (hf / "tokenizer.json").write_bytes(tokenizer.json_bytes)
    source = directory / "wide.apr"
    import_model(hf, output=source, ask_transformers=False)
    ids = np.random.default_rng(0).integers(0, tokenizer.vocab_size, size=32).tolist()
    print(f"{'wide qwen2':14} {'logits off by':>14}")
    failed = 0
    for form in FORMATS:
        gguf, back = directory / f"{form}.gguf", directory / f"{form}.apr"
        exported = export_gguf(source, output=gguf, quantize=form, overwrite=True)
        import_model(gguf, output=back, ask_transformers=False, overwrite=True)
        with torch.no_grad():
            ours = load_model(back).model(torch.tensor([ids]))[0].numpy()
        theirs = ask(gguf, ids, directory, python).logits
        off = float(np.abs(theirs - ours).max() / np.abs(ours).max())
        is_right = off <= LARGEST_DIFFERENCE[form]
        failed += not is_right
        formats = ", ".join(f"{n} {name}" for name, n in exported.formats.items())
        print(f"{form:14} {off:14.1e}{'' if is_right else '   WRONG'}   {formats}", flush=True)
    return failed


def ask(path: Path, ids: list[int], directory: Path, python: str) -> Answer:
    """Logits of the ids, and how llama.cpp goes on with them, in a process of its own."""
    job, result = directory / "job.json", directory / "result.npz"
    question = {"path": str(path), "texts": [], "ids": ids, "num_greedy": NUM_TOKENS}
    job.write_text(json.dumps(question), encoding="utf-8")
    subprocess.run([python, str(WORKER), str(job), str(result)], check=True)
    with np.load(result) as arrays:
        return Answer(arrays["greedy"].tolist(), arrays["logits"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
