"""Millions of weights per second, and error, of each quantised format on one core.

    OMP_NUM_THREADS=1 python benchmarks/quantization.py [--rounds 5] [--json]

The weights are normally distributed, in pieces of 16 MiB. Time is of the process, so that a busy
machine does not change it; the error is the root mean square, relative to that of the weights.
"""

import argparse
import json
import time
from collections.abc import Callable

import numpy as np

from apr.quantization.formats import WRITABLE, dequantize, quantizer


def main() -> None:
    """Measure every writable format and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = {name: measure(name, options.rounds) for name in WRITABLE}
    if options.json:
        print(json.dumps(results))
        return
    print(f"quantization, one core, best of {options.rounds}, millions of weights per second")
    for name, result in results.items():
        print(
            f"  {name:6} write {result['write_m_per_s']:6.0f}   read {result['read_m_per_s']:6.0f}"
            f"   bound {result['bound_m_per_s']:6.0f}   error {result['relative_rms']:.4f}"
        )


def measure(name: str, rounds: int) -> dict[str, float]:
    """Rates and error of one format."""
    weights = np.random.default_rng(0).standard_normal(1 << 22).astype(np.float32)
    tensor = quantizer(name, max_abs=float(np.abs(weights).max()))
    data = tensor.prefix + tensor.quantize(weights)
    read = dequantize(name, data, weights.size)

    def rate(work: Callable[[], object]) -> float:
        return weights.size / min(seconds(work) for _ in range(rounds)) / 1e6

    return {
        "write_m_per_s": rate(lambda: tensor.quantize(weights)),
        "read_m_per_s": rate(lambda: dequantize(name, data, weights.size)),
        "bound_m_per_s": rate(lambda: tensor.error_bound(weights)),
        "relative_rms": float(np.sqrt(np.mean((read - weights) ** 2) / np.mean(weights**2))),
    }


def seconds(work: Callable[[], object]) -> float:
    """CPU time of a call."""
    started_at = time.process_time()
    work()
    return time.process_time() - started_at


if __name__ == "__main__":
    main()
