"""F29: ranks that drift apart, and F19, F22, F25 where there are several of them.

Real processes that meet over the network of this machine. What one process does is the reference:
the same step, the same loss, the same held-out rows, however many ranks share them.
"""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.run_data import RunData
from tests.warm import Warm

pytestmark = pytest.mark.slow

# Gradients are added in another order. A first step of Adam moves a weight by the rate, 0.01,
# however small its gradient is, so that rounding shows in the weights more than in the gradient.
CLOSE = {"loss_nats": 1e-6, "grad_norm": 1e-5, "weights": 1e-5}
KINDS = ("ddp", "fsdp")


def ask(ranks: Warm, what: str, world_size: int, **options: Any) -> list[Any]:
    """What every rank answered; none may have ended otherwise."""
    ended = ranks.call(f"tests.ranks.checks:{what}", world_size=world_size, **options)
    assert [each.returncode for each in ended] == [0] * world_size, ended
    return [each.answer for each in ended]


def test_ranks_answer_each_other(ranks: Warm) -> None:
    (alone,) = ask(ranks, "answers", 1)
    assert alone == {
        "total": [1.5, 0.0],
        "any": [False, False],
        "gathered": [[0, 2**62]],
        "same": {"rank": 0, "text": "ä"},
    }
    for answer in ask(ranks, "answers", 3):
        assert answer == {
            "total": [4.5, 3.0],
            "any": [True, False],
            "gathered": [[0, 2**62], [1, 2**62], [2, 2**62]],
            "same": {"rank": 0, "text": "ä"},
        }


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("one ulp", "the parameters"),
        ("two weights exchanged", "the parameters"),
        ("rate", "the learning rate"),
        ("rows", "the next rows"),
    ],
)
def test_f29_one_rank_that_differs_is_named(ranks: Warm, fault: str, what: str) -> None:
    for refused in ask(ranks, "agree", 3, fault=fault):
        assert refused["id"] == "ranks.differ"
        assert refused["where"] == f"step 7, {what}"
        assert "rank 2 than" in refused["found"]


def test_ranks_that_agree_go_on(ranks: Warm) -> None:
    assert ask(ranks, "agree", 3, fault=None) == [None] * 3


@pytest.mark.parametrize("kind", [*KINDS, "fsdp by block"])
@pytest.mark.parametrize("fault", ["read", "held", None])
def test_f29_weights_that_begin_apart_are_refused(
    ranks: Warm, ranks_data: RunData, kind: str, fault: str | None
) -> None:
    for refused in ask(ranks, "start_apart", 2, root=str(ranks_data.root), kind=kind, fault=fault):
        if fault is None:
            assert refused is None
            continue
        assert refused["id"] == "ranks.differ"
        assert "the weights to start from" in refused["where"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("counted", [[3, 16, 1, 9], [16, 16, 0, 0], [0, 0, 0, 1]])
def test_f25_every_token_weighs_the_same_on_any_rank(
    ranks: Warm, ranks_data: RunData, kind: str, counted: list[int]
) -> None:
    options = {"root": str(ranks_data.root), "counted": counted}
    (alone,) = ask(ranks, "step_of_unequal_rows", 1, kind="auto", **options)
    assert alone["num_tokens"] == sum(counted)
    for world_size, num_micro_batches in ((2, 2), (4, 1)):
        options["num_micro_batches"] = num_micro_batches
        answers = ask(ranks, "step_of_unequal_rows", world_size, kind=kind, **options)
        assert all(answer == answers[0] for answer in answers)
        assert answers[0]["num_tokens"] == alone["num_tokens"]
        for name, close in CLOSE.items():
            assert answers[0][name] == pytest.approx(alone[name], rel=close, abs=close), name


def test_gradients_of_copied_models_are_added_up_where_they_are_exchanged(
    ranks: Warm, ranks_data: RunData
) -> None:
    """Beside the buckets they would be held twice, which the estimate of memory does not count."""
    root = str(ranks_data.root)
    for found in ask(ranks, "places_of_gradients", 2, root=root):
        assert found["before the last"] == found["at the end"]
    for found in ask(ranks, "places_of_gradients", 2, root=root, let_go=True):
        assert not set(found["before the last"]) & set(found["at the end"])


def test_f25_a_mean_of_means_would_show(ranks: Warm, ranks_data: RunData) -> None:
    options = {"root": str(ranks_data.root), "counted": [3, 16, 1, 9]}
    (alone,) = ask(ranks, "step_of_unequal_rows", 1, kind="auto", **options)
    planted, _ = ask(ranks, "step_of_unequal_rows", 2, kind="ddp", mean_of_means=True, **options)
    for name, close in CLOSE.items():
        assert planted[name] != pytest.approx(alone[name], rel=close, abs=close), name


def test_f22_the_held_out_loss_is_the_same_on_any_number_of_ranks(
    ranks: Warm, ranks_data: RunData
) -> None:
    # Three rows for three ranks and a fourth that has none.
    for max_tokens in (96, 100_000):
        options = {"root": str(ranks_data.root), "batch_size": 1, "max_tokens": max_tokens}
        (alone,) = ask(ranks, "held_out_loss", 1, **options)
        for world_size in (2, 3, 4):
            assert ask(ranks, "held_out_loss", world_size, **options) == [alone] * world_size


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_the_run_with_a_word(
    ranks: Warm, ranks_data: RunData, tmp_path: Path, rank: int
) -> None:
    run_dir = tmp_path / "run"
    ended = ranks.call(
        "tests.ranks.checks:killed_run",
        world_size=2,
        root=str(ranks_data.root),
        run_dir=str(run_dir),
        rank=rank,
        after=5,
    )
    assert ended[rank].returncode == -signal.SIGKILL
    refused = ended[1 - rank].answer
    assert refused["id"] == "ranks.lost"
    record = json.loads((run_dir / "run.json").read_text())
    if rank == 0:
        assert record["outcome"] == "running"
    else:
        assert record["outcome"] == "aborted"
        assert "ranks.lost" in record["outcome_detail"]
    (went_on,) = ranks.run(["pretrain", "--resume", str(run_dir), "--quiet"], world_size=1)
    assert went_on.returncode == 0, went_on.err
    # The last checkpoint, unless who was writing it has been killed over it.
    step = json.loads((run_dir / "run.json").read_text())["resumes"][0]["step"]
    assert step in ((2, 4) if rank == 0 else (4,))
