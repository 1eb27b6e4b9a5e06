"""Cached generation, sampling and stopping."""

from typing import Any

import pytest
import torch

from apr.architecture import preset
from apr.errors import UsageRefusal
from apr.model.generate import generate
from apr.model.init import initialize
from apr.model.kv_cache import KeyValueCache
from apr.model.transformer import Transformer

VOCAB_SIZE = 50


@pytest.fixture(scope="module")
def model() -> Transformer:
    model = Transformer(preset("tiny", tokenizer_vocab_size=VOCAB_SIZE))
    initialize(model, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8.0)
    return model


def test_cached_logits_equal_uncached_token_by_token(model: Transformer) -> None:
    token_ids = torch.randint(VOCAB_SIZE, (1, 30), generator=torch.Generator().manual_seed(0))
    whole = model(token_ids)
    cache = KeyValueCache(model.architecture, capacity=30, dtype=torch.float32)
    steps = [model(token_ids[:, :7], cache=cache)]
    steps += [model(token_ids[:, at : at + 1], cache=cache) for at in range(7, 30)]
    torch.testing.assert_close(torch.cat(steps, dim=1), whole)


def test_greedy_generation_equals_argmax_without_a_cache(model: Transformer) -> None:
    written = generate(model, [1, 2, 3], num_token_ids=VOCAB_SIZE, max_new_tokens=20)
    token_ids = [1, 2, 3]
    for expected in written.token_ids:
        assert int(model(torch.tensor([token_ids]))[0, -1].argmax()) == expected
        token_ids.append(expected)
    assert len(written.token_ids) == 20
    assert written.stop_reason == "max_new_tokens"


def test_the_seed_decides_the_samples(model: Transformer) -> None:
    def sample(seed: int) -> list[int]:
        return generate(
            model, [1], num_token_ids=VOCAB_SIZE, max_new_tokens=25, temperature=1.0, seed=seed
        ).token_ids

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_top_k_of_one_is_greedy_and_a_tiny_top_p_too(model: Transformer) -> None:
    greedy = generate(model, [4], num_token_ids=VOCAB_SIZE, max_new_tokens=15)
    for narrow in ({"top_k": 1}, {"top_p": 1e-9}):
        sampled = generate(
            model, [4], num_token_ids=VOCAB_SIZE, max_new_tokens=15, temperature=2.0, **narrow
        )
        assert sampled.token_ids == greedy.token_ids


def test_it_stops_at_the_declared_end_of_text_and_leaves_it_out(model: Transformer) -> None:
    free = generate(model, [4], num_token_ids=VOCAB_SIZE, max_new_tokens=15).token_ids
    end = free[5]
    stopped = generate(
        model, [4], num_token_ids=VOCAB_SIZE, max_new_tokens=15, end_of_text_ids={end}
    )
    assert stopped.token_ids == free[: free.index(end)]
    assert stopped.stop_reason == "end_of_text"


def test_padded_rows_of_the_embedding_are_never_produced(model: Transformer) -> None:
    few = generate(
        model, [1], num_token_ids=3, max_new_tokens=40, temperature=5.0, seed=9
    ).token_ids
    assert set(few) <= {0, 1, 2}
    many = generate(
        model, [1], num_token_ids=VOCAB_SIZE, max_new_tokens=40, temperature=5.0, seed=9
    ).token_ids
    assert max(many) > 2


def test_a_full_context_ends_the_text(model: Transformer) -> None:
    positions = model.architecture.max_position_embeddings
    written = generate(model, [1] * (positions - 2), num_token_ids=VOCAB_SIZE, max_new_tokens=10)
    assert written.stop_reason == "context_full"
    assert len(written.token_ids) == 3


@pytest.mark.parametrize(
    ("prompt", "options", "id"),
    [
        ([], {}, "run.empty-prompt"),
        ([1] * 3000, {}, "run.prompt-too-long"),
        ([1], {"temperature": -1.0}, "run.sampling"),
        ([1], {"temperature": float("nan")}, "run.sampling"),
        ([1], {"temperature": 1e-320}, "run.sampling"),
        ([1], {"temperature": 1.0, "seed": -1}, "run.sampling"),
        ([1], {"temperature": 1.0, "seed": 1 << 64}, "run.sampling"),
        ([1], {"temperature": 1.0, "top_k": 0}, "run.sampling"),
        ([1], {"temperature": 1.0, "top_p": 0.0}, "run.sampling"),
        ([1], {"top_k": 5}, "run.sampling"),
        ([1], {"seed": 0}, "run.sampling"),
    ],
)
def test_requests_that_make_no_sense_are_refused(
    model: Transformer, prompt: list[int], options: dict[str, Any], id: str
) -> None:
    with pytest.raises(UsageRefusal) as refused:
        generate(model, prompt, num_token_ids=VOCAB_SIZE, max_new_tokens=5, **options)
    assert refused.value.id == id


@pytest.mark.parametrize(
    "options",
    [{"temperature": 1e-6}, {"temperature": 1e300}, {"temperature": 1, "seed": (1 << 64) - 1}],
)
def test_the_ends_of_the_ranges_write_text(model: Transformer, options: dict[str, Any]) -> None:
    sampled: dict[str, Any] = {"temperature": 1.0, "top_k": 1 << 80} | options
    written = generate(model, [1], num_token_ids=VOCAB_SIZE, max_new_tokens=5, **sampled)
    assert len(written.token_ids) == 5
