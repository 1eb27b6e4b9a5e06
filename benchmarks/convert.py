"""Import and export of a 1 GB checkpoint against copying and hashing the same bytes.

    python benchmarks/convert.py [--rounds 3] [--preset qwen2-0.5b]

The checkpoint has random fp16 weights in the shape of Qwen2.5-0.5B. The peer is what anybody would
do to move a file with care: `cp && sync`, and one sha256 of it. What an import spends on its proof
is printed separately, and so is the memory it takes.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from apr.architecture import Architecture, preset

_CHILD = """
import json, sys
from pathlib import Path
from apr.progress import Progress

peaks = {}
phase = "before the proof"

def peak_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

def reset():
    Path("/proc/self/clear_refs").write_text("5")

def watch(progress: Progress):
    global phase
    now = "proof" if progress.activity in ("proving", "asking transformers") else None
    if now is None and progress.activity.startswith("writing"):
        now = "after the proof"
    if now and now != phase:
        peaks[phase] = peak_mib()
        phase = now
        reset()

kind, source, target = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
if kind == "import":
    from apr.jobs.import_model import import_model
    done = import_model(source, output=target, ask_transformers=False, progress=watch)
    peaks[phase] = peak_mib()
    print(json.dumps({"elapsed_s": dict(done.elapsed_s), "peaks": peaks}))
else:
    from apr.jobs.export_hf import export_hf
    done = export_hf(source, output=target, ask_transformers=False, progress=watch)
    peaks[phase] = peak_mib()
    elapsed = {"all": done.elapsed_s, "proof": done.proof.elapsed_s}
    print(json.dumps({"elapsed_s": elapsed, "peaks": peaks}))
"""


def write_checkpoint(directory: Path, architecture: Architecture) -> None:
    """A Hugging Face directory with random fp16 weights, one safetensors file."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(0)
    directory.mkdir()
    tensors: dict[str, Any] = {}
    for name, shape in architecture.parameter_shapes().items():
        values = random.standard_normal(shape, dtype=np.float32)
        scale = 1.0 if name.endswith("norm.weight") else 0.02
        tensors[name] = (values * scale).astype(np.float16)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    config = architecture.to_hf_config() | {"torch_dtype": "float16"}
    (directory / "config.json").write_text(json.dumps(config))


def copy_and_hash(source: Path, target: Path) -> float:
    """Seconds of `cp && sync` and one sha256, one after the other."""
    started_s = time.perf_counter()
    subprocess.run(["sh", "-c", 'cp "$1" "$2" && sync', "sh", source, target], check=True)
    subprocess.run([sys.executable, "-c", _HASH, source], check=True, stdout=subprocess.DEVNULL)
    elapsed_s = time.perf_counter() - started_s
    target.unlink()
    return elapsed_s


# As fast as this machine can: sha256sum has no use for the processor's own instructions.
_HASH = (
    "import hashlib, sys; print(hashlib.file_digest(open(sys.argv[1], 'rb'), 'sha256').hexdigest())"
)


def run(kind: str, source: Path, target: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", _CHILD, kind, source, target]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def inspect_s(path: Path) -> float:
    command = [sys.executable, "-m", "apr", "inspect", path]
    started_s = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started_s


_TOUCH = """
import sys
from pathlib import Path
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
import apr.container.reader
before = peak()
with apr.container.reader.Container.open(Path(sys.argv[1])) as container:
    name = min(container.tensors.values(), key=lambda entry: entry.size_bytes).name
    container.array(name).sum()
print(peak() - before)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--preset", default="qwen2-0.5b")
    parser.add_argument("--directory", type=Path, help="where to work; the disk matters")
    options = parser.parse_args()
    architecture = preset(options.preset, tokenizer_vocab_size=0)
    with tempfile.TemporaryDirectory(dir=options.directory) as scratch:
        directory = Path(scratch) / "hf"
        write_checkpoint(directory, architecture)
        weights, container, exported = (
            directory / "model.safetensors",
            Path(scratch) / "m.apr",
            Path(scratch) / "out",
        )
        print(f"{options.preset}, {weights.stat().st_size / 1e6:.0f} MB of fp16")
        peers, imports, exports = [], [], []
        for _ in range(options.rounds):
            peers.append(copy_and_hash(weights, Path(scratch) / "copy"))
            container.unlink(missing_ok=True)
            imports.append(run("import", directory, container))
            shutil.rmtree(exported, ignore_errors=True)
            exports.append(run("export", container, exported))
        peer_s = statistics.median(peers)
        print(f"cp && sync, sha256        {peer_s:6.2f} s")
        parts = [sum(v for k, v in each["elapsed_s"].items() if k != "proof") for each in imports]
        proofs = [each["elapsed_s"]["proof"] for each in imports]
        import_s = statistics.median(parts)
        print(f"import without its proof  {import_s:6.2f} s   {import_s / peer_s:.2f} times")
        print("  " + ", ".join(f"{k} {v:.2f}" for k, v in imports[-1]["elapsed_s"].items()))
        print(f"its proof                 {statistics.median(proofs):6.2f} s")
        for phase, mib in imports[-1]["peaks"].items():
            print(f"peak memory {phase:<16}{mib:6.0f} MiB")
        parts = [each["elapsed_s"]["all"] - each["elapsed_s"]["proof"] for each in exports]
        export_s = statistics.median(parts)
        print(f"export without its proof  {export_s:6.2f} s   {export_s / peer_s:.2f} times")
        print(f"peak memory of the export {max(exports[-1]['peaks'].values()):6.0f} MiB")
        inspect_s(container)
        shown = statistics.median(inspect_s(container) for _ in range(5))
        print(f"inspect                   {shown:6.2f} s")
        touched = subprocess.run(
            [sys.executable, "-c", _TOUCH, container], check=True, capture_output=True, text=True
        )
        print(f"open and touch one tensor {float(touched.stdout):6.1f} MiB over the import")


if __name__ == "__main__":
    main()
