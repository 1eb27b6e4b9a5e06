"""Training tokens per second of the reference model, beside Hugging Face's Trainer.

    python benchmarks/train_throughput.py [--rounds 3] [--json]

Both sides train the same shape on the same random ids in fresh processes, in turn: apr with the
settings `apr pretrain` would choose here, Trainer with its defaults. A round's figure excludes
the first steps (start-up, compilation). Quote the ratio: hosts drift, the ratio of neighbouring
rounds does not.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from apr.architecture import Architecture

REFERENCE = Architecture(
    model_type="llama",
    vocab_size=8192,
    hidden_size=256,
    intermediate_size=704,
    num_hidden_layers=6,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=32,
    max_position_embeddings=2048,
    rope_theta=10_000.0,
    rms_norm_eps=1e-5,
    tie_word_embeddings=False,
)
SEQUENCE_LENGTH = 256
BATCH_SIZE = 16
SKIPPED_STEPS = 4
STEPS = {"apr": 44, "hf-trainer": 14}


def main() -> None:
    """Alternate the sides and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", choices=sorted(STEPS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        step_s = run_apr() if options.side == "apr" else run_hf_trainer()
        print(json.dumps(step_s[SKIPPED_STEPS:]))
        return
    rounds = [{side: tokens_per_s(side) for side in STEPS} for _ in range(options.rounds)]
    report(rounds, as_json=options.json)


def tokens_per_s(side: str) -> float:
    """One fresh process; the median of its steady steps."""
    command = [sys.executable, __file__, "--side", side]
    # The apr command sets this for itself; Trainer has no such default.
    own = {"OMP_WAIT_POLICY": "PASSIVE"} if side == "apr" else {}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | own)
    step_s = json.loads(done.stdout.splitlines()[-1])
    return BATCH_SIZE * SEQUENCE_LENGTH / statistics.median(step_s)


def report(rounds: list[dict[str, float]], *, as_json: bool) -> None:
    """The table, or the same as one JSON object."""
    medians = {side: statistics.median(r[side] for r in rounds) for side in STEPS}
    ratios = [r["apr"] / r["hf-trainer"] for r in rounds]
    flops = REFERENCE.training_flops_per_token(SEQUENCE_LENGTH, convention="conventional")
    if as_json:
        print(json.dumps({"tokens_per_s": medians, "ratios": ratios, "rounds": rounds}))
        return
    print(
        f"{REFERENCE.num_parameters} parameters, {BATCH_SIZE} x {SEQUENCE_LENGTH} tokens per step"
    )
    for side, rate in medians.items():
        print(f"  {side:<12} {rate:8.0f} tokens/s  {rate * flops / 1e9:6.0f} GFLOP/s")
    spread = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"  ratio        {statistics.median(ratios):8.2f}  (by round: {spread})")


def run_apr() -> list[float]:
    """Seconds per step of apr's own training step, with the choices of a long run."""
    import numpy as np

    from apr.model.init import initialize
    from apr.model.transformer import Transformer
    from apr.train.acceleration import choose_acceleration, keep_freed_memory, repeatable
    from apr.train.batches import Batch
    from apr.train.config import resolve_config
    from apr.train.optimizer import build_optimizer
    from apr.train.step import train_step

    nowhere = Path("unused")
    config = resolve_config(
        {
            "dataset": nowhere,
            "tokenizer": nowhere,
            "run_dir": nowhere,
            "num_steps": 100_000,
            "batch_size": BATCH_SIZE,
            "seq_length": SEQUENCE_LENGTH,
        }
    )
    keep_freed_memory()
    with repeatable(config.device, seed=0):
        acceleration = choose_acceleration(config, REFERENCE)
        model = Transformer(REFERENCE)
        initialize(model, seed=0)
        acceleration.apply_to(model)
        summed_loss, optimizer = acceleration.loss_function(), build_optimizer(model, config)
        random = np.random.default_rng(0)
        step_s: list[float] = []
        for step in range(1, STEPS["apr"] + 1):
            ids = random.integers(REFERENCE.vocab_size, size=(BATCH_SIZE, SEQUENCE_LENGTH + 1))
            started_s = time.perf_counter()
            batch = Batch(
                np.ascontiguousarray(ids[:, :-1]),
                np.ascontiguousarray(ids[:, 1:]),
                np.zeros((BATCH_SIZE, SEQUENCE_LENGTH), np.int64),
                tuple(range(BATCH_SIZE)),
            )
            train_step(
                model,
                optimizer,
                [batch],
                step=step,
                learning_rate=1e-4,
                max_grad_norm=1.0,
                document_mask=True,
                summed_loss=summed_loss,
            )
            step_s.append(time.perf_counter() - started_s)
    return step_s


def run_hf_trainer() -> list[float]:
    """Seconds per step of Hugging Face's Trainer with its defaults."""
    import numpy as np
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    fields = REFERENCE.to_hf_config()
    del fields["architectures"], fields["model_type"]
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**fields))
    ids = np.random.default_rng(0).integers(
        REFERENCE.vocab_size, size=(BATCH_SIZE * STEPS["hf-trainer"], SEQUENCE_LENGTH)
    )
    rows = [{"input_ids": torch.from_numpy(row), "labels": torch.from_numpy(row)} for row in ids]
    moments: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_args: object, **_kwargs: object) -> None:
            moments.append(time.perf_counter())

        def on_train_end(self, *_args: object, **_kwargs: object) -> None:
            moments.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as scratch:
        transformers.Trainer(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=scratch,
                per_device_train_batch_size=BATCH_SIZE,
                num_train_epochs=1,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=rows,  # pyright: ignore[reportArgumentType]
            callbacks=[Clock()],
        ).train()
    return [after - before for before, after in pairwise(moments)]


if __name__ == "__main__":
    main()
