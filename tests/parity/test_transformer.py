"""Logits and gradients against transformers, on tiny random models of each family."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from apr.architecture import Architecture, RopeScaling
from apr.model.init import initialize
from apr.model.transformer import Transformer

transformers = pytest.importorskip("transformers", reason="the parity oracle is not installed")

_SMALL = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "rope_theta": 12_345.0,
    "rms_norm_eps": 1e-5,
}
_LLAMA3_SCALING = RopeScaling(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32
)
CASES = [
    pytest.param(
        Architecture(
            model_type=family, num_key_value_heads=kv_heads, tie_word_embeddings=tied, **_SMALL
        ),
        id=f"{family}-kv{kv_heads}-{'tied' if tied else 'untied'}",
    )
    for family in ("llama", "qwen2", "qwen3", "mistral")
    for kv_heads in (1, 2, 4)
    for tied in (True, False)
] + [
    pytest.param(
        Architecture(
            model_type="llama",
            num_key_value_heads=2,
            tie_word_embeddings=tied,
            rope_scaling=_LLAMA3_SCALING,
            **_SMALL,
        ),
        id=f"llama3-scaling-{'tied' if tied else 'untied'}",
    )
    for tied in (True, False)
]


def _pair(architecture: Architecture) -> tuple[Transformer, Any]:
    model = Transformer(architecture)
    initialize(model, seed=5)
    with torch.no_grad():
        # Biases and norms away from their constants, so that ignoring one of them shows.
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                generator = torch.Generator().manual_seed(len(name))
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
            else:
                parameter.mul_(5.0)
    fields = architecture.to_hf_config()
    theirs = getattr(transformers, fields.pop("architectures")[0])(
        transformers.AutoConfig.for_model(**fields)
    )
    theirs.load_state_dict(model.state_dict(), strict=not architecture.tie_word_embeddings)
    if architecture.tie_word_embeddings:
        theirs.tie_weights()
    return model, theirs.eval()


@pytest.mark.parametrize("architecture", CASES)
def test_logits_and_gradients_equal_transformers(architecture: Architecture) -> None:
    ours, theirs = _pair(architecture)
    input_ids = torch.randint(97, (2, 40), generator=torch.Generator().manual_seed(1))
    logits, expected = ours(input_ids), theirs(input_ids).logits
    torch.testing.assert_close(logits, expected)
    targets = torch.randint(97, (80,), generator=torch.Generator().manual_seed(2))
    functional.cross_entropy(logits.flatten(0, 1), targets).backward()
    functional.cross_entropy(expected.flatten(0, 1), targets).backward()
    compared = 0
    for name, parameter in theirs.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(
            ours.get_parameter(name).grad, parameter.grad, msg=lambda m, n=name: f"{n}: {m}"
        )
        compared += 1
    assert compared == len(architecture.parameter_shapes())


@pytest.mark.parametrize("architecture", CASES[:1] + CASES[6:8])
@pytest.mark.parametrize(("field", "value"), [("rope_theta", 10_000.0), ("rms_norm_eps", 1e-2)])
def test_f01_a_wrong_field_is_seen(architecture: Architecture, field: str, value: float) -> None:
    """The planted fault: one field off, and the comparison above must be able to notice."""
    _, theirs = _pair(architecture)
    wrong = Transformer(replace(architecture, **{field: value}))
    wrong.load_state_dict(
        {name: theirs.get_parameter(name) for name in architecture.parameter_shapes()}
    )
    input_ids = torch.randint(97, (2, 40), generator=torch.Generator().manual_seed(1))
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(wrong(input_ids), theirs(input_ids).logits)


def test_a_document_in_a_packed_row_is_computed_as_if_alone() -> None:
    ours, theirs = _pair(CASES[0].values[0])
    first = torch.randint(97, (1, 13), generator=torch.Generator().manual_seed(3))
    second = torch.randint(97, (1, 17), generator=torch.Generator().manual_seed(4))
    documents = torch.tensor([[0] * 13 + [1] * 17])
    packed = ours(torch.cat((first, second), dim=1), documents_BT=documents)
    torch.testing.assert_close(packed[:, :13], theirs(first).logits)
    torch.testing.assert_close(packed[:, 13:], theirs(second).logits)


def test_f01_a_scaling_left_out_is_seen() -> None:
    _, theirs = _pair(CASES[-1].values[0])
    wrong = Transformer(replace(CASES[-1].values[0], rope_scaling=None))
    wrong.load_state_dict(theirs.state_dict())
    input_ids = torch.randint(97, (2, 40), generator=torch.Generator().manual_seed(1))
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(wrong(input_ids), theirs(input_ids).logits)
