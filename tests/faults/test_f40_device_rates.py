"""F40: rates that cannot be true, of another device, or damaged, never reach a prediction."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.device_rates import rates_record, write_rates

from apr.architecture import preset
from apr.cli.main import run
from apr.errors import Refusal
from apr.train.device_rates import read_device_rates, shipped_rates
from apr.train.devices import DEVICES

Captured = pytest.CaptureFixture[str]
QWEN = preset("qwen2-0.5b", tokenizer_vocab_size=1)


def changed(**rates: Any) -> dict[str, Any]:
    return {"rates": rates_record()["rates"] | rates}


def refusal(path: Path, *, device: str = "h200") -> Refusal:
    with pytest.raises(Refusal) as refused:
        read_device_rates(path, device=device)
    return refused.value


def test_honest_rates_are_taken(tmp_path: Path) -> None:
    found = read_device_rates(write_rates(tmp_path / "rates.json"), device="h200")
    assert found.measured("body_flops_per_s") == 6.1e14
    assert found.word("body_flops_per_s", QWEN, sequence_length=2048) == "measured"
    elsewhere = preset("llama-3.2-1b", tokenizer_vocab_size=1)
    words = {
        name: found.word(name, elsewhere, sequence_length=2048)
        for name in ("body_flops_per_s", "head_flops_per_s", "attention_forward_flops_per_s")
    }
    assert set(words.values()) == {"measured at another shape", "measured"}
    assert words["attention_forward_flops_per_s"] == "measured", "its heads are as wide"
    assert found.word("attention_forward_flops_per_s", QWEN, sequence_length=512) == (
        "measured at another shape"
    )
    assert found.word("copy_bytes_per_s", elsewhere, sequence_length=64) == "measured"


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        # As a peak that was read off another card's sheet, or a wrong formula, makes them.
        ({"matmul_ceiling_flops_per_s": 9.9e14}, "matmul_ceiling"),
        (changed(body_flops_per_s=7.91e14), "body"),
        (changed(attention_forward_flops_per_s=8.4e14), "attention_forward"),
        (changed(copy_bytes_per_s=4.81e12), "copy"),
        (changed(elementwise_bytes_per_s=1e13), "elementwise"),
        ({"device_name": "NVIDIA A100-SXM4-80GB"}, "device_name"),
        ({"device_name": "NVIDIA H200 NVL"}, "device_name"),
    ],
)
def test_what_no_such_card_does_is_refused(
    tmp_path: Path, changes: dict[str, Any], where: str
) -> None:
    found = refusal(write_rates(tmp_path / "rates.json", **changes))
    assert found.id == "rates.impossible"
    assert where in found.where


def test_the_limits_themselves_are_possible(tmp_path: Path) -> None:
    changes = {"matmul_ceiling_flops_per_s": 9.89e14} | changed(
        body_flops_per_s=9.89e14, copy_bytes_per_s=4.8e12
    )
    read_device_rates(write_rates(tmp_path / "rates.json", **changes), device="h200")


@pytest.mark.parametrize(
    "changes",
    [
        changed(body_flops_per_s=-6.1e14),
        changed(body_flops_per_s=0.0),
        changed(body_flops_per_s=1e19),
        changed(body_flops_per_s="6.1e14"),
        changed(body_flops_per_s=True),
        changed(body_flops_per_s=[6.1e14]),
        # Null without a reason, a reason without a null, nothing measured at all.
        changed(body_flops_per_s=None),
        {"missing": {"body_flops_per_s": "a reason"}},
        {
            "rates": dict.fromkeys(rates_record()["rates"]),
            "missing": dict.fromkeys(rates_record()["rates"], "out of time"),
        },
        {"missing": {"another_rate": "a reason"}},
        {"rates": {}},
        {"unknown": 1},
        changed(unknown=1.0),
        {"schema": "apr-device-rates-v2"},
        {"device": ""},
        {"device": 5},
        {"device_name": "x" * 201},
        {"measured_at": "yesterday"},
        {"software": {f"library {number}": "1" for number in range(21)}},
        {"shape": rates_record()["shape"] | {"hidden_size": 0}},
        {"shape": rates_record()["shape"] | {"hidden_size": 1 << 40}},
        {"shape": rates_record()["shape"] | {"hidden_size": 896.0}},
        {"matmul_ceiling_flops_per_s": None},
    ],
)
def test_another_form_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert refusal(write_rates(tmp_path / "rates.json", **changes)).id == "rates.damaged"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "NaN",
        json.dumps(rates_record()).replace("610000000000000.0", "NaN"),
        json.dumps(rates_record()).replace("610000000000000.0", "Infinity"),
        json.dumps(rates_record()).replace("610000000000000.0", "1e999"),
        json.dumps(rates_record()).replace('"missing"', '"device": "a100", "missing"'),
        json.dumps(rates_record()) + " " * (1 << 16),
        "[" * 60_000,
        '{"schema": "\\ud800"}',
    ],
)
def test_no_strict_json_of_that_size(tmp_path: Path, text: str) -> None:
    assert json.dumps(rates_record()).count("610000000000000.0") == 1
    path = tmp_path / "rates.json"
    path.write_text(text, encoding="utf-8")
    assert refusal(path).id == "rates.damaged"


def test_bytes_a_directory_and_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rates.json"
    path.write_bytes(b"\xff\xfe")
    assert refusal(path).id == "rates.damaged"
    assert refusal(tmp_path / "none.json").id.startswith("files.")
    assert refusal(tmp_path).id == "rates.damaged"


def test_rates_of_another_device(tmp_path: Path) -> None:
    found = refusal(write_rates(tmp_path / "rates.json"), device="a100")
    assert found.id == "rates.other-device"
    assert "--device h200" in found.fix


def test_nothing_was_measured_that_could_be_shipped(tmp_path: Path) -> None:
    assert [name for name, device in DEVICES.items() if shipped_rates(device)] == []
    write_rates(tmp_path / "h200.json")
    found = shipped_rates(DEVICES["h200"], directory=tmp_path)
    assert found is not None
    assert found.measured("head_flops_per_s") == 7.1e14
    assert shipped_rates(DEVICES["a100"], directory=tmp_path) is None


def plan_of(capsys: Captured, *words: object, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    shape = ("--arch", "qwen2-0.5b", "--seq-length", 2048, "--batch-size", 256, "--grad-accum", 8)
    found = run(["plan", "--json", *map(str, (*shape, *words))])
    captured = capsys.readouterr()
    assert found == code, captured.err
    return json.loads(captured.out)


def test_measured_rates_replace_assumed_ones(tmp_path: Path, capsys: Captured) -> None:
    path = write_rates(tmp_path / "rates.json")
    assumed = plan_of(capsys, "--device", "h200")["roofline"]
    assert {each["word"] for each in assumed["rates"].values()} == {"assumed"}
    assert list(assumed["tokens_per_s"]) == ["conservative", "expected", "best"]
    measured = plan_of(capsys, "--device", "h200", "--rates", path)["roofline"]
    assert {each["word"] for each in measured["rates"].values()} == {"measured"}
    assert list(measured["tokens_per_s"]) == ["measured"]
    body_us = 6e6 * 357_826_560 / 6.1e14
    assert measured["us_per_token"]["measured"]["body matrices"] == pytest.approx(body_us)
    assert measured["mfu_of_measured_ceiling"]["ceiling_flops_per_s"] == 7.9e14
    write_rates(
        path,
        **changed(elementwise_bytes_per_s=None),
        missing={"elementwise_bytes_per_s": "no compiler"},
    )
    half = plan_of(capsys, "--device", "h200", "--rates", path)["roofline"]
    assert half["rates"]["elementwise_bytes_per_s"]["word"] == "assumed"
    assert half["rates"]["body_flops_per_s"]["word"] == "measured"
    best, expected = (half["us_per_token"][column] for column in ("best", "expected"))
    assert best["elementwise"] < expected["elementwise"]
    assert best["body matrices"] == expected["body matrices"] == pytest.approx(body_us)


@pytest.mark.parametrize(
    ("words", "id", "code"),
    [
        (("--device", "h20"), "device.unknown", 2),
        (("--device", "H200"), "device.unknown", 2),
        (("--device", "h200", "--measure"), "device.not-here", 2),
        (("--device", "a100", "--rates", "RATES"), "rates.other-device", 2),
        (("--device", "cpu", "--rates", "RATES"), "rates.other-device", 2),
        (("--device", "cuda", "--rates", "RATES"), "rates.without-device", 2),
        (("--rates", "RATES"), "rates.without-device", 2),
    ],
)
def test_what_a_plan_refuses(
    tmp_path: Path, capsys: Captured, words: tuple[str, ...], id: str, code: int
) -> None:
    path = write_rates(tmp_path / "rates.json")
    given = (path if word == "RATES" else word for word in words)
    assert plan_of(capsys, *given, code=code)["refused"]["id"] == id


def test_a_speed_beyond_the_ceiling_is_no_speed(capsys: Captured) -> None:
    """The reference: no run exceeds all products at the measured ceiling, 243k tokens/s here."""
    possible = plan_of(capsys, "--device", "h200", "--tokens-per-s", 141_000)["roofline"]["against"]
    assert possible["share_of_predicted"] == pytest.approx(141 / 149.4, abs=0.001)
    beyond = plan_of(capsys, "--device", "h200", "--tokens-per-s", 244_000)["roofline"]["against"]
    assert beyond["share_of_predicted"] is None
    assert "impossible" in beyond["share_of_predicted_reason"]


def test_a_processor_has_only_what_was_measured_on_it(tmp_path: Path, capsys: Captured) -> None:
    def scaled(change: Callable[[float], float]) -> dict[str, Any]:
        rates = rates_record()["rates"]
        return {"rates": {name: change(rate) for name, rate in rates.items()}}

    path = write_rates(
        tmp_path / "rates.json",
        device="cpu",
        device_name="AMD EPYC",
        matmul_ceiling_flops_per_s=7.9e11,
        **scaled(lambda rate: rate / 1e3),
    )
    alone = plan_of(capsys, "--device", "cpu")
    assert alone["roofline"] is None
    assert alone["roofline_reason"]
    assert alone["time"]["hours"] is None
    found = plan_of(capsys, "--device", "cpu", "--rates", path)
    assert list(found["roofline"]["tokens_per_s"]) == ["measured"]
    assert found["roofline"]["mfu"]["ceiling_flops_per_s"] is None
    assert found["time"]["hours"] > 0
    write_rates(
        path,
        **{"device": "cpu", "device_name": "AMD EPYC", "matmul_ceiling_flops_per_s": 7.9e14},
        **changed(head_flops_per_s=None),
        missing={"head_flops_per_s": "out of time"},
    )
    lacking = plan_of(capsys, "--device", "cpu", "--rates", path)
    assert lacking["roofline"] is None
    assert "head_flops_per_s" in lacking["roofline_reason"]


def test_the_memory_of_a_card_that_is_not_here(capsys: Captured) -> None:
    memory = plan_of(capsys, "--device", "h200")["memory"]
    assert memory["available_bytes"] == 139 << 30
    assert "h200" in memory["available_source"]
    # Its host is not here either; what a checkpoint's copy takes there is known.
    assert memory["host"]["available_bytes"] is None
    assert memory["host"]["peak_bytes"] > 12 * 494_032_768
    assert run(["plan", "--arch", "qwen2-0.5b", "--device", "h200"]) == 0
    said = capsys.readouterr().out
    assert "beside the device; unknown what is available: it is not here" in said
    assert "checkpoint snapshot" in said
    assert plan_of(capsys, "--device", "cpu")["memory"]["host"] is None
    assert plan_of(capsys, "--device", "rtx4090")["memory"]["verdict"] == "FAIL"


def test_plain_fp32_has_no_rates(capsys: Captured) -> None:
    facts = plan_of(capsys, "--device", "h200", "--precision", "fp32")
    assert facts["roofline"] is None
    assert "bf16" in facts["roofline_reason"]


def test_the_page_of_performance_shows_what_a_plan_prints(capsys: Captured) -> None:
    page = (Path(__file__).parents[2] / "docs" / "performance.md").read_text(encoding="utf-8")
    command = re.search(r"^apr (plan --device h200 .*)$", page, re.MULTILINE)
    table = re.search(r"^roofline .*?(?=^```)", page, re.MULTILINE | re.DOTALL)
    assert command
    assert table
    assert run(command[1].split()) == 0
    printed = capsys.readouterr().out
    assert table[0] in printed
    others = re.findall(r"^\| ([\w.-]+) \| ([\d,]+) \| ([\d.]+) % \|$", page, re.MULTILINE)
    assert len(others) == 4
    for name, tokens_per_s, percent in others:
        arch = {"Qwen2.5-3B": None}.get(name, name.lower().replace("qwen2.5", "qwen2"))
        if arch is None:
            continue
        assert run(["plan", "--json", "--device", "h200", "--arch", arch, "--seq-length", "4096",
                    "--batch-size", "128", "--grad-accum", "8"]) == 0  # fmt: skip
        found = json.loads(capsys.readouterr().out)["roofline"]
        assert round(found["tokens_per_s"]["expected"], -2) == int(tokens_per_s.replace(",", ""))
        assert f"{found['mfu']['conventional']['expected']:.1%}" == f"{percent}%"
