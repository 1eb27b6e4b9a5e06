"""Build `.venv`: the one environment of this checkout, from pinned packages, once.

    python tools/setup_venv.py runtime|dev

`runtime` is what the `apr` command needs, `dev` adds what the tests and checks need. The last
thing written is `.venv/apr-setup.json`, which names everything the environment was built from;
while it matches, there is nothing to do. An interrupted setup leaves no such file, and an
environment that this script began and did not finish is emptied and built again.

Only the standard library is used: this runs before anything is installed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "apr-setup.json"
UNFINISHED = VENV / "apr-setup-unfinished"
LOG = VENV / "apr-setup.log"
CONSTRAINTS = ROOT / "constraints.txt"
TORCH_SECTION = "# torch and what it brings"

# Measured on Linux x86-64 with Python 3.11 and an empty cache.
DOWNLOAD_MB = {"cpu": 224, "cuda": 2800, "dev": 100}
INSTALLED_MB = {"cpu": 1000, "dev": 450}


def main() -> None:
    """Bring `.venv` to the state asked for, or say what is missing."""
    if sys.argv[1:] not in (["runtime"], ["dev"]):
        sys.exit("usage: setup_venv.py runtime|dev")
    with CONSTRAINTS.open("r+") as lock:
        # Two makes at once take turns; the second finds nothing left to do.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        built = read_stamp(STAMP)
        wanted = wanted_stamp(built, dev=sys.argv[1] == "dev")
        if built != wanted or not PYTHON.exists():
            build(built, wanted)


def read_stamp(path: Path) -> dict[str, Any]:
    """What `.venv` was built from, or was going to be; empty when nothing was written."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def write_stamp(path: Path, stamp: dict[str, Any]) -> None:
    """Write a stamp whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(stamp, indent=1) + "\n")
    partial.replace(path)


def wanted_stamp(built: dict[str, Any], *, dev: bool) -> dict[str, Any]:
    """What `.venv` should be built from now.

    A choice made earlier (development extras, another torch, a Python) holds until it is
    made again, so that `make test` does not undo `make demo TORCH=...`.
    """
    chosen = built or read_stamp(UNFINISHED)
    project = read_project()
    parts = [project["build-system"], project["project"], project["dependency-groups"]]
    this_python = "{}.{}".format(*sys.version_info)
    return {
        "checkout": str(ROOT),
        "dev": dev or chosen.get("dev", False),
        "torch": os.environ.get("TORCH") or chosen.get("torch"),
        "python": this_python if os.environ.get("PYTHON") else built.get("python", this_python),
        "requirements": hashlib.sha256(
            json.dumps(parts, sort_keys=True).encode() + CONSTRAINTS.read_bytes()
        ).hexdigest(),
    }


def build(built: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Create or update the environment, and stamp it."""
    started_s = time.monotonic()
    announce(built, wanted)
    make_environment(built, wanted)
    install(wanted)
    write_stamp(STAMP, wanted)
    UNFINISHED.unlink(missing_ok=True)
    notice_compiler()
    say(f"ready after {time.monotonic() - started_s:.0f} s: .venv/bin/apr")


