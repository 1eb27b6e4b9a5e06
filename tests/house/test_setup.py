"""The setup says which package is missing, and never starts without a Python that can do it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The setup alone, in a folder whose name has a space."""
    copy = tmp_path / "a checkout"
    shutil.copytree(ROOT / "tools", copy / "tools")
    (copy / "bin").mkdir()
    for name in ("sh", "cat", "dirname"):
        (copy / "bin" / name).symlink_to(shutil.which(name) or pytest.fail(f"{name} is not here"))
    return copy


def plant_python(checkout: Path, name: str, version: tuple[int, int], *, has_venv: bool) -> None:
    """A stand-in interpreter that answers only the setup's questions."""
    (checkout / "bin" / name).write_text(
        "#!/bin/sh\n"
        'case "$2" in\n'
        f"  *ensurepip*) exit {0 if has_venv else 1} ;;\n"
        f"  *print*) echo {version[0]}.{version[1]} ;;\n"
        f"  *version_info*) exit {1 if version < (3, 11) else 0} ;;\n"
        '  *) echo "$0 $*" ;;\n'
        "esac\n"
    )
    (checkout / "bin" / name).chmod(0o755)


def set_up(checkout: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["tools/setup.sh", "runtime"],
        cwd=checkout,
        env={"PATH": str(checkout / "bin"), **variables},
        capture_output=True,
        text=True,
    )


def test_without_python_the_packages_are_named(checkout: Path) -> None:
    done = set_up(checkout)
    assert done.returncode == 1
    assert "python3 is not there" in done.stderr
    assert "apt install python3 python3-venv" in done.stderr


def test_an_old_python_is_named_with_its_version(checkout: Path) -> None:
    plant_python(checkout, "python3", (3, 9), has_venv=True)
    done = set_up(checkout)
    assert done.returncode == 1
    assert "python3 is 3.9" in done.stderr


def test_a_python_without_venv_names_the_package_of_its_version(checkout: Path) -> None:
    plant_python(checkout, "python3", (3, 12), has_venv=False)
    done = set_up(checkout)
    assert done.returncode == 1
    assert "apt install python3.12-venv" in done.stderr


def test_a_complete_python_is_preferred_to_one_without_venv(checkout: Path) -> None:
    plant_python(checkout, "python3.11", (3, 11), has_venv=False)
    plant_python(checkout, "python3", (3, 13), has_venv=True)
    done = set_up(checkout)
    assert done.returncode == 0
    assert done.stdout.endswith("bin/python3 tools/setup_venv.py runtime\n")


def test_the_python_asked_for_is_the_only_one_tried(checkout: Path) -> None:
    plant_python(checkout, "python3.11", (3, 11), has_venv=True)
    plant_python(checkout, "old", (3, 10), has_venv=True)
    done = set_up(checkout, PYTHON=str(checkout / "bin" / "old"))
    assert done.returncode == 1
    assert "old is 3.10" in done.stderr


def test_an_environment_that_is_up_to_date_is_left_alone(checkout: Path) -> None:
    """The stamp alone decides: no pip, no network, nothing printed."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, checkout / name)
    program = (
        "import setup_venv as s, sys; s.VENV.mkdir(); (s.VENV / 'bin').mkdir();"
        "s.PYTHON.symlink_to(sys.executable);"
        "s.write_stamp(s.STAMP, s.wanted_stamp({}, dev=True)); sys.argv[1:] = ['dev']; s.main();"
        "sys.argv[1:] = ['runtime']; s.main();"
        "(s.ROOT / 'constraints.txt').write_text('');"
        "s.build = lambda built, wanted: print('would build'); s.main()"
    )
    environment = {
        key: value for key, value in os.environ.items() if key not in ("TORCH", "PYTHON")
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment | {"PYTHONPATH": str(checkout / "tools")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "would build\n"
