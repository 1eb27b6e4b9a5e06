"""Memory and disk of a run: gates with their planted faults and twins (F24, F32, F40, F41).

Limits are planted in files that look like the system's, in the address space of a process, and
through the parameter that the gates take.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.run_data import RunData

from apr.architecture import preset
from apr.errors import Refusal
from apr.jobs.pretrain import preflight, pretrain
from apr.train.device_memory import DeviceMemory, read_device_memory, read_host_memory
from apr.train.disk import DiskEstimate, estimate_disk
from apr.train.gates import Gate, judge
from apr.train.host_memory import beside_the_devices
from apr.train.memory import estimate_memory
from apr.train.resources_gate import check_disk, check_memory
from apr.train.workload import Workload

MIB, GIB = 1 << 20, 1 << 30
WORK = Workload(
    preset("demo", tokenizer_vocab_size=4096),
    batch_size=16,
    sequence_length=256,
    precision="fp32",
    compiled=False,
)
PEAK_BYTES = estimate_memory(WORK).peak_bytes


def memory_gate(available_bytes: int | None, work: Workload = WORK) -> Gate:
    device = DeviceMemory(available_bytes, "a test")
    return judge("preflight.memory", lambda: check_memory(work, device))


def test_a_run_may_take_95_percent_of_a_device() -> None:
    # The smallest device of which the peak is less than 95 %, and the largest of which it is not.
    enough = int(PEAK_BYTES / 0.95) + 2
    assert memory_gate(enough).verdict == "PASS"
    assert memory_gate(enough - 4).verdict == "FAIL"
    assert memory_gate(0).verdict == "FAIL"


def test_f41_memory_that_cannot_be_read_is_no_pass() -> None:
    gate = memory_gate(None)
    assert gate.verdict == "UNKNOWN"
    assert gate.blocks
    assert "a test" in gate.found


def test_the_fix_of_a_run_that_is_too_large_fits() -> None:
    gate = memory_gate(PEAK_BYTES)
    assert gate.verdict == "FAIL"
    assert gate.fix.startswith("--grad-accum 2,")
    assert memory_gate(PEAK_BYTES, replace(WORK, grad_accum=2)).verdict == "PASS"
    # With every sequence by itself it does not fit either, unless activations are computed twice.
    deep = replace(WORK.architecture, num_hidden_layers=32)
    alone = replace(WORK, architecture=deep, sequence_length=1024, grad_accum=16)
    twice = memory_gate(estimate_memory(alone).peak_bytes, alone)
    assert twice.fix.startswith("--activation-checkpointing --grad-accum")
    hopeless = memory_gate(100 * MIB)
    assert hopeless.fix.startswith("no --seq-length and no --grad-accum makes it fit: weights")


def test_f40_the_rust_tools_count_of_parameters_would_be_seen() -> None:
    shape = preset("qwen2-0.5b", tokenizer_vocab_size=0)
    d, f = shape.hidden_size, shape.intermediate_size
    wrong = shape.vocab_size * d + shape.num_hidden_layers * (4 * d * d + 3 * d * f) + d
    assert wrong == 526_992_256
    right = estimate_memory(replace(WORK, architecture=shape)).parts["fp32 weights"]
    assert right == 4 * 494_032_768 != 4 * wrong


CARD = DeviceMemory(1 << 40, "a card", on_cpu=False)


def host_gate(available_bytes: int | None, work: Workload, num_local_ranks: int = 1) -> Gate:
    host = DeviceMemory(available_bytes, "its host")
    return judge(
        "preflight.memory",
        lambda: check_memory(work, CARD, host=host, num_local_ranks=num_local_ranks),
    )


def test_the_copy_of_a_checkpoint_has_to_fit_into_the_host_of_a_card() -> None:
    """Unseen, the first checkpoint of a model that a card holds ends in the host's killer."""
    seven_billion = replace(
        WORK, architecture=preset("qwen2-7b", tokenizer_vocab_size=0), on_cpu=False
    )
    parts = beside_the_devices(seven_billion, 1)
    # Weights and two moments of each, in fp32.
    assert parts["checkpoint snapshot"] == 12 * seven_billion.architecture.num_parameters
    enough = int(sum(parts.values()) / 0.95) + 2
    assert host_gate(enough, seven_billion).verdict == "PASS"
    assert "beside it about" in host_gate(enough, seven_billion).found
    short = host_gate(enough - 4, seven_billion)
    assert short.verdict == "FAIL"
    assert "of the host's memory" in short.found
    assert "free memory of the host" in short.fix
    assert host_gate(None, seven_billion).verdict == "UNKNOWN"
    # A card that is too small is what is said first.
    small = DeviceMemory(GIB, "a small card", on_cpu=False)
    host = DeviceMemory(GIB, "its host")
    assert "a small card" in check_memory(seven_billion, small, host=host).expected


