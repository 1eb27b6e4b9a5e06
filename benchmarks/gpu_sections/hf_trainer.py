"""Hugging Face's Trainer on the same shape: bf16, SDPA, compiled, fused AdamW, its best batch."""

import statistics
import tempfile
import time
from itertools import pairwise
from typing import Any

import torch

from gpu_sections.setting import Setting

_SKIPPED_STEPS = 4


def measure(setting: Setting) -> None:
    """Every sequence length and batch that fits."""
    for length, tokens in setting.sizes.peer:
        setting.attempt(
            f"{length} x {tokens // length}",
            lambda at=length, n=tokens: _one(setting, sequence_length=at, batch_tokens=n),
        )


def _one(setting: Setting, *, sequence_length: int, batch_tokens: int) -> dict[str, Any]:
    import numpy as np
    import transformers

    transformers.logging.set_verbosity_error()
    torch.compiler.reset()
    if setting.on_cuda:
        torch.cuda.reset_peak_memory_stats()
    fields = setting.architecture.to_hf_config()
    family = fields.pop("model_type")
    del fields["architectures"]
    hf_config = transformers.AutoConfig.for_model(family, **fields)
    model = transformers.AutoModelForCausalLM.from_config(hf_config, attn_implementation="sdpa")
    rows = batch_tokens // sequence_length
    steps = _SKIPPED_STEPS + setting.sizes.steps
    ids = np.random.default_rng(0).integers(
        setting.architecture.vocab_size, size=(rows * steps, sequence_length)
    )
    data = [{"input_ids": torch.from_numpy(row), "labels": torch.from_numpy(row)} for row in ids]
    moments: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_args: object, **_kwargs: object) -> None:
            if setting.on_cuda:
                torch.cuda.synchronize()
            moments.append(time.perf_counter())

        def on_step_end(self, args: object, state: object, control: Any, **_kwargs: object) -> None:
            control.should_training_stop |= time.monotonic() > setting.until_s

    with tempfile.TemporaryDirectory() as scratch:
        arguments = transformers.TrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=rows,
            num_train_epochs=1,
            bf16=True,
            torch_compile=not setting.is_dry_run,
            use_cpu=not setting.on_cuda,
            optim="adamw_torch_fused",
            dataloader_pin_memory=setting.on_cuda,
            logging_strategy="no",
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        # Trainer would take every device that is there, and so much larger a batch.
        arguments._n_gpu = min(1, arguments.n_gpu)
        trainer = transformers.Trainer(
            model=model,
            args=arguments,
            train_dataset=data,  # pyright: ignore[reportArgumentType]
            callbacks=[Clock()],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    times_s = [after - before for before, after in pairwise(moments)][_SKIPPED_STEPS:]
    if not times_s:
        return {"missing": "out of time before its steps were steady"}
    return {
        "sequence_length": sequence_length,
        "batch_tokens": batch_tokens,
        "tokens_per_s": batch_tokens / statistics.median(times_s),
        "steps": len(times_s),
        "peak_bytes": torch.cuda.max_memory_allocated() if setting.on_cuda else None,
        "transformers": transformers.__version__,
    }