def announce(built: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Say what will happen and what it costs before anything is downloaded."""
    what = "apr and its development tools" if wanted["dev"] else "apr"
    say(f"preparing .venv for {what}, Python {wanted['python']}")
    dev = wanted["dev"]
    if built | {"dev": True} == wanted:
        say(f"download: up to {DOWNLOAD_MB['dev']} MB; on disk: {INSTALLED_MB['dev']} MB more")
        return
    download_mb = {
        build: DOWNLOAD_MB[build] + dev * DOWNLOAD_MB["dev"] for build in ("cpu", "cuda")
    }
    installed_mb = INSTALLED_MB["cpu"] + dev * INSTALLED_MB["dev"]
    say(f"download: up to {download_mb['cpu']} MB where pip finds a CPU build of torch,")
    say(f"          {download_mb['cuda'] / 1000:.1f} GB with the CUDA build")
    say(f"on disk:  {installed_mb} MB with the CPU build")
    if wanted["torch"]:
        say(f"torch: {wanted['torch']}")
    elif shutil.which("nvidia-smi") is None:
        say("torch: no NVIDIA driver here, so a CPU build is enough; to ask for one, where pip's")
        say("       package index has it: TORCH=torch==2.13.0+cpu")


def make_environment(built: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Leave a `.venv` with a working pip; one that we build is marked unfinished."""
    outdated = any(built.get(key, wanted[key]) != wanted[key] for key in ("checkout", "python"))
    if UNFINISHED.exists() or not VENV.exists() or outdated or (built and not PYTHON.exists()):
        VENV.mkdir(exist_ok=True)
        write_stamp(UNFINISHED, wanted)
        empty_environment()
        run(sys.executable, "-m", "venv", str(VENV))
    elif built:
        write_stamp(UNFINISHED, wanted)
        STAMP.unlink()
    else:
        adopt_environment(wanted)


def adopt_environment(wanted: dict[str, Any]) -> None:
    """Use a `.venv` that somebody else made, as long as it can serve."""
    version = "import sys; print('{}.{}'.format(*sys.version_info))"
    try:
        found = subprocess.run([PYTHON, "-c", version], capture_output=True, text=True).stdout
    except OSError:
        found = ""
    python = found.strip() or "no working Python"
    if python == "no working Python" or tuple(map(int, python.split("."))) < (3, 11):
        fail(f".venv was not made by this setup and holds {python}", "remove it: rm -r .venv")
    if os.environ.get("PYTHON") and python != wanted["python"]:
        fail(f".venv was not made by this setup and holds Python {python}", "leave PYTHON= out")
    wanted["python"] = python
    if subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode != 0:
        run(str(PYTHON), "-m", "ensurepip")


def empty_environment() -> None:
    """Remove everything but the mark that says this environment is unfinished."""
    for child in VENV.iterdir():
        if child == UNFINISHED:
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def install(wanted: dict[str, Any]) -> None:
    """Install the pinned packages, then apr itself, editable."""
    project = read_project()
    requirements = project["build-system"]["requires"] + project["project"]["dependencies"]
    # A megabyte without dependencies, for the commands that README shows.
    requirements += project["project"]["optional-dependencies"]["dedup"]
    if wanted["dev"]:
        requirements += project["dependency-groups"]["dev"]
    constraints = CONSTRAINTS.read_text()
    if wanted["torch"]:
        # Another torch brings its own companions in its own versions.
        requirements.append(wanted["torch"])
        constraints = constraints.partition(TORCH_SECTION)[0]
    (VENV / "constraints.txt").write_text(constraints)
    LOG.unlink(missing_ok=True)
    pip("--constraint", str(VENV / "constraints.txt"), *requirements)
    # The build requirements are installed above, pinned like everything else.
    pip("--no-build-isolation", "--no-deps", "--editable", str(ROOT))


def pip(*arguments: str) -> None:
    """Run `pip install`, showing the downloads worth waiting for and logging the rest."""
    command = [str(PYTHON), "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
    lines: list[str] = []
    with (
        LOG.open("a") as log,
        subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        ) as process,
    ):
        for line in process.stdout or ():
            log.write(line)
            lines.append(line.strip())
            show_step(lines[-1])
    if process.returncode != 0:
        print(*lines[-12:], sep="\n", file=sys.stderr)
        fail(
            f"pip could not install what apr needs (the whole log: {LOG.relative_to(ROOT)})",
            "check that pip reaches a package index (`pip config list` shows which) which has the "
            "packages named above, and that the disk has room; then run the same command again",
        )


def show_step(line: str) -> None:
    """Show the lines of pip's that are worth waiting for."""
    wheel = re.fullmatch(r"Downloading (\S+?)-(\d[^-]*)-\S+ (\(.* MB\))", line)
    if wheel:
        say("  downloading {} {} {}".format(*wheel.groups()))
    if line.startswith("Installing collected packages:") and "," in line:
        say(f"  installing {line.count(',') + 1} packages")


def notice_compiler() -> None:
    """Say when compiled CPU kernels will stay off."""
    if not any(map(shutil.which, (os.environ.get("CXX") or "g++", "clang++", "c++"))):
        say("notice: no C++ compiler, so compiled CPU kernels stay off; everything still works")
        say("        (Debian, Ubuntu: apt install g++)")


def read_project() -> dict[str, Any]:
    """What pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*command: str) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        fail(f"this command failed: {' '.join(command)}", "correct what it says above")


def say(line: str) -> None:
    """One line of progress."""
    print(f"setup: {line}", file=sys.stderr, flush=True)


def fail(found: str, fix: str) -> NoReturn:
    """End the setup with what was found and what to do."""
    sys.exit(f"setup: {found}\n  fix: {fix}")


if __name__ == "__main__":
    main()
