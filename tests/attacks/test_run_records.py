"""Damaged and hostile run directories: refused with an id, or shown without harm."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from apr.errors import DamagedFile, PathNotFound, Refusal
from apr.report.page import write_report

_MINIMAL: dict[str, Any] = {"schema": "apr-run-v1"}
_STEP = '{"kind":"step","step":%s,"loss_nats":%s}\n'


def _run(tmp_path: Path, record: bytes | dict[str, Any], steps: bytes | None = None) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    data = record if isinstance(record, bytes) else json.dumps(record).encode()
    (run / "run.json").write_bytes(data)
    if steps is not None:
        (run / "steps.jsonl").write_bytes(steps)
    return run


def _refused(run: Path, kind: type[Refusal], id: str) -> Refusal:
    before = sorted(path.name for path in run.iterdir())
    started_s = time.monotonic()
    with pytest.raises(kind) as refusal:
        write_report(run)
    assert time.monotonic() - started_s < 5
    assert refusal.value.id == id
    assert sorted(path.name for path in run.iterdir()) == before
    return refusal.value


def test_the_harmless_twin_of_all_these_has_a_page(tmp_path: Path) -> None:
    run = _run(tmp_path, _MINIMAL, (_STEP % (1, 2.5) + _STEP % (2, 2.4)).encode())
    assert write_report(run).is_file()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"schema":"apr-run-v1"',
        b'{"schema":"apr-run-v1","outcome":"target_met","outcome":"aborted"}',
        b'{"schema":"apr-run-v1","tokens_seen":NaN}',
        b'{"schema":"apr-run-v1","tokens_seen":1e999}',
        b'{"schema":"apr-run-v1","name":"\\ud800"}',
        b'{"schema":"apr-run-v1","name":"\xff"}',
        b"[]",
        b"null",
        b'"apr-run-v1"',
        b"{}",
        b'{"schema":"apr-run-v2"}',
        b'{"schema":["apr-run-v1"]}',
        b'{"schema":"apr-run-v1","config":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"schema":"apr-run-v1","config":' + b'{"a":' * 40 + b"1" + b"}" * 40 + b"}",
        b"\x00" * 4096,
        b"%PDF-1.7",
    ],
)
def test_a_damaged_record_is_refused(data: bytes, tmp_path: Path) -> None:
    assert _refused(_run(tmp_path, data), DamagedFile, "run.record-damaged").exit_code == 4


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        ({"outcome": 7}, "outcome"),
        ({"outcome": ["target_met"]}, "outcome"),
        ({"outcome_detail": {}}, "outcome_detail"),
        ({"started_at": 12}, "started_at"),
        ({"tokens_seen": "many"}, "tokens_seen"),
        ({"tokens_seen": True}, "tokens_seen"),
        ({"tokens_seen": int("9" * 400)}, "tokens_seen"),
        ({"init_loss_nats": "8.3"}, "init_loss_nats"),
        ({"config": "default"}, "config"),
        ({"config": {"target_val_loss": "low"}}, "config.target_val_loss"),
        ({"architecture": []}, "architecture"),
        ({"architecture": {"num_parameters": "2M"}}, "architecture.num_parameters"),
        ({"val": 3.4}, "val"),
        ({"val": {"best_loss_nats": [3.4]}}, "val.best_loss_nats"),
        ({"val": {"set_sha256": 5}}, "val.set_sha256"),
        ({"baselines": {"gzip_bits_per_byte": "2"}}, "baselines.gzip_bits_per_byte"),
        ({"throughput": {"tokens_per_s": {}}}, "throughput.tokens_per_s"),
        ({"gates": {}}, "gates"),
        ({"gates": ["preflight.init-loss"]}, "gates[0]"),
        ({"gates": [{"verdict": True}]}, "gates[0].verdict"),
        ({"gates": [{}, {"waiver": "because"}]}, "gates[1].waiver"),
        ({"gates": [{"waiver": {"reason": 1}}]}, "gates[0].waiver.reason"),
        ({"samples": "def f"}, "samples"),
        ({"samples": [{"text": 3}]}, "samples[0].text"),
        ({"resumes": [{"step": "ten"}]}, "resumes[0].step"),
        ({"inputs": ["train"]}, "inputs"),
        ({"environment": 3}, "environment"),
        ({"model": "model.apr"}, "model"),
    ],
)
def test_a_value_of_another_type_is_refused_where_it_stands(
    damage: dict[str, Any], where: str, tmp_path: Path
) -> None:
    run = _run(tmp_path, _MINIMAL | {"outcome": "target_met"} | damage)
    refusal = _refused(run, DamagedFile, "run.record-damaged")
    assert refusal.where == f"{run / 'run.json'}, {where}"


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"garbage\n",
        b"[]\n",
        b"7\n",
        b'{"kind":"step"}\n',
        b'{"kind":"step","step":"1"}\n',
        b'{"kind":"step","step":true}\n',
        b'{"kind":"step","step":1.0}\n',
        b'{"kind":"step","step":-1}\n',
        b'{"kind":"step","step":99999999999999999999}\n',
        b'{"kind":"step","step":' + b"9" * 5000 + b"}\n",
        b'{"kind":"step","step":3,"loss_nats":"low"}\n',
        b'{"kind":"step","step":3,"elapsed_s":[]}\n',
        b'{"kind":"step","step":3,"tokens":true}\n',
        b'{"kind":"step","step":2}\n',
        b'{"kind":"step","step":1}\n',
        b'{"kind":"val","step":null,"loss_nats":1}\n',
        b'{"kind":"val","step":3,"loss_nats":{}}\n',
        b'{"kind":"val","step":3,"set_sha256":7}\n',
        b'{"kind":"step","step":3,"loss_nats":\xff}\n',
        b"[" * 60_000 + b"\n",
        b'{"kind":"step","step":3,"note":"' + b"x" * 70_000 + b'"}\n',
        b"x" * 10_000_000,
    ],
)
def test_a_damaged_line_is_refused_by_its_number(line: bytes, tmp_path: Path) -> None:
    steps = (_STEP % (1, 2.5) + _STEP % (2, 2.4)).encode() + line
    refusal = _refused(_run(tmp_path, _MINIMAL, steps), DamagedFile, "run.steps-damaged")
    assert refusal.where.endswith("steps.jsonl, line 3")
    assert len(refusal.found) < 300


@pytest.mark.parametrize("line", [b"torn{\n", b'{"kind":"step","step":true}\n', b"\x00\x00\n"])
def test_a_damaged_line_is_found_in_front_of_good_ones(line: bytes, tmp_path: Path) -> None:
    steps = line + (_STEP % (2, 2.5)).encode()
    refusal = _refused(_run(tmp_path, _MINIMAL, steps), DamagedFile, "run.steps-damaged")
    assert refusal.where.endswith("line 1")


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    run = _run(tmp_path, _MINIMAL)
    os.mkfifo(run / "steps.jsonl")
    _refused(run, DamagedFile, "run.steps-damaged")
    (run / "run.json").unlink()
    os.mkfifo(run / "run.json")
    _refused(run, PathNotFound, "run.not-found")


def test_numbers_beyond_any_scale_are_drawn_beside_it_not_on_it(tmp_path: Path) -> None:
    values = ["1e308", "-1e308", "1e29", "-1e29", "5e-324", "0", "NaN", "Infinity", "-0.0", "3"]
    steps = "".join(_STEP % (step, value) for step, value in enumerate(values, start=1))
    record = _MINIMAL | {
        "tokens_seen": 10**300, "architecture": {"vocab_size": 10**300, "num_parameters": -1},
        "val": {"best_loss_nats": -1e308, "bits_per_byte": 1e308, "best_step": 1e308},
        "baselines": {"unigram_bits_per_byte": 1e-308, "gzip_bits_per_byte": -1.0},
        "started_at": "0001-01-01T00:00:00Z", "finished_at": "9999-12-31T23:59:59Z",
        "resumes": [{"step": 10**300, "at": "never"}],
    }  # fmt: skip
    page = write_report(_run(tmp_path, record, steps.encode())).read_text()
    assert "4 steps have no value to draw" in page
    assert "nan" not in page.split("</style>")[1].lower()


def test_the_largest_record_makes_a_page_of_bounded_size(tmp_path: Path) -> None:
    hostile = '"\x1b<\u202e' * 600
    many = {f"{hostile[:300]}{number}": hostile for number in range(200)}
    item = {"path": hostile, "sha256": hostile, **{f"{n}{hostile}": hostile for n in range(20)}}
    gate = {"id": hostile, "upstream_id": hostile, "verdict": hostile, "found": hostile,
            "expected": hostile, "waiver": {"reason": hostile}}  # fmt: skip
    record = _MINIMAL | {
        "outcome": hostile, "outcome_detail": hostile, "apr_version": hostile,
        "started_at": hostile, "finished_at": hostile, "config": many, "architecture": many,
        "environment": many, "inputs": {"train": [item] * 30}, "gates": [gate] * 200,
        "samples": [{"prompt": hostile, "text": hostile * 5, "stop": hostile}] * 50,
        "resumes": [{"at": hostile, "why": hostile}] * 200,
        "mfu_reason": hostile, **many,
    }  # fmt: skip
    steps = "".join(_STEP % (step, step % 7) for step in range(1, 5001))
    page = write_report(_run(tmp_path, record, steps.encode()))
    assert page.stat().st_size < 1_000_000
    text = page.read_text()
    assert "more characters)" in text
    assert "50 more are in the record and not listed here." in text
