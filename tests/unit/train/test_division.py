"""What fits decides how a batch is divided, and only then what is computed twice."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.run_data import RunData
from tests.unit.train.selftest.planted import config

from apr.architecture import preset
from apr.train.device_memory import USABLE, DeviceMemory
from apr.train.division import choose_division, divided
from apr.train.memory import estimate_memory
from apr.train.workload import Workload

SHAPE = preset("demo", tokenizer_vocab_size=4096)
DEEP = replace(SHAPE, num_hidden_layers=32)
WORK = Workload(DEEP, batch_size=12, sequence_length=512, precision="fp32", compiled=False)


def peak(work: Workload) -> int:
    return estimate_memory(work).peak_bytes


def holding(work: Workload, *, on_cpu: bool = True) -> DeviceMemory:
    """A device that holds this work, and nothing larger."""
    return DeviceMemory(int((peak(work) + 4) / USABLE) + 1, "a test", on_cpu=on_cpu)


def chosen(work: Workload, device: DeviceMemory, **asked: Any) -> tuple[int, bool]:
    found = choose_division(work, device, **asked)
    return found.grad_accum, found.activation_checkpointing


@pytest.mark.parametrize("grad_accum", [1, 2, 3, 4, 6, 12])
def test_as_few_micro_batches_as_fit(grad_accum: int) -> None:
    device = holding(replace(WORK, grad_accum=grad_accum))
    assert chosen(WORK, device) == (grad_accum, False)


def test_activations_are_computed_twice_only_where_single_sequences_do_not_fit() -> None:
    alone = replace(WORK, grad_accum=12)
    less = replace(alone, activation_checkpointing=True)
    assert peak(less) < peak(alone)
    assert chosen(WORK, holding(alone)) == (12, False)
    assert chosen(WORK, holding(less)) == (12, True)
    # As few as fit holds then, too.
    between = replace(less, grad_accum=6)
    assert peak(between) < peak(alone)
    assert chosen(WORK, holding(between)) == (6, True)


def test_what_was_asked_for_is_kept() -> None:
    whole = holding(WORK)
    less = holding(replace(WORK, grad_accum=12, activation_checkpointing=True))
    assert chosen(WORK, whole, activation_checkpointing=True) == (1, True)
    # It does not fit, and the gate will say so.
    assert chosen(WORK, less, activation_checkpointing=False) == (12, False)


def test_where_nothing_fits_as_little_as_possible_is_taken() -> None:
    assert chosen(WORK, DeviceMemory(1, "a test")) == (12, True)


def test_memory_that_cannot_be_read_divides_nothing() -> None:
    assert chosen(WORK, DeviceMemory(None, "a test")) == (1, False)


def test_a_gpu_gets_at_most_65536_tokens_at_once() -> None:
    endless = DeviceMemory(1 << 60, "a test", on_cpu=False)
    many = replace(WORK, batch_size=256, on_cpu=False)
    assert chosen(many, endless) == (2, False)
    assert chosen(replace(many, batch_size=128), endless) == (1, False)
    assert chosen(many, replace(endless, on_cpu=True)) == (1, False)
    # A sequence is never cut.
    long = replace(many, batch_size=3, sequence_length=1 << 17)
    assert chosen(long, endless) == (3, False)
    assert chosen(many, DeviceMemory(None, "a test", on_cpu=False)) == (2, False)


def test_a_batch_of_many_sequences_is_divided_at_once() -> None:
    huge = replace(WORK, batch_size=1 << 40, sequence_length=1)
    assert chosen(huge, DeviceMemory(1 << 33, "a test"))[0] > 1


def test_ranks_of_one_machine_share_its_memory_and_not_its_cards() -> None:
    half = DeviceMemory(1 << 30, "a test").shared_by(2)
    assert (half.available_bytes, half.source) == (1 << 29, "a test, a share of 2")
    a_card = DeviceMemory(1 << 30, "a test", on_cpu=False)
    assert a_card.shared_by(2) is a_card


def test_a_person_is_told_when_memory_decided() -> None:
    said: list[str] = []
    plain = divided(config(batch_size=4, seq_length=64, device="cpu"), SHAPE, notify=said.append)
    assert (plain.grad_accum, plain.activation_checkpointing, said) == (1, False, [])
    asked = config(batch_size=1 << 16, seq_length=2048, device="cpu")
    found = divided(asked, SHAPE, notify=said.append)
    assert found.num_micro_batches > 1
    assert f"{found.grad_accum} micro-batches" in said[0]
    # Chosen once: a resume finds the number, whatever the memory is then.
    assert divided(found, SHAPE, notify=said.append) is found
    assert len(said) == 1


_LIMITED = """
import resource, sys
import torch
with open("/proc/self/status") as status:
    held = next(int(line.split()[1]) for line in status if line.startswith("VmSize")) << 10
resource.setrlimit(resource.RLIMIT_AS, (held + int(sys.argv[1]), held + int(sys.argv[1])))
from apr.cli.main import main
main(sys.argv[2:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the proc filesystem")
def test_a_run_in_little_memory_divides_its_batch_and_records_it(
    run_data: RunData, tmp_path: Path
) -> None:
    shape = preset("tiny", tokenizer_vocab_size=512)
    work = Workload(shape, batch_size=256, sequence_length=256, precision="fp32", compiled=False)
    work = replace(work, attention="pieces")
    limit = peak(replace(work, grad_accum=4, num_documents=1000))
    sizes = {"--batch-size": "256", "--seq-length": "256", "--num-steps": "2", "--eval-every": "2"}
    flags = run_data.flags(tmp_path / "run")
    for flag, value in sizes.items():
        flags[flags.index(flag) + 1] = value
    done = subprocess.run(
        [sys.executable, "-c", _LIMITED, str(limit), "pretrain", *flags, "--dry-run", "--json"],
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    answer = json.loads(done.stdout)
    assert answer["memory"]["verdict"] == "PASS", done.stderr
    assert answer["config"]["grad_accum"] == answer["grad_accum"] > 1
    assert "micro-batches" in done.stderr