def test_the_ranks_of_a_host_take_its_memory_together() -> None:
    alone = replace(WORK, on_cpu=False)
    copied, dealt_out = (beside_the_devices(replace(alone, num_shards=n), 4) for n in (1, 4))
    one, snapshot = beside_the_devices(alone, 1), "checkpoint snapshot"
    # Of copies the first rank writes one; of parts each writes its moments, once together.
    assert copied[snapshot] == dealt_out[snapshot] == one[snapshot]
    assert copied["interpreter"] == 4 * one["interpreter"]
    # Two hosts of two ranks: half of the moments are on the other one.
    half = beside_the_devices(replace(alone, num_shards=4), 2)
    assert half[snapshot] == 8 * alone.architecture.num_parameters
    both = int(sum(copied.values()) / 0.95) + 2
    assert host_gate(both, alone, 4).verdict == "PASS"
    assert host_gate(both - 4, alone, 4).verdict == "FAIL"


def place(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


MACHINE = {
    "proc/meminfo": "MemTotal:       16777216 kB\nMemAvailable:    8388608 kB\n",
    "proc/self/status": "Name: python\nVmSize:\t 1048576 kB\nVmRSS:\t  524288 kB\n",
    "proc/self/cgroup": "0::/jobs/one\n",
}
V2 = {
    "cg/jobs/one/memory.max": "max\n",
    "cg/jobs/one/memory.current": f"{GIB}\n",
    "cg/jobs/memory.max": f"{4 * GIB}\n",
    "cg/jobs/memory.current": f"{2 * GIB}\n",
    "cg/jobs/memory.stat": f"anon 5\ninactive_file {GIB}\n",
}
V1 = {
    "proc/self/cgroup": "7:blkio:/\n4:memory:/jobs/one\n0::/\n",
    "cg/memory/jobs/one/memory.limit_in_bytes": f"{3 * GIB}\n",
    "cg/memory/jobs/one/memory.usage_in_bytes": f"{2 * GIB}\n",
    "cg/memory/jobs/one/memory.stat": "inactive_file 1\ntotal_inactive_file 0\n",
    "cg/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "cg/memory/memory.usage_in_bytes": "5\n",
}


@pytest.mark.parametrize(
    ("files", "available_bytes", "source"),
    [
        # What is available, and the half GiB that this process has already.
        (MACHINE, 8 * GIB + 512 * MIB, "MemAvailable of the machine"),
        # 4 GiB of the parent; of the 2 in use 1 is cache and half of the other ours.
        (MACHINE | V2, 3 * GIB + 512 * MIB, "the limit of control group /jobs/one"),
        (MACHINE | V1, GIB + 512 * MIB, "the limit of control group /jobs/one"),
        # Inside a container the path is the host's and only the root is there.
        (
            MACHINE | {"cg/memory.max": f"{GIB}\n", "cg/memory.current": "0\n"},
            GIB,
            "the limit of control group /jobs/one",
        ),
    ],
)
def test_the_lowest_limit_counts(
    tmp_path: Path, files: dict[str, str], available_bytes: int, source: str
) -> None:
    place(tmp_path, files)
    found = read_host_memory(proc=tmp_path / "proc", cgroups=tmp_path / "cg")
    assert (found.available_bytes, found.source) == (available_bytes, source)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere physical memory is asked for")
def test_f41_a_machine_that_says_nothing_is_unknown(tmp_path: Path) -> None:
    found = read_host_memory(proc=tmp_path, cgroups=tmp_path)
    assert found.available_bytes is None
    gate = judge("preflight.memory", lambda: check_memory(WORK, found))
    assert gate.verdict == "UNKNOWN"


def test_this_machine_says_what_it_has() -> None:
    found = read_device_memory("cpu")
    assert found.on_cpu
    assert found.available_bytes
    assert found.available_bytes > 100 * MIB


def test_a_device_that_is_not_there_is_unknown() -> None:
    found = read_device_memory("cuda:15")
    assert found.available_bytes is None
    assert not found.on_cpu


def test_a_run_that_does_not_fit_is_refused_before_a_model_exists(
    run_data: RunData, tmp_path: Path
) -> None:
    options = {"batch_size": 1 << 16, "seq_length": 2048, "grad_accum": 1}
    config = run_data.config(tmp_path / "run", arch="tiny", **options)
    plan = preflight(config)
    gates = {gate.id: gate for gate in plan.gates}
    assert gates["preflight.memory"].verdict == "FAIL"
    assert gates["preflight.gradients"].found == "not judged"
    assert plan.costs is not None
    assert plan.costs["memory"]["verdict"] == "FAIL"
    with pytest.raises(Refusal):
        pretrain(config)
    assert not config.run_dir.exists()
    twin = preflight(run_data.config(tmp_path / "run"))
    assert twin.may_start


def test_a_waiver_lets_a_run_go_on_that_may_not_fit(run_data: RunData, tmp_path: Path) -> None:
    waived = {"preflight.memory": "a test", "preflight.disk-space": "a test"}
    options = {"batch_size": 1 << 16, "seq_length": 2048, "grad_accum": 1}
    plan = preflight(run_data.config(tmp_path / "run", waive=waived, **options))
    gates = {gate.id: gate for gate in plan.gates}
    assert not gates["preflight.memory"].blocks
    assert gates["preflight.memory"].waiver == {"reason": "a test"}
    assert gates["preflight.disk-space"].waiver is None


_DRY_RUN = """
import resource, sys
limit = int(sys.argv[1])
import torch
with open("/proc/self/status") as status:
    held = next(int(line.split()[1]) for line in status if line.startswith("VmSize")) << 10
resource.setrlimit(resource.RLIMIT_AS, (held + limit, held + limit))
from apr.cli.main import main
main(sys.argv[2:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the proc filesystem")
@pytest.mark.parametrize(("limit", "verdict"), [(200 * MIB, "FAIL"), (4 * GIB, "PASS")])
def test_an_address_space_that_is_limited(
    run_data: RunData, tmp_path: Path, limit: int, verdict: str
) -> None:
    flags = ["plan", "--dataset", str(run_data.train), "--arch", "demo", "--batch-size", "16"]
    flags += ["--seq-length", "256", "--num-steps", "200", "--device", "cpu", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", _DRY_RUN, str(limit), *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    memory = json.loads(done.stdout)["memory"]
    assert memory["verdict"] == verdict
    assert (memory["available_source"] == "the limit of the address space (ulimit -v)") or (
        verdict == "PASS"
    )


def disk_of(run_data: RunData, run_dir: Path, **changes: Any) -> DiskEstimate:
    config = run_data.config(run_dir, **changes)
    return estimate_disk(config, preset("tiny", tokenizer_vocab_size=512), tokenizer_bytes=0)


def test_a_disk_too_small_by_a_byte(run_data: RunData, tmp_path: Path) -> None:
    estimate = disk_of(run_data, tmp_path)
    fits = check_disk(estimate, (estimate.peak_bytes + 1, tmp_path), tmp_path)
    full = check_disk(estimate, (estimate.peak_bytes, tmp_path), tmp_path)
    assert (fits.verdict, full.verdict) == ("PASS", "FAIL")
    assert "--keep" in full.fix
    assert "quota" in full.expected
    unknown = check_disk(estimate, None, tmp_path)
    assert unknown.verdict == "UNKNOWN"


def test_more_checkpoints_than_any_disk_holds(run_data: RunData, tmp_path: Path) -> None:
    many = run_data.config(tmp_path / "run", num_steps=10**9, eval_every=1, keep=10**9)
    gates = {gate.id: gate for gate in preflight(many).gates}
    assert gates["preflight.disk-space"].verdict == "FAIL"
    # Twin: the same run, keeping two of them; only its log grows.
    few = run_data.config(tmp_path / "run", num_steps=1000, eval_every=1, keep=2)
    gates = {gate.id: gate for gate in preflight(few).gates}
    assert gates["preflight.disk-space"].verdict == "PASS"
