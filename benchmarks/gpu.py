"""Everything that is claimed of one GPU, measured in at most ten minutes, with a table at the end.

    PYTHONPATH=src python benchmarks/gpu.py [-o DIR] [--limit-s 540] [--section NAME ...]
    PYTHONPATH=src python benchmarks/gpu.py --dry-run

It runs from a checkout, without a network, on Python 3.12 and torch 2.11 with CUDA. Beside torch
and numpy it needs wheels of pydantic, pydantic-core, annotated-types, typing-inspection, orjson,
zstandard, tokenizers and safetensors; the comparison with Hugging Face's Trainer also needs
transformers and accelerate, and says so without them. Compiled kernels need what Triton builds its
launcher with: a C compiler and Python's own headers (Python.h). Carry what the machine lacks.

Each section is a process of its own, so that a crash loses one section and not the others, and
writes DIR/SECTION.json as it goes. DIR/rates.json is for `apr plan --device NAME --rates`. Ends
with 1 when a section failed or a proof did not pass; the figures of the others stand.

Where less than all is wanted, or more of one thing: --section training, or --section hf_trainer,
which with a call of its own tries more batches. What comes back from a machine may be limited to a
few files: gpu.json and rates.json are all that matters.

--dry-run walks through every section on the CPU with a tiny shape: its figures mean nothing.
"""

import argparse
import importlib
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

# In the order of what is wanted most; each may take its share of the time that is left.
SECTIONS = {
    "matmuls": 35,
    "traffic": 55,
    "attention": 55,
    "training": 165,
    "proofs": 85,
    "hf_trainer": 75,
    # Two of 6 GB, written, read back and hashed.
    "checkpoints": 70,
}
_GRACE_S = 10.0


def main() -> None:
    """Run the sections one after another, then print what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu-results"))
    parser.add_argument("--limit-s", type=float, default=540.0, help="of all sections together")
    parser.add_argument("--section", choices=SECTIONS, nargs="*", default=list(SECTIONS))
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--together", action="store_true", help="in one process, which is sooner")
    parser.add_argument("--child", choices=SECTIONS, help=argparse.SUPPRESS)
    parser.add_argument("--until-s", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(options.child, options)
        return
    options.output.mkdir(parents=True, exist_ok=True)
    until_s, waiting = time.monotonic() + options.limit_s, list(options.section)
    ends: dict[str, dict[str, Any]] = {}
    while waiting:
        left_s = until_s - time.monotonic()
        share = SECTIONS[waiting[0]] / sum(SECTIONS[name] for name in waiting)
        name = waiting.pop(0)
        ends[name] = run_section(name, options, limit_s=max(0.0, left_s * share))
        print(f"{name}: {ends[name]['ended']}, {ends[name]['elapsed_s']:.0f} s", file=sys.stderr)
    from gpu_sections.table import finish

    options.until_s = time.monotonic()
    sys.exit(finish(setting(options, "rates"), ends))


def run_section(name: str, options: argparse.Namespace, *, limit_s: float) -> dict[str, Any]:
    """One fresh process; how it ended, whatever it left behind."""
    (options.output / f"{name}.json").unlink(missing_ok=True)
    command = [sys.executable, __file__, "--child", name, "-o", str(options.output)]
    log, started_s = options.output / f"{name}.log", time.monotonic()
    # The same clock for all processes: seconds of loading a library are the section's own.
    until_s = started_s + limit_s
    command += ["--until-s", str(until_s)] + (["--dry-run"] if options.dry_run else [])
    # cuBLAS needs it to give the same bits twice.
    environment = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if options.together:
        os.environ.update(environment)
        measure(name, argparse.Namespace(**vars(options) | {"until_s": until_s}))
        return {"ended": "done", "elapsed_s": time.monotonic() - started_s}
    # A log and not a pipe, which a compiler's own processes would hold open.
    with log.open("wb") as target:
        child = subprocess.Popen(
            command, env=environment, stdout=target, stderr=target, start_new_session=True
        )
        try:
            code = child.wait(timeout=limit_s + _GRACE_S)
            lines = log.read_text("utf-8", errors="replace").strip().splitlines() or ["no message"]
            ended = "done" if code == 0 else f"failed ({code}): {lines[-1][:200]}"
        except subprocess.TimeoutExpired:
            ended = "failed: stopped, since its time was up"
        finally:
            stop(child)
    return {"ended": ended, "elapsed_s": time.monotonic() - started_s}


def stop(child: "subprocess.Popen[bytes]") -> None:
    """End a section and whatever it started, which is a session of its own."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def measure(name: str, options: argparse.Namespace) -> None:
    """One section, in this process."""
    importlib.import_module(f"gpu_sections.{name}").measure(setting(options, name))


def setting(options: argparse.Namespace, name: str) -> Any:
    """What the section measures with."""
    import torch
    from gpu_sections.setting import Setting

    if not options.dry_run and not torch.cuda.is_available():
        sys.exit("no CUDA device is here; --dry-run shows on the CPU that every line runs")
    device = torch.device("cpu") if options.dry_run else torch.device("cuda", 0)
    return Setting(name, options.output, device, options.dry_run, options.until_s)


if __name__ == "__main__":
    main()
