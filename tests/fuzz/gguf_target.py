"""A fuzz target (see `target`): a GGUF file as a source, from header to last tensor, tokenizer
included."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import gguf
from tests import gguf_models, tokenizer_files
from tests.fuzz import byte_damage
from tests.fuzz.gguf_parts import damaged, taken_apart
from tests.fuzz.target import ACCEPTED, Mutator, outcome_of

from apr.architecture import Architecture
from apr.convert.gguf.source import read_gguf_source

_HF_JSON = "tokenizer.huggingface.json"
# Of one layer and few columns, so that a file is mostly front.
_SMALL = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
}


def fuzz_one(data: bytes) -> bool:
    """Read bytes as a GGUF file, and its tensors when it is one; whether it was taken."""
    return outcome_of(read, data) == ACCEPTED


def read(path: Path) -> None:
    source = read_gguf_source(path)
    for tensor in source.tensors.values():
        for _ in tensor.chunks():
            pass
    json.dumps(dict(source.hf_config), allow_nan=False)


def seeds() -> list[bytes]:
    families = {
        name: replace(family, **_SMALL | ({"head_dim": 64} if name == "llama3" else {}))
        for name, family in gguf_models.FAMILIES.items()
    }
    made = [gguf_models.model(family) for family in families.values()]
    made.append(gguf_models.model(families["llama"], pre=None))
    made.append(gguf_models.model(families["qwen2"], pre="llama-bpe"))
    made.append(gguf_models.model(families["qwen3"], pre="something-new"))
    carrying = gguf_models.model(families["llama"])
    carrying.set(_HF_JSON, json.dumps(tokenizer_files.document()), "STRING")
    carrying.set("tokenizer.ggml.bos_token_id", 1).set("tokenizer.ggml.add_bos_token", True, "BOOL")
    carrying.set("tokenizer.chat_template", "{{ x }}", "STRING")
    carrying.set("general.license", "mit", "STRING")
    made.append(carrying)
    made.append(_scaled(families["llama3"]))
    made.append(_quantised())
    with TemporaryDirectory() as directory:
        path = Path(directory) / "model.gguf"
        return [each.write(path).read_bytes() for each in made]


def _scaled(architecture: Architecture) -> gguf_models.GgufModel:
    """Stretched frequencies of numbers that nobody published, beside which they stand."""
    assert architecture.rope_scaling
    scaling = replace(architecture.rope_scaling, factor=4.0, high_freq_factor=3.0)
    model = gguf_models.model(replace(architecture, rope_scaling=scaling))
    for name, value in asdict(scaling).items():
        is_count = isinstance(value, int)
        model.set(f"apr.rope_scaling.{name}", value, "UINT32" if is_count else "FLOAT64")
    return model


def _quantised() -> gguf_models.GgufModel:
    """Q8_0 in the embedding and in one projection."""
    small = _SMALL | {"hidden_size": 32, "head_dim": 16}
    model = gguf_models.model(replace(gguf_models.LLAMA, **small), pre=None)
    kind = gguf.GGMLQuantizationType.Q8_0
    for name in ("token_embd.weight", "blk.0.ffn_gate.weight"):
        model.arrays[name] = gguf.quants.quantize(model.arrays[name], kind)
        model.types[name] = kind
    return model


def mutator(seeds: Sequence[bytes]) -> Mutator:
    parts = [taken_apart(seed) for seed in seeds]
    json_fields = {_HF_JSON.encode(): tokenizer_files.document()}

    def mutated(random: Random) -> bytes:
        chosen = random.choice(parts)
        kind = random.random()
        if kind < 0.85:
            for _ in range(random.choice((1, 1, 2))):
                chosen = damaged(random, chosen, random.choice(parts), json_fields)
        data = chosen.encode()
        if kind > 0.75:
            for _ in range(random.choice((1, 1, 2, 4))):
                front = random.choice((64, 1200, 12_000))
                data = byte_damage.damaged(random, data, random.choice(seeds), front=front)
        return data

    return mutated
