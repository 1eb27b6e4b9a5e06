"""Hugging Face's model in Hugging Face's Trainer."""

import tempfile
import time
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from apr.bench.reference import Workload
from apr.bench.side import (
    Side,
    Timed,
    measured_side,
    random_rows,
    settings,
    wait_for,
    watch_weights,
)
from apr.progress import Progress, Report


def measure_trainer(work: Workload, *, fast: bool, name: str, progress: Report) -> Side:
    """Trainer with its defaults, or `fast`: with bf16 and torch.compile."""
    import transformers

    transformers.logging.set_verbosity_error()
    device = torch.device(work.config.device)
    dtype = torch.bfloat16 if fast else torch.float32
    model = _transformers_model(work)
    moved = watch_weights(model)
    with tempfile.TemporaryDirectory(prefix="apr-bench-") as scratch:
        arguments = transformers.TrainingArguments(
            output_dir=scratch,
            per_device_train_batch_size=work.micro_batch_size,
            gradient_accumulation_steps=work.config.num_micro_batches,
            num_train_epochs=1,
            use_cpu=device.type == "cpu",
            bf16=fast,
            torch_compile=fast,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        # Trainer would take every device that is there, and so much larger a batch.
        arguments._n_gpu = min(1, arguments.n_gpu)
        timed = _train(model, arguments, work, device, name, progress)
    facts = settings(device, dtype, compiled=fast) | {"transformers": transformers.__version__}
    return measured_side(timed, model, moved, device, dtype, settings=facts)


def _transformers_model(work: Workload) -> Any:
    import transformers

    fields = work.architecture.to_hf_config()
    kind = getattr(transformers, fields.pop("architectures")[0])
    del fields["model_type"]
    torch.manual_seed(work.config.seed)
    return kind(kind.config_class(**fields))


def _train(
    model: Any, arguments: Any, work: Workload, device: torch.device, name: str, progress: Report
) -> Timed:
    import transformers

    total = work.num_warmup_steps + work.num_steps
    moments_s: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_begin(self, *_args: object, **_kwargs: object) -> None:
            wait_for(device)
            moments_s.append(time.perf_counter())
            progress(Progress(f"timing {name}", len(moments_s) - 1, total, "steps"))

        def on_train_end(self, *_args: object, **_kwargs: object) -> None:
            wait_for(device)
            moments_s.append(time.perf_counter())
            progress(Progress(f"timing {name}", total, total, "steps"))

    ids = random_rows(work, work.config.batch_size * total, np.random.default_rng(work.config.seed))
    rows = [{"input_ids": row, "labels": row} for row in torch.from_numpy(ids[:, :-1])]
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,  # pyright: ignore[reportArgumentType]
        callbacks=[Clock()],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    ended = trainer.train()
    assert len(moments_s) == total + 1, f"Trainer took {len(moments_s) - 1} steps of {total}"
    step_s = [after - before for before, after in pairwise(moments_s)]
    warmup = work.num_warmup_steps
    return Timed(sum(step_s[:warmup]), tuple(step_s[warmup:]), (ended.training_loss,))
