"""Fresh weights: complete, in their declared distribution, a function of the seed alone."""

import math
from dataclasses import replace

import pytest
import torch

from apr.architecture import Architecture, preset
from apr.model.init import declared_std, initialize
from apr.model.transformer import Transformer

QWEN2 = replace(preset("tiny", tokenizer_vocab_size=300), model_type="qwen2")
LLAMA = replace(preset("tiny", tokenizer_vocab_size=300), tie_word_embeddings=False)


def test_f06_fresh_memory_is_nan_until_it_is_initialised() -> None:
    model = Transformer(QWEN2)
    assert all(bool(parameter.isnan().all()) for parameter in model.parameters())


@pytest.mark.parametrize("architecture", [QWEN2, LLAMA], ids=["qwen2", "llama"])
def test_f06_every_parameter_lies_in_its_declared_distribution(architecture: Architecture) -> None:
    model = Transformer(architecture)
    initialize(model, seed=1)
    seen = 0
    for name, parameter in model.named_parameters():
        std = declared_std(name, architecture)
        if std is None:
            assert bool((parameter == (1.0 if "norm" in name else 0.0)).all()), name
        else:
            spread = float(parameter.detach().std()) / std
            assert abs(spread - 1.0) < 5.0 / math.sqrt(parameter.numel()), name
            assert abs(float(parameter.detach().mean())) < 5.0 * std / math.sqrt(
                parameter.numel()
            ), name
        seen += 1
    assert seen == len(architecture.parameter_shapes())


def test_writers_into_the_stream_are_scaled_by_depth() -> None:
    plain = declared_std("model.layers.0.mlp.up_proj.weight", LLAMA)
    scaled = declared_std("model.layers.0.mlp.down_proj.weight", LLAMA)
    assert plain is not None
    assert scaled == pytest.approx(plain / math.sqrt(2 * LLAMA.num_hidden_layers))


def test_values_depend_on_seed_and_name_alone() -> None:
    def weights(architecture: Architecture, seed: int) -> dict[str, torch.Tensor]:
        model = Transformer(architecture)
        initialize(model, seed=seed)
        return dict(model.named_parameters())

    once, again, other = weights(LLAMA, 1), weights(LLAMA, 1), weights(LLAMA, 2)
    deeper = weights(replace(LLAMA, num_hidden_layers=3), 1)
    name = "model.layers.1.self_attn.q_proj.weight"
    assert once[name].equal(again[name])
    assert not once[name].equal(other[name])
    assert once[name].equal(deeper[name])
    assert not once[name].equal(once["model.layers.0.self_attn.q_proj.weight"])


def test_parameters_are_exactly_those_the_architecture_lists() -> None:
    for architecture in (QWEN2, LLAMA):
        model = Transformer(architecture)
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
        assert shapes == architecture.parameter_shapes()
        assert sum(p.numel() for p in model.parameters()) == architecture.num_parameters
