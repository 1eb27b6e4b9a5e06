"""What llama.cpp makes of a GGUF file; runs in the environment that has llama-cpp-python.

    .venv-llama/bin/python tests/llama_cpp/worker.py JOB.json RESULT.npz

A job names a file, texts to encode, ids to compute logits for and, if it wants to, how many tokens
to go on with greedily. This file imports nothing of
apr, and apr nothing of it.
"""

import json
import sys

import numpy as np

import llama_cpp


def main(job_path: str, result_path: str) -> None:
    with open(job_path, encoding="utf-8") as file:
        job = json.load(file)
    model = llama_cpp.Llama(
        job["path"],
        n_ctx=256,
        n_threads=2,
        logits_all=True,
        verbose=False,
        # Half-precision keys and values are llama.cpp's choice, not the file's.
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
    )
    encoded = [
        model.tokenize(text.encode("utf-8"), add_bos=False, special=False) for text in job["texts"]
    ]
    model.eval(job["ids"])
    logits = np.array(model.scores[: len(job["ids"])], dtype=np.float32)
    greedy: list[int] = []
    last = logits[-1]
    while len(greedy) < job.get("num_greedy", 0) and int(last.argmax()) != model.token_eos():
        greedy.append(int(last.argmax()))
        model.eval(greedy[-1:])
        last = np.array(model.scores[len(job["ids"]) + len(greedy) - 1], dtype=np.float32)
    np.savez(
        result_path,
        logits=logits,
        greedy=np.array(greedy, dtype=np.int64),
        lengths=np.array([len(ids) for ids in encoded], dtype=np.int64),
        ids=np.array([id for ids in encoded for id in ids], dtype=np.int64),
        eos=np.array([model.token_eos(), model.token_bos()], dtype=np.int64),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
