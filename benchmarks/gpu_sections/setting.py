"""What every section measures with: the shape, the sizes, a clock that waits for the device, notes.

A section is a function `measure(setting)`. It notes each result as soon as it has it, so that what
was measured before a crash, or before time ran out, stays.
"""

import gc
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from apr.architecture import Architecture, preset

if TYPE_CHECKING:
    from apr.train.batches import Batch
    from apr.train.config import TrainConfig

_MOST_SAMPLES, _LEAST_SAMPLES, _MOST_CALLS = 50, 5, 100
_SAMPLE_S, _TIMED_S = 2e-3, 0.4


@dataclass(frozen=True)
class Sizes:
    """How much is measured; the small ones only show that every line runs."""

    square: int
    gemm_tokens: int
    head_tokens: int
    copy_bytes: int
    attention: tuple[int, ...]
    """Sequence lengths."""
    training: tuple[tuple[int, int], ...]
    """Sequence length and tokens of a micro-batch, the most wanted first."""
    peer: tuple[tuple[int, int], ...]
    """The same for Hugging Face's Trainer."""
    proof_length: int
    steps: int


FULL = Sizes(
    square=8192,
    gemm_tokens=32_768,
    head_tokens=8192,
    copy_bytes=1 << 30,
    attention=(2048, 512, 4096),
    training=(
        (2048, 32_768),
        (512, 8192),
        (4096, 32_768),
        (2048, 65_536),
        (2048, 16_384),
        (512, 32_768),
        (4096, 65_536),
    ),
    peer=((2048, 16_384), (512, 8192), (2048, 32_768), (4096, 16_384), (2048, 8192)),
    proof_length=512,
    steps=30,
)
SMALL = Sizes(
    square=128,
    gemm_tokens=128,
    head_tokens=64,
    copy_bytes=1 << 20,
    attention=(64, 32),
    training=((32, 64), (16, 64)),
    peer=((32, 64),),
    proof_length=32,
    steps=3,
)


@dataclass
class Setting:
    """One section under way; `until_s` is when it should end, by the monotonic clock."""

    section: str
    directory: Path
    device: torch.device
    is_dry_run: bool
    until_s: float
    results: list[dict[str, Any]] = field(default_factory=list)
    last_s: float = 0.0
    """What the attempt before took."""

    @property
    def sizes(self) -> Sizes:
        """How much is measured."""
        return SMALL if self.is_dry_run else FULL

    @property
    def architecture(self) -> Architecture:
        """The shape: Qwen2.5-0.5B's, or a tiny one."""
        name = "tiny" if self.is_dry_run else "qwen2-0.5b"
        return preset(name, tokenizer_vocab_size=256)

    @property
    def on_cuda(self) -> bool:
        """Whether clocks must wait for the device, and memory can be asked for."""
        return self.device.type == "cuda"

    def note(self, what: str, **result: Any) -> None:
        """Keep one result, at once."""
        self.results.append({"what": what, **_finite(result)})
        path = self.directory / f"{self.section}.json"
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps({"results": self.results}, indent=1), encoding="utf-8")
        beside.replace(path)

    def attempt(self, what: str, work: Callable[[], dict[str, Any]]) -> None:
        """Note what a measurement gives, or why it gave nothing; the next one goes on.

        One that would not end in time, taking as long as the one before, is not begun: cut off, it
        would end the section as failed.
        """
        started_s = time.monotonic()
        if started_s + self.last_s > self.until_s:
            self.note(what, missing="out of time")
            return
        try:
            result = work()
        except Exception as err:
            # One case that does not fit, or a backend that is not there, must not lose the rest.
            line = str(err).strip().partition("\n")[0]
            result = {"missing": f"{type(err).__name__}: {line[:160]}"}
        self.note(what, **result)
        # A trainer and its callbacks hold each other, and the device's memory.
        gc.collect()
        if self.on_cuda:
            torch.cuda.empty_cache()
        self.last_s = time.monotonic() - started_s

    def seconds(self, work: Callable[[], object]) -> float:
        """The median of repeated calls, after some that do not count."""
        if self.is_dry_run:
            self._sample_s(work, 1)
            return self._sample_s(work, 1)
        for _ in range(3):
            work()
        # Short kernels in a row, or their launch would be counted with them.
        calls = max(1, min(_MOST_CALLS, int(_SAMPLE_S / self._sample_s(work, 1))))
        times_s: list[float] = []
        while len(times_s) < _LEAST_SAMPLES or (
            sum(times_s) * calls < _TIMED_S and len(times_s) < _MOST_SAMPLES
        ):
            times_s.append(self._sample_s(work, calls) / calls)
        return statistics.median(times_s)

    def _sample_s(self, work: Callable[[], object], calls: int) -> float:
        if not self.on_cuda:
            started_s = time.perf_counter()
            for _ in range(calls):
                work()
            return time.perf_counter() - started_s
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3

    def random(self, *shape: int, requires_grad: bool = False) -> torch.Tensor:
        """Normal values in bf16: zeros would draw less power, and be faster."""
        values = torch.randn(shape, device=self.device, dtype=torch.float32).bfloat16()
        return values.requires_grad_(requires_grad)

    def config(
        self, *, sequence_length: int, micro_batch_tokens: int, **choices: Any
    ) -> "TrainConfig":
        """A long run, as far as the choices of a run depend on its length."""
        from apr.train.resolved_config import resolve_config

        nowhere = Path("unused")
        return resolve_config(
            {
                "dataset": nowhere,
                "tokenizer": nowhere,
                "run_dir": nowhere,
                "num_steps": 100_000,
                "batch_size": micro_batch_tokens // sequence_length,
                "seq_length": sequence_length,
                "grad_accum": 1,
                "device": str(self.device),
                "precision": "bf16",
                # Compiling takes longer than everything else of a dry run.
                "compile": False if self.is_dry_run else None,
            }
            | choices
        )

    def batch(self, *, rows: int, sequence_length: int, num_documents: int = 1) -> "Batch":
        """Random ids; rows are cut into equal documents."""
        import numpy as np

        from apr.train.batches import Batch

        random = np.random.default_rng(len(self.results))
        ids = random.integers(self.architecture.vocab_size, size=(rows, sequence_length + 1))
        documents = np.arange(sequence_length) * num_documents // sequence_length
        return Batch(
            np.ascontiguousarray(ids[:, :-1]),
            np.ascontiguousarray(ids[:, 1:]),
            np.tile(documents.astype(np.int64), (rows, 1)),
            tuple(range(rows)),
        )


def _finite(value: Any) -> Any:
    """The same with words where a number is none: JSON has no such numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value
