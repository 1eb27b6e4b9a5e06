"""Tiny Hugging Face directories, written with the safetensors library, with room for faults."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from tests import tokenizer_files

CLASSES = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LAYERS, VOCAB, WIDTH, INNER, HEADS, GROUPS, HEAD_DIM = 2, 264, 8, 12, 2, 1, 4


@dataclass
class HfModel:
    """A model about to be written; a test changes what it wants to be wrong."""

    config: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    files: dict[str, bytes] = field(default_factory=dict)
    """Further files of the directory, by name."""

    def write(self, directory: Path, *, shards: int = 1) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text(json.dumps(self.config), encoding="utf-8")
        names = list(self.arrays)
        if shards == 1:
            save(directory / "model.safetensors", self.arrays)
        else:
            parts = [names[at::shards] for at in range(shards)]
            weight_map = {}
            for at, part in enumerate(parts, start=1):
                file = f"model-{at:05}-of-{shards:05}.safetensors"
                save(directory / file, {name: self.arrays[name] for name in part})
                weight_map |= dict.fromkeys(part, file)
            write_index(directory, weight_map)
        for name, data in self.files.items():
            (directory / name).write_bytes(data)
        return directory


def save(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Write arrays as a safetensors file, uint16 as bfloat16."""
    tensors = {}
    for name, array in arrays.items():
        tensor = torch.from_numpy(array.copy())
        is_bf16 = array.dtype == np.uint16
        tensors[name] = tensor.view(torch.bfloat16) if is_bf16 else tensor
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


def write_index(directory: Path, weight_map: dict[str, str], **more: Any) -> None:
    index = {"metadata": {}, "weight_map": weight_map} | more
    (directory / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def hf_model(family: str = "llama", *, tied: bool = True, dtype: str = "<f4") -> HfModel:
    """A sound model of a family, with reproducible weights."""
    random = np.random.default_rng(0)
    arrays = {
        name: (0.1 * random.standard_normal(shape)).astype(dtype)
        for name, shape in shapes(family, tied=tied).items()
    }
    return HfModel(config(family, tied=tied), arrays)


def with_tokenizer(model: HfModel) -> HfModel:
    model.files["tokenizer.json"] = tokenizer_files.changed(tokenizer_files.nothing)
    return model


def config(family: str, *, tied: bool) -> dict[str, Any]:
    return {
        "architectures": [CLASSES[family]],
        "model_type": family,
        "vocab_size": VOCAB,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": 0.02,
        "torch_dtype": "float32",
        "use_cache": True,
    } | ({"sliding_window": None} if family == "mistral" else {})


def shapes(family: str, *, tied: bool) -> dict[str, tuple[int, ...]]:
    """Names and shapes as Hugging Face's classes have them, written out apart from ours."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, WIDTH)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        found |= {
            f"{at}self_attn.q_proj.weight": (HEADS * HEAD_DIM, WIDTH),
            f"{at}self_attn.k_proj.weight": (GROUPS * HEAD_DIM, WIDTH),
            f"{at}self_attn.v_proj.weight": (GROUPS * HEAD_DIM, WIDTH),
            f"{at}self_attn.o_proj.weight": (WIDTH, HEADS * HEAD_DIM),
            f"{at}mlp.gate_proj.weight": (INNER, WIDTH),
            f"{at}mlp.up_proj.weight": (INNER, WIDTH),
            f"{at}mlp.down_proj.weight": (WIDTH, INNER),
            f"{at}input_layernorm.weight": (WIDTH,),
            f"{at}post_attention_layernorm.weight": (WIDTH,),
        }
        if family == "qwen2":
            found |= biases(layer)
        if family == "qwen3":
            found |= {f"{at}self_attn.{part}_norm.weight": (HEAD_DIM,) for part in "qk"}
    found["model.norm.weight"] = (WIDTH,)
    if not tied:
        found["lm_head.weight"] = (VOCAB, WIDTH)
    return found


def biases(layer: int) -> dict[str, tuple[int, ...]]:
    at = f"model.layers.{layer}.self_attn."
    return {
        f"{at}q_proj.bias": (HEADS * HEAD_DIM,),
        f"{at}k_proj.bias": (GROUPS * HEAD_DIM,),
        f"{at}v_proj.bias": (GROUPS * HEAD_DIM,),
    }


def rotary_frequencies(theta: float) -> NDArray[Any]:
    """The buffer that checkpoints of the first Llama days carry."""
    return (1.0 / theta ** (np.arange(0, HEAD_DIM, 2) / HEAD_DIM)).astype("<f4")


Fault = Callable[[HfModel], object]
