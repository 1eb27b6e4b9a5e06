"""`apr plan`: golden numbers, what each option changes, what is refused, and nothing written."""

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.container_models import model_file
from tests.run_data import RunData

from apr.cli.main import run
from apr.jobs.pretrain import preflight, pretrain

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def trained(run_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("trained") / "run"
    pretrain(run_data.config(run_dir))
    return run_dir


def planned(capsys: Captured, *words: object, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    found = run(["plan", "--device", "cpu", "--json", *map(str, words)])
    captured = capsys.readouterr()
    assert found == code, captured.err
    return json.loads(captured.out)


QWEN = ("--arch", "qwen2-0.5b", "--batch-size", 16, "--seq-length", 512)


def test_golden_numbers_of_half_a_billion_parameters(capsys: Captured) -> None:
    facts = planned(capsys, *QWEN, "--num-steps", 5000, "--tokens-per-s", 12880)
    assert facts["num_parameters"] == 494_032_768
    assert facts["num_matmul_parameters"] == 357_826_560 + 136_134_656
    assert facts["planned_tokens"] == 5000 * 16 * 512
    # The Rust tools' reproducer of an under-provisioned run.
    assert round(facts["tokens_per_parameter"], 3) == 0.083
    assert facts["zone"] == "degeneration"
    assert facts["token_budget"] == {
        "tokens_per_parameter_needed": 20.0,
        "seen_tokens": 0,
        "is_met": False,
        "tokens_needed": 9_880_655_360,
        "num_steps_needed": 1_206_135,
        "largest_sufficient_preset": None,
        "largest_sufficient_preset_reason": "40960000 tokens suffice for 2048000 parameters",
    }
    # 6 per parameter of a matrix and 12, or 6, for attention: 24 layers, 896 wide, 512 positions.
    assert facts["flops"]["per_token_conventional"] == 6 * 493_961_216 + 12 * 24 * 896 * 512
    assert facts["flops"]["total_causal"] == 40_960_000 * (6 * 493_961_216 + 6 * 24 * 896 * 512)
    assert facts["time"]["hours"] == pytest.approx(40_960_000 / 12880 / 3600)


def test_what_satisfies_the_budget_satisfies_it(capsys: Captured) -> None:
    enough = planned(capsys, *QWEN, "--num-steps", 1_206_135)
    assert enough["token_budget"]["is_met"]
    assert enough["token_budget"]["largest_sufficient_preset"] == "qwen2-0.5b"
    assert enough["zone"] == "optimal"
    too_few = planned(capsys, *QWEN, "--num-steps", 1_206_134)
    assert not too_few["token_budget"]["is_met"]
    by_tokens = planned(capsys, *QWEN, "--tokens", 9_880_655_360)
    assert by_tokens["num_steps"] == 1_206_135


def test_repeated_tokens_are_called_out(run_data: RunData, capsys: Captured) -> None:
    tiny = ("--arch", "tiny", "--dataset", run_data.train, "--batch-size", 8, "--seq-length", 128)
    once = planned(capsys, *tiny, "--num-steps", 100)
    assert once["repetition"] is None
    assert once["effective_tokens"] == once["planned_tokens"] == 102_400
    often = planned(capsys, *tiny, "--num-steps", 10_000)
    assert often["epochs_over_data"] == 10_240_000 / often["unique_tokens"] > 4
    assert "epochs" in often["repetition"]
    assert often["effective_tokens"] < often["planned_tokens"]
    twice = planned(capsys, *tiny, "--num-steps", 100, "--dataset", run_data.val)
    assert twice["unique_tokens"] > once["unique_tokens"]
    laws = [law["for_tokens"] for law in often["expected_loss"]]
    assert laws == [often["effective_tokens"]] * 2


def test_what_is_not_known_is_null_with_a_reason(capsys: Captured) -> None:
    facts = planned(capsys, *QWEN, "--num-steps", 1000)
    for place, name in (
        (facts, "unique_tokens"),
        (facts, "epochs_over_data"),
        (facts, "effective_tokens"),
        (facts["time"], "tokens_per_s"),
        (facts["time"], "hours"),
    ):
        assert place[name] is None
        assert place[f"{name}_reason"]
    assert facts["config"]["dataset"] is None
    assert facts["config"]["run_dir"] is None


def test_losses_outside_of_the_fit_are_marked(capsys: Captured) -> None:
    inside = planned(capsys, *QWEN, "--tokens", 10_000_000_000)["expected_loss"]
    assert [law["outside_of_the_fit"] for law in inside] == [[], []]
    assert all(2 < law["loss_nats"] < 3.5 and law["validity"] for law in inside)
    outside = planned(capsys, *QWEN, "--num-steps", 1000)["expected_loss"]
    assert [len(law["outside_of_the_fit"]) for law in outside] == [1, 1]


def test_a_tiny_model_is_promised_no_loss(capsys: Captured) -> None:
    tiny = ("--arch", "tiny", "--vocab-size", 1024, "--num-steps", 60)
    for law in planned(capsys, *tiny)["expected_loss"]:
        assert law["loss_nats"] is None
        assert "70M to 16B parameters, not of" in law["loss_nats_reason"]
    assert run(["plan", "--device", "cpu", *map(str, tiny)]) == 0
    assert "  unknown  Hoffmann et al. 2022" in capsys.readouterr().out
    few = planned(capsys, *QWEN, "--tokens", 100_000)["expected_loss"]
    assert all("nats of guessing among 151,936" in law["loss_nats_reason"] for law in few)


def test_a_container_gives_its_shape(trained: Path, capsys: Captured) -> None:
    model = trained / "model.apr"
    facts = planned(capsys, "--init", model, "--num-steps", 1000)
    inspected = json.loads((trained / "run.json").read_text())["architecture"]
    assert facts["num_parameters"] == inspected["num_parameters"]
    assert facts["source"] == str(model)
    for law in facts["expected_loss"]:
        assert law["loss_nats"] is None
        assert law["loss_nats_reason"]
    # What its own run trained counts towards the budget; a stamp may say more.
    parameters, seen = inspected["num_parameters"], facts["token_budget"]["seen_tokens"]
    assert seen == json.loads((trained / "run.json").read_text())["tokens_seen"]
    assert facts["token_budget"]["tokens_needed"] == 20 * parameters - seen
    assert facts["tokens_per_parameter"] == (seen + facts["planned_tokens"]) / parameters


def test_a_container_that_does_not_say_what_it_has_seen(tmp_path: Path, capsys: Captured) -> None:
    facts = planned(capsys, "--init", model_file().write(tmp_path / "x.apr"), "--seq-length", 16)
    assert facts["token_budget"]["is_met"] is None
    assert facts["zone"] is None
    assert facts["tokens_per_parameter_reason"]
    assert "--pretraining-tokens" in facts["token_budget"]["is_met_reason"]


def test_the_throughput_of_an_earlier_run(trained: Path, capsys: Captured) -> None:
    tiny = ("--arch", "tiny", "--vocab-size", 512, "--like", trained)
    record = json.loads((trained / "run.json").read_text())
    same = planned(capsys, *tiny, "--seq-length", 32)["time"]
    assert same["tokens_per_s"] == record["throughput"]["tokens_per_s_end_to_end"]
    other = planned(capsys, *tiny, "--seq-length", 64)["time"]
    assert other["tokens_per_s"] is None
    assert "sequence length 32" in other["tokens_per_s_reason"]


@pytest.mark.parametrize("tokens_per_s", [5e-324, 1e308, 0, True, "9", None])
def test_a_throughput_that_no_machine_has_is_none(
    trained: Path, tmp_path: Path, capsys: Captured, tokens_per_s: object
) -> None:
    record = json.loads((trained / "run.json").read_text())
    record["throughput"]["tokens_per_s_end_to_end"] = tokens_per_s
    (tmp_path / "run.json").write_text(json.dumps(record))
    words = ["--arch", "tiny", "--vocab-size", 512, "--seq-length", 32, "--like", tmp_path]
    time = planned(capsys, *words)["time"]
    assert time["tokens_per_s"] is None
    assert "no tokens per second that a machine has" in time["hours_reason"]
    assert run(["plan", "--device", "cpu", *map(str, words)]) == 0


def test_a_throughput_measured_here(capsys: Captured) -> None:
    tiny = ("--arch", "tiny", "--vocab-size", 512, "--batch-size", 2, "--seq-length", 32)
    measured = planned(capsys, *tiny, "--measure")["time"]
    assert measured["tokens_per_s"] > 0
    assert "measured just now" in measured["tokens_per_s_source"]
    never = planned(capsys, *QWEN, "--num-steps", 1000, "--batch-size", 4096, "--measure")["time"]
    assert never["tokens_per_s"] is None
    assert never["tokens_per_s_reason"].startswith("not measured")


def test_a_step_that_takes_too_long_is_not_tried(capsys: Captured) -> None:
    flags = ("--arch", "demo", "--vocab-size", 512, "--seq-length", 128, "--batch-size", 60_000)
    time = planned(capsys, *flags, "--grad-accum", 60_000, "--measure")["time"]
    assert time["tokens_per_s"] is None
    assert "one step would take" in time["tokens_per_s_reason"]


BASE = ("--arch", "tiny", "--vocab-size", 512, "--num-steps", 2000)


@pytest.mark.parametrize(
    "change",
    [
        ("--arch", "demo"),
        ("--vocab-size", 600),
        ("--num-steps", 3000),
        ("--batch-size", 32),
        ("--seq-length", 64),
        ("--grad-accum", 2),
        ("--activation-checkpointing",),
        ("--optimizer", "muon"),
        ("--eval-every", 1000),
        ("--keep", 5),
        ("--precision", "bf16"),
        ("--compile",),
        ("--tokens-per-s", 5),
        ("--run-dir", "/"),
    ],
)
def test_f24_every_option_changes_the_plan(capsys: Captured, change: tuple[object, ...]) -> None:
    def without_config(*words: object) -> dict[str, Any]:
        facts = planned(capsys, *BASE, *words)
        for place in (facts["memory"], facts["disk"]):
            place.pop("available_bytes", None)
            place.pop("free_bytes", None)
        return {key: value for key, value in facts.items() if key != "config"}

    assert without_config() == without_config()
    assert without_config(*change) != without_config()


@pytest.mark.parametrize(
    ("words", "id", "code"),
    [
        (("--arch", "gpt-9"), "config.unknown-preset", 2),
        (("--arch", "tiny"), "config.vocab-size-unknown", 2),
        ((*BASE, "--batch-size", 0), "config.invalid", 2),
        ((*BASE, "--grad-accum", 3), "config.batch-not-divisible", 2),
        ((*BASE, "--seq-length", 4096), "config.sequence-too-long", 2),
        ((*BASE, "--eval-every", 3000), "config.eval-longer-than-run", 2),
        (("--init", "nothing.apr"), "files.not-found", 3),
        (("--init", __file__), "container.not-apr", 4),
        ((*BASE, "--dataset", "nowhere"), "files.not-found", 3),
        ((*BASE, "--like", "nowhere"), "run.not-found", 3),
        ((*BASE, "--tokens", 5), "usage", 2),
        (("--arch", "tiny", "--vocab-size", 512, "--tokens", 10**18), "config.invalid", 2),
        (("--arch", "tiny", "--vocab-size", 10**13), "config.invalid", 2),
        ((*BASE, "--batch-size", 10**13), "config.invalid", 2),
        ((*BASE, "--optimizer", "muon", "--mode", "finetune"), "config.init-missing", 2),
        ((*BASE, "--dataset", __file__), "shards.not-a-directory", 4),
        ((*BASE, "--val-shard", __file__), "shards.not-a-directory", 4),
        ((*BASE, "--tokenizer", __file__), "tokenizer.damaged", 4),
        (("--config", __file__), "config.not-toml", 4),
        ((*BASE, "--device", "cuda:99"), "device.unknown", 2),
        ((*BASE, "--init", __file__), "usage", 2),
        ((*BASE, "--measure", "--tokens-per-s", 5), "usage", 2),
        ((*BASE, "--tokens-per-s", "nan"), "usage", 2),
    ],
)
def test_what_cannot_be_planned_is_refused(
    capsys: Captured, words: tuple[object, ...], id: str, code: int
) -> None:
    assert planned(capsys, *words, code=code)["refused"]["id"] == id


def test_the_largest_number_of_tokens_has_a_plan(capsys: Captured) -> None:
    base = ("--arch", "tiny", "--vocab-size", 512, "--batch-size", 1 << 20)
    facts = planned(capsys, *base, "--tokens", 10**18)
    assert facts["num_steps"] == -(-(10**18) // ((1 << 20) * 1024))


def test_the_mode_decides_which_optimizer_may_go_on(trained: Path, capsys: Captured) -> None:
    muon = ("--init", trained / "model.apr", "--seq-length", 32, "--optimizer", "muon")
    refused = planned(capsys, *muon, code=2)["refused"]
    assert refused["id"] == "config.muon-finetune"
    config = planned(capsys, *muon, "--mode", "from-scratch")["config"]
    assert (config["mode"], config["optimizer"]) == ("from-scratch", "muon")


def test_a_damaged_manifest_is_refused(run_data: RunData, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "manifest.json").write_bytes((run_data.train / "manifest.json").read_bytes()[:-9])
    refused = planned(capsys, *BASE, "--dataset", tmp_path, code=4)["refused"]
    assert refused["id"] == "shards.manifest-damaged"


def test_a_run_file_is_planned_as_it_would_run(
    run_data: RunData, tmp_path: Path, capsys: Captured
) -> None:
    run_file = tmp_path / "run.toml"
    run_file.write_text(
        f'dataset = "{run_data.train}"\ntokenizer = "{run_data.tokenizer}"\nrun_dir = "r"\n'
        'arch = "tiny"\nnum_steps = 300\n'
    )
    facts = planned(capsys, "--config", run_file)
    assert facts["num_steps"] == 300
    assert facts["unique_tokens"] > 0
    assert planned(capsys, "--config", run_file, "--num-steps", 400)["num_steps"] == 400


def test_nothing_is_written_and_torch_stays_away(
    run_data: RunData, trained: Path, tmp_path: Path
) -> None:
    program = (
        "import sys; from apr.cli.main import run\n"
        "code = run(sys.argv[1:])\n"
        "assert 'torch' not in sys.modules\n"
        "sys.exit(code)"
    )

    def said(*words: object) -> str:
        done = subprocess.run(
            [sys.executable, "-c", program, "plan", "--device", "cpu", *map(str, words)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert list(tmp_path.iterdir()) == []
        return done.stdout

    assert "494,032,768" in said(*QWEN, "--num-steps", "1000")
    data = ["--dataset", run_data.train, "--val-shard", run_data.val]
    data += ["--tokenizer", run_data.tokenizer, "--init", trained / "model.apr"]
    steps = ["--num-steps", 8, "--batch-size", 4, "--seq-length", 32, "--run-dir", "run"]
    assert "next:\n" in said(*data, *steps)


def test_the_next_command_can_be_pasted(
    run_data: RunData, tmp_path: Path, capsys: Captured
) -> None:
    words = ["--dataset", run_data.train, "--tokenizer", run_data.tokenizer, "--arch", "tiny"]
    words += ["--run-dir", tmp_path / "run", "--num-steps", 20, "--eval-every", 10]
    words += ["--batch-size", 4, "--seq-length", 32, "--precision", "fp32", "--no-compile"]
    assert run(["plan", "--device", "cpu", *map(str, words)]) == 0
    _, _, following = capsys.readouterr().out.partition("\nnext:\n")
    command = shlex.split(following)
    assert command[:3] == ["apr", "pretrain", "--dry-run"]
    # The budget of so short a run is not met, and no certificate covers reserved documents.
    assert run([*command[1:], "--json"]) == 5
    found = json.loads(capsys.readouterr().out)
    assert found["config"]["num_steps"] == 20
    assert found["planned_tokens"] == 20 * 4 * 32


def advised(capsys: Captured, *words: object) -> list[str]:
    """The command that a plan says comes next, as a shell would take it apart."""
    capsys.readouterr()
    assert run(["plan", *map(str, words)]) == 0
    _, _, following = capsys.readouterr().out.partition("\nnext:\n")
    return shlex.split(following)


def test_the_next_command_says_what_was_said(
    run_data: RunData, sources: tuple[Path, Path], tmp_path: Path, capsys: Captured
) -> None:
    """Nothing that follows from it: defaults and probes are those of the machine that runs."""
    shape = ["--arch", "tiny", "--seq-length", "64", "--batch-size", "8"]
    known = ["--tokenizer", run_data.tokenizer, "--run-dir", tmp_path / "run", *shape]
    small, large = sources
    mixed = ["--dataset", f"{small}=0.7", "--dataset", f"{large}=0.3", "--val-shard", run_data.val]
    command = advised(
        capsys, *known, *mixed, "--tokens", 10_000, "--tokens-per-s", 5, "--no-compile"
    )
    assert command[:3] == ["apr", "pretrain", "--dry-run"]
    flags = command[3:]
    places = [index for index, flag in enumerate(flags) if flag == "--dataset"]
    assert [flags[index + 1] for index in places] == [f"{small}=0.7", f"{large}=0.3"]
    rest = [flag for index, flag in enumerate(flags) if {index, index - 1}.isdisjoint(places)]
    said = [*map(str, known), "--val-shard", str(run_data.val), "--num-steps", "20", "--no-compile"]
    assert sorted(rest) == sorted(said)
    card = advised(capsys, *known, "--dataset", run_data.train, "--device", "h200")
    assert card[card.index("--device") + 1] == "cuda"
    assert card[card.index("--precision") + 1] == "bf16"


def test_what_a_run_file_says_is_left_to_it(
    run_data: RunData, tmp_path: Path, capsys: Captured
) -> None:
    run_file = tmp_path / "run.toml"
    run_file.write_text(
        f'dataset = "{run_data.train}"\nval_shard = "{run_data.val}"\nmode = "from-scratch"\n'
        f'tokenizer = "{run_data.tokenizer}"\nrun_dir = "{tmp_path / "run"}"\n'
        'arch = "tiny"\nnum_steps = 20\nbatch_size = 4\nseq_length = 32\nlearning_rate = 0.01\n'
        'device = "cpu"\n[waive]\n"preflight.token-budget" = "a test"\n'
    )
    assert advised(capsys, "--config", run_file)[3:] == ["--config", str(run_file)]
    command = advised(capsys, "--config", run_file, "--tokens", 5000, "--batch-size", 8)
    assert command[3:] == [
        "--config", str(run_file), "--batch-size", "8", "--num-steps", "20",
    ]  # fmt: skip
    assert run([*command[1:], "--json"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert (config["num_steps"], config["batch_size"]) == (20, 8)
    assert config["learning_rate"] == 0.01
    assert config["val_shard"] == str(run_data.val)
    # 5000 tokens at the 4 sequences of the file are 40 steps.
    assert planned(capsys, "--config", run_file, "--tokens", 5000)["num_steps"] == 40


@pytest.mark.parametrize(
    ("given", "lacking"),
    [
        ((), "--dataset, --tokenizer"),
        (("manifest",), "--tokenizer"),
        (("tokenizer",), "--dataset"),
        (("small", "large", "tokenizer"), "--val-shard"),
    ],
)
def test_a_command_that_lacks_something_is_not_advised(
    run_data: RunData,
    sources: tuple[Path, Path],
    tmp_path: Path,
    capsys: Captured,
    given: tuple[str, ...],
    lacking: str,
) -> None:
    (tmp_path / "manifest.json").write_bytes((run_data.train / "manifest.json").read_bytes())
    # What no file can be called is no tokenizer on record.
    (tmp_path / "encode.json").write_text(json.dumps({"tokenizer": "x" * 5000}))
    paths = {
        "manifest": ("--dataset", tmp_path),
        "small": ("--dataset", sources[0]),
        "large": ("--dataset", sources[1]),
        "tokenizer": ("--tokenizer", run_data.tokenizer),
    }
    words = [str(word) for name in given for word in paths[name]]
    shape = ["--vocab-size", "512", "--num-steps", "9", "--seq-length", "32", "--batch-size", "1"]
    assert run(["plan", "--device", "cpu", "--arch", "tiny", *shape, *words]) == 0
    said = capsys.readouterr().out
    assert said.endswith(f"\napr pretrain also needs {lacking}\n")
    assert "next:" not in said


def test_a_place_and_the_tokenizer_on_record_are_proposed(
    sources: tuple[Path, Path],
    run_data: RunData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Captured,
) -> None:
    monkeypatch.chdir(tmp_path)
    shape = ["--device", "cpu", "--arch", "tiny", "--seq-length", "32", "--batch-size", "1"]
    words = [*shape, "--dataset", sources[0]]
    tokenizer = ["--tokenizer", str(run_data.tokenizer / "tokenizer.json")]
    assert advised(capsys, *words)[-4:] == ["--run-dir", "runs/first", *tokenizer]
    (tmp_path / "runs" / "first").mkdir(parents=True)
    assert advised(capsys, *words, *tokenizer)[-2:] == ["--run-dir", "runs/2"]


def test_what_does_not_fit_is_not_advised(
    run_data: RunData, tmp_path: Path, capsys: Captured
) -> None:
    # A card with its memory stands for this machine, whose own is not known here.
    card = ["plan", "--device", "h200", "--arch", "llama-370m", "--run-dir", str(tmp_path / "r")]
    card += ["--vocab-size", "512", "--dataset", str(run_data.train), "--batch-size", "8"]
    card += ["--val-shard", str(run_data.val), "--tokenizer", str(run_data.tokenizer)]
    card += ["--seq-length", "256"]
    assert run(card) == 0
    assert "\nnext:\n  apr pretrain --dry-run" in capsys.readouterr().out
    # No held-out shards fill such a batch: what fits is asked of a plan without data.
    many_rows = ["plan", "--device", "h200", "--arch", "llama-370m", "--batch-size", "4096"]
    assert run([*many_rows, "--grad-accum", "1"]) == 0
    said = capsys.readouterr().out
    assert "next:" not in said
    assert "also needs" not in said
    assert "to fit memory: " in said
    assert "refuse this run: preflight.token-budget, preflight.memory\n" in said
    many = ["--num-steps", "900000", "--eval-every", "1", "--keep", "900000"]
    assert run([*card, *many]) == 0
    said = capsys.readouterr().out
    assert "next:" not in said
    assert "to fit disk: free space" in said
    assert "preflight.disk-space" in said


def test_a_dry_run_says_what_the_run_takes(run_data: RunData, tmp_path: Path) -> None:
    config = run_data.config(tmp_path / "run")
    plan = preflight(config).as_dict()
    assert plan["may_start"]
    assert plan["planned_tokens"] == config.planned_tokens
    assert plan["epochs_over_data"] == config.planned_tokens / plan["unique_tokens"]
    assert plan["memory"]["verdict"] == plan["disk"]["verdict"] == "PASS"
    assert plan["time"]["tokens_per_s"] > 0
    assert "steps on cpu, fp32, eager" in plan["time"]["tokens_per_s_source"]
    blocked = preflight(run_data.config(tmp_path / "run", waive={})).as_dict()
    assert blocked["time"]["hours"] is None
    assert blocked["time"]["hours_reason"]
    assert not config.run_dir.exists()
