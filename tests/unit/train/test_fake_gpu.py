"""No tensor of a step is on the CPU by mistake, and nothing waits for the device unseen.

Walked through with shapes alone, on a GPU that is not there: what CUDA's kernels compute is not
seen here, only that they are asked for with tensors of one device, and how often they are awaited.
"""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
# The losses of all micro-batches, the norms of the gradient and of the moments, read together.
OF_A_STEP = {"train/step.py copies to the CPU": 1}


@pytest.fixture(scope="module")
def walked() -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.unit.train.walks_on_a_fake_gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_every_walk_ends_and_those_with_a_tensor_on_the_cpu_do_not(walked: dict[str, Any]) -> None:
    unfinished = {name: each["ended"] for name, each in walked.items() if each["ended"] != "done"}
    assert set(unfinished) == {"planted: a factor on the CPU", "planted: a mask on the CPU"}
    assert all("devices" in ended and "cpu" in ended for ended in unfinished.values()), unfinished
    assert len(walked) == 19


def test_a_step_waits_for_the_device_where_it_is_known_to(walked: dict[str, Any]) -> None:
    steps = {
        name: Counter(each["waits"]) for name, each in walked.items() if name.startswith("step: ")
    }
    assert len(steps) == 9
    # How many documents there are decides a shape.
    assert steps.pop("step: varlen, documents") == {**OF_A_STEP, "model/attention.py counts": 2}
    assert {name: dict(waits) for name, waits in steps.items()} == dict.fromkeys(steps, OF_A_STEP)
    planted = walked["planted: a loss that is looked at"]["waits"]
    assert Counter(planted) == {**OF_A_STEP, "train/step.py reads a number": 2}


def test_what_surrounds_a_step_waits_where_it_must(walked: dict[str, Any]) -> None:
    """A validation for each batch of rows, a snapshot for each tensor."""
    assert set(walked["validation"]["waits"]) == {"train/validation.py copies to the CPU"}
    snapshot = Counter(walked["snapshot"]["waits"])
    weights_and_moments = 20 * (1 + 3)
    assert snapshot["train/host_copies.py copies to the CPU"] == 2 * weights_and_moments
