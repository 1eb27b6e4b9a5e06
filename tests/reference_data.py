"""Files of the optional shared data; one that changed is a failure, not a missing one."""

import hashlib
import re
from pathlib import Path

import pytest

_ROW = re.compile(r"^\| (\S+) \| ([\d,]+) \| `([0-9a-f]{64})` \|$", re.M)


def reference(shared_data: Path, name: str) -> Path:
    """The path of one file, once its hash equals the one in the folder's README."""
    readme = (shared_data / "README.md").read_text(encoding="utf-8")
    hashes = {file: sha256 for file, _, sha256 in _ROW.findall(readme)}
    found = hashlib.sha256((shared_data / name).read_bytes()).hexdigest()
    if hashes.get(name) != found:
        pytest.fail(f"{name} has sha256 {found}, the README says {hashes.get(name)}")
    return shared_data / name
