"""F27: a device that was asked for is used, or the run does not start."""

import json
from pathlib import Path

import pytest
import torch
from tests.run_data import RunData

from apr.cli.main import run
from apr.jobs.pretrain import pretrain
from apr.jobs.sitting import Listener

# The first device that this machine does not have.
ABSENT = f"cuda:{torch.cuda.device_count()}"


@pytest.mark.parametrize(
    ("device", "id", "exit_code"),
    [
        (ABSENT, "config.device-unavailable", 5),
        ("cuda:15", "config.device-unavailable", 5),
        ("cuda:16", "config.device", 2),
        ("gpu", "config.device", 2),
    ],
)
def test_a_device_that_is_not_there(
    run_data: RunData,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    device: str,
    id: str,
    exit_code: int,
) -> None:
    flags = run_data.flags(tmp_path / "run")
    flags[flags.index("--device") + 1] = device
    assert run(["pretrain", *flags, "--json"]) == exit_code
    assert json.loads(capsys.readouterr().out)["refused"]["id"] == id
    assert not (tmp_path / "run").exists()


def test_the_harmless_twin_falls_back_because_it_may_and_says_so(
    run_data: RunData, tmp_path: Path
) -> None:
    heard: list[str] = []
    config = run_data.config(tmp_path / "run", device="auto", num_steps=2)
    record = pretrain(config, listener=Listener(notify=heard.append))
    where = record["environment"]["device"]
    assert where == ("cuda:0" if torch.cuda.is_available() else "cpu")
    assert any("computing on the CPU" in text for text in heard) is (where == "cpu")
