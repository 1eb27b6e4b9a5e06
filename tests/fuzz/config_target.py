"""A fuzz target (see `target`): config.json, by both of its readers, which must agree."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

from tests import source_models
from tests.fuzz import byte_damage, json_damage
from tests.fuzz.target import ACCEPTED, Mutator, outcome_of

from apr.convert.huggingface import keys
from apr.convert.huggingface.config import read_config_object, read_hf_config
from apr.convert.huggingface.reference_config import reference_config

_SAME = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rms_norm_eps",
    "rope_theta",
)


def fuzz_one(data: bytes) -> bool:
    return outcome_of(read, data) == ACCEPTED


def read(path: Path) -> None:
    raw = read_config_object(path)
    architecture = read_hf_config(raw, where=path).architecture
    reference = reference_config(raw)
    for field in _SAME:
        assert getattr(reference, field) == getattr(architecture, field), field
    scaling = architecture.rope_scaling
    assert reference.rope_scaling == (scaling and asdict(scaling))
    # What a container and a new config.json will say of it.
    json.dumps(architecture.to_hf_config(), allow_nan=False)
    assert architecture.num_parameters > 0


def seeds() -> list[bytes]:
    beside = {
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "pad_token_id": None,
        "initializer_range": 0.02,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "auto_map": {"AutoModel": "code.Model"},
        "layer_types": ["full_attention"] * 3,
        "pretraining_tp": 1,
    }
    known = [
        architecture.to_hf_config() | beside
        for architecture in source_models.ARCHITECTURES.values()
    ]
    scaled = known[2]
    assert scaled["rope_scaling"]
    modern = {key: value for key, value in scaled.items() if not key.startswith("rope")}
    modern["rope_parameters"] = scaled["rope_scaling"] | {"rope_theta": scaled["rope_theta"]}
    # As files of the first days are: no head_dim, no groups, no theta, -1 for no token.
    left_out = ("rope_theta", "head_dim", "num_key_value_heads", "tie_word_embeddings")
    old = {key: value for key, value in known[0].items() if key not in left_out}
    windowed = known[4] | {"sliding_window": 1 << 20}
    objects = [*known, modern, old | {"pad_token_id": -1}, windowed]
    return [json.dumps(each).encode() for each in objects]


def mutator(seeds: Sequence[bytes]) -> Mutator:
    objects: list[dict[str, Any]] = [json.loads(seed) for seed in seeds]
    known = (*keys.NEUTRAL, *keys.READ, "text_config", "peft_type", "rope_something")
    words = (*json_damage.texts_and_keys(objects), *known)

    def mutated(random: Random) -> bytes:
        value = random.choice(objects)
        if random.random() < 0.2:
            value = value | random.choice(objects)
        kind = random.random()
        text = json_damage.damaged(random, value, words) if kind < 0.9 else json.dumps(value)
        data = text.encode()
        if kind > 0.8:
            data = byte_damage.damaged(random, data, random.choice(seeds))
        return data

    return mutated
