"""F29 and F26 where no rank holds the whole model: what it holds, and what its gates catch."""

from typing import Any

import pytest
from tests.ranks.dealt_out import deep
from tests.run_data import RunData
from tests.warm import Warm

from apr.architecture import preset
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.model.weights import save_model
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.checkpoint import save_checkpoint
from apr.train.optimizer import build_optimizer
from apr.train.train_state import TrainState

pytestmark = pytest.mark.slow

# Activations of eight tokens, and projections of the gradients of 74 parameters.
ROOM = 2 << 20


@pytest.fixture(scope="module")
def sources(ranks_data: RunData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A model as a file and as a checkpoint, beside fresh weights."""
    root = tmp_path_factory.mktemp("sources")
    tokenizer = Tokenizer.load(ranks_data.tokenizer)
    model = Transformer(deep(preset("tiny", tokenizer_vocab_size=tokenizer.vocab_size)))
    initialize(model, seed=7)
    said: list[dict[str, Any]] = [{"what": "a test"}]
    save_model(root / "model.apr", model, tokenizer=tokenizer, provenance=said)
    optimizer = build_optimizer(model, ranks_data.config(root / "nowhere"))
    checkpoint = save_checkpoint(
        root, model, optimizer, TrainState(), tokenizer=tokenizer, provenance=said
    )
    return {"fresh": "fresh", "init": str(root / "model.apr"), "checkpoint": str(checkpoint)}


def ask(ranks: Warm, what: str, world_size: int, **options: Any) -> list[Any]:
    """What every rank answered; none may have ended otherwise."""
    ended = ranks.call(f"tests.ranks.dealt_out:{what}", world_size=world_size, **options)
    assert [each.returncode for each in ended] == [0] * world_size, ended
    return [each.answer for each in ended]


def over(held: dict[str, Any], num_ranks: int) -> set[str]:
    """The moments at which a rank held more than its part and what passes through it."""
    assert num_ranks * held["own"] == held["whole"]
    passing = held["own"] + held["passing"] + ROOM
    limits = {
        "building": held["own"] + 2 * held["largest_tensor"],
        "judging": passing,
        "starting": 4 * held["largest_tensor"],
        # The moments are made while the last gradients are exchanged.
        "stepping": passing + 2 * held["own"],
        "accumulating": passing,
    }
    return {moment for moment, limit in limits.items() if held[moment] > limit}


@pytest.mark.parametrize("source", ["fresh", "init", "checkpoint"])
def test_no_rank_ever_holds_the_whole_model(
    ranks: Warm, ranks_data: RunData, sources: dict[str, str], source: str
) -> None:
    options = {"root": str(ranks_data.root), "source": sources[source], "by_block": True}
    for held in ask(ranks, "held", 2, **options):
        assert over(held, 2) == set(), held
        assert held["verdict"] == "PASS"


@pytest.mark.parametrize(
    ("source", "by_block", "moments"),
    [
        ("whole first", True, {"building"}),
        ("fresh", False, {"judging", "accumulating"}),
    ],
)
def test_a_rank_that_holds_the_whole_model_is_seen(
    ranks: Warm, ranks_data: RunData, source: str, by_block: bool, moments: set[str]
) -> None:
    options = {"root": str(ranks_data.root), "source": source, "by_block": by_block}
    for held in ask(ranks, "held", 2, **options):
        assert over(held, 2) == moments, held


@pytest.mark.parametrize(
    ("by_block", "recomputes"), [(True, False), (True, True), (False, False), (False, True)]
)
def test_the_gradient_that_is_judged_is_that_of_the_ranks_own_rows(
    ranks: Warm, ranks_data: RunData, by_block: bool, recomputes: bool
) -> None:
    options = {"root": str(ranks_data.root), "by_block": by_block, "recomputes": recomputes}
    assert max(ask(ranks, "seen", 2, **options)) < 1e-5


@pytest.mark.parametrize("by_block", [True, False])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("another loss", "the loss differs by 2.0e-02"),
        ("one gradient", "(model.embed_tokens.weight)"),
        ("no gradient", "zero or not finite"),
        ("no number", "zero or not finite"),
    ],
)
def test_f26_what_one_rank_computes_wrongly_no_rank_goes_on_with(
    ranks: Warm, ranks_data: RunData, fault: str, words: str, by_block: bool
) -> None:
    options = {"root": str(ranks_data.root), "fault": fault, "by_block": by_block}
    first, *others = ask(ranks, "first_gradient", 3, **options)
    assert first["verdict"] == "FAIL"
    assert first["found"].startswith("rank 2: ")
    assert words in first["found"]
    assert others == [first] * 2


@pytest.mark.parametrize("by_block", [True, False])
def test_ranks_that_compute_rightly_pass(ranks: Warm, ranks_data: RunData, by_block: bool) -> None:
    options = {"root": str(ranks_data.root), "fault": None, "by_block": by_block}
    first, *others = ask(ranks, "first_gradient", 3, **options)
    assert first["verdict"] == "PASS"
    assert others == [first] * 2


def test_a_gate_that_breaks_on_one_rank_ends_all(ranks: Warm, ranks_data: RunData) -> None:
    options = {"root": str(ranks_data.root), "fault": "an exception", "by_block": True}
    first, last = ask(ranks, "first_gradient", 2, **options)
    assert last["id"] == "preflight.gradients"
    assert "planted" in last["found"]
    assert first["id"] == "ranks.lost"


def test_an_initial_model_is_measured_as_by_one_process(
    ranks: Warm, ranks_data: RunData, sources: dict[str, str]
) -> None:
    options = {"root": str(ranks_data.root), "source": sources["init"]}
    (alone,) = ask(ranks, "initial_loss", 1, kind="auto", **options)
    assert "on the import's probes" in alone
    found = ask(ranks, "initial_loss", 2, kind="fsdp", **options)
    assert found == [f"rank 0: {alone}"] * 2


@pytest.mark.parametrize("at_rank", [0, 1, None])
def test_f28_a_weight_that_is_not_finite_is_seen_by_all(
    ranks: Warm, ranks_data: RunData, at_rank: int | None
) -> None:
    for refused in ask(ranks, "spoilt_weight", 2, root=str(ranks_data.root), at_rank=at_rank):
        if at_rank is None:
            assert refused is None
        else:
            assert refused["id"] == "train.non-finite-weights"
            assert refused["where"] == "step 3, model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("preset_name", "gibibytes", "kind"),
    [
        # 16 bytes a parameter, copied or halved: 7.4 GiB of state, and activations of 64 tokens.
        ("qwen2-0.5b", 40, "ddp"),
        ("qwen2-0.5b", 8, "fsdp"),
        # Gathered whole, so that dealing it out makes nothing smaller.
        ("tiny", 0, "ddp"),
    ],
)
def test_a_model_is_dealt_out_where_only_that_fits(
    ranks: Warm, ranks_data: RunData, preset_name: str, gibibytes: int, kind: str
) -> None:
    options = {"preset_name": preset_name, "available_bytes": max(1, gibibytes << 30)}
    assert ask(ranks, "chosen_kind", 2, root=str(ranks_data.root), **options) == [kind] * 2
