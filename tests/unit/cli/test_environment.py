"""What apr sets in its environment, and what it takes away again for processes of others."""

import subprocess
import sys

import pytest

PROGRAM = """
import os
from apr.cli import environment
environment.set_own()
print(os.environ["OMP_WAIT_POLICY"], environment.of_strangers())
"""


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ({}, "PASSIVE {'OMP_WAIT_POLICY': None}"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE {}"),
        ({"OMP_WAIT_POLICY": "PASSIVE"}, "PASSIVE {}"),
    ],
)
def test_what_a_person_has_set_stays_for_everybody(before: dict[str, str], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": ":".join(sys.path)} | before,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == said
