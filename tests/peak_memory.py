"""How much memory a program took at most, measured inside a process of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_STATUS = Path("/proc/self/status")


def peak_kib() -> int:
    """The most this process has had; not ru_maxrss, which is inherited from its parent."""
    found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
    assert found
    return int(found[1])


def measured(program: str, *arguments: object) -> dict[str, Any]:
    """What a program prints as JSON, in a fresh process that can import `peak_kib`."""
    if not _STATUS.exists():
        pytest.skip("needs the proc filesystem of Linux")
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": ":".join([str(Path.cwd()), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)
