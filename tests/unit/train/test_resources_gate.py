"""What the gate on memory advises fits."""

from dataclasses import replace

from apr.architecture import preset
from apr.train.device_memory import DeviceMemory
from apr.train.memory import estimate_memory
from apr.train.resources_gate import check_memory
from apr.train.workload import Workload


def test_a_shorter_sequence_is_advised_only_where_it_helps() -> None:
    long = Workload(
        preset("demo", tokenizer_vocab_size=4096),
        batch_size=16,
        sequence_length=4096,
        grad_accum=16,
        activation_checkpointing=True,
        precision="fp32",
        compiled=False,
    )
    half = replace(long, sequence_length=2048)
    quarter = replace(long, sequence_length=1024)
    peaks = [estimate_memory(each).peak_bytes for each in (long, half, quarter)]
    assert peaks == sorted(peaks, reverse=True)
    for peak, length in zip(peaks[1:], (2048, 1024), strict=True):
        enough = int(peak / 0.95) + 2
        assert (
            f"--seq-length {length} with --grad-accum 16"
            in check_memory(long, DeviceMemory(enough, "a test")).fix
        )
    enough = int(peaks[1] / 0.95) + 2
    assert check_memory(half, DeviceMemory(enough, "a test")).verdict == "PASS"
