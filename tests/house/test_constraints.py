"""constraints.txt pins everything that an installed apr and its tests can import, exactly."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"([A-Za-z0-9._-]+)==(\S+)")


def read_pins(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    pins = [PIN.fullmatch(line) for line in lines]
    assert None not in pins, lines[pins.index(None)]
    return {canonicalize_name(pin[1]): pin[2] for pin in pins if pin}


def closure(requirements: list[str]) -> set[str]:
    """The installed packages these requirements bring, extras included."""
    reached: set[str] = set()
    waiting = [(Requirement(text), "") for text in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        key = f"{name}[{','.join(sorted(requirement.extras))}]"
        if key in reached:
            continue
        reached |= {key, name}
        for text in metadata.requires(name) or []:
            waiting += [(Requirement(text), extra) for extra in ("", *requirement.extras)]
    return {name for name in reached if "[" not in name}


def declared() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["dependency-groups"]["dev"],
    ]


@pytest.fixture
def pinned_torch() -> None:
    pinned = read_pins((ROOT / "constraints.txt").read_text())["torch"]
    installed = metadata.version("torch")
    if Version(installed).public != Version(pinned).public:
        pytest.skip(f"this environment was built with TORCH={installed}, not with the pinned build")


@pytest.mark.usefixtures("pinned_torch")
def test_every_package_that_is_needed_is_pinned() -> None:
    pins = read_pins((ROOT / "constraints.txt").read_text())
    needed = closure(declared())
    assert len(needed) > 40
    assert needed - {*pins} == set()


@pytest.mark.usefixtures("pinned_torch")
def test_no_pin_is_left_over() -> None:
    text, marker, cuda = (
        (ROOT / "constraints.txt").read_text().partition("# Only with a CUDA build")
    )
    assert marker
    assert cuda.count("nvidia-") > 10
    assert {*read_pins(text)} - closure(declared()) == set()


def test_pins_are_exact_and_fit_every_machine() -> None:
    pins = read_pins((ROOT / "constraints.txt").read_text())
    assert pins["torch"] == "2.13.0"
    assert [name for name, version in pins.items() if Version(version).local] == []


def test_pins_satisfy_what_pyproject_declares() -> None:
    pins = read_pins((ROOT / "constraints.txt").read_text())
    requirements = [Requirement(text) for text in declared()]
    outside = [
        requirement.name
        for requirement in requirements
        if not requirement.specifier.contains(pins[canonicalize_name(requirement.name)])
    ]
    assert requirements
    assert outside == []


@pytest.mark.usefixtures("pinned_torch")
def test_another_torch_leaves_its_own_companions_free() -> None:
    """What torch requires stands below the line that the setup cuts at."""
    above, marker, below = (
        (ROOT / "constraints.txt").read_text().partition("# torch and what it brings")
    )
    assert marker
    assert closure(["torch"]) <= {*read_pins(marker + below)}
    assert not {*read_pins(above)} & {*read_pins(marker + below)}


def test_a_missing_pin_is_seen() -> None:
    pins = read_pins("# a comment\nclick==8.5.1\n")
    assert closure(["torch", "click"]) - {*pins} >= {"torch", "sympy", "mpmath"}
