"""A model as the fields and tensors of a GGUF file, as llama.cpp's converter makes them.

Data types are the caller's choice: bytes are moved, named, and the query and key rows of the
llama family put in GGUF's order; no value is computed but the divisors of Llama 3's frequencies.

Source: `LlamaModel` and `TextModel` in llama.cpp's convert_hf_to_gguf.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from apr.architecture import Architecture, ModelType
from apr.convert.gguf import layout, names, rope, rows, values
from apr.convert.gguf.hyperparameters import ADJACENT
from apr.convert.gguf.layout import BY_DTYPE
from apr.convert.gguf.tokenizer import Exported, tokenizer_fields
from apr.convert.source import SourceTensor
from apr.errors import Refusal
from apr.tokenizer.tokenizer import Tokenizer

_SLUGS: dict[ModelType, str] = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}
# llama.cpp's numbers for what most of a file's matrices are.
_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "q6_k": 18, "bf16": 32}
_Q4_K_SMALL, _Q4_K_MEDIUM = 14, 15
_QUANTIZATION_VERSION = 2


def file_type(tensors: Iterable[SourceTensor]) -> int:
    """llama.cpp's number for a file of these tensors: the data type of most matrix elements."""
    counted = Counter[str]()
    for tensor in tensors:
        if len(tensor.shape) > 1:
            counted[tensor.dtype] += tensor.num_elements
    (most, _), *_ = counted.most_common(1)
    if most == "q4_k":
        return _Q4_K_MEDIUM if counted["q6_k"] else _Q4_K_SMALL
    return _FILE_TYPES[most]


def gguf_fields(
    architecture: Architecture,
    tokenizer: Tokenizer | None,
    hf_config: Mapping[str, Any],
    *,
    file_type: int,
    chat_template: str | None = None,
    name: str | None = None,
    license: str | None = None,
) -> Exported:
    """Every field of the file, in the order of llama.cpp's converter.

    Refuses: gguf.rope-scaling-not-expressible, and what `tokenizer_fields` refuses.
    """
    slug = _SLUGS[architecture.model_type]
    notes: list[str] = []
    if slug != architecture.model_type:
        notes.append(f"GGUF calls {architecture.model_type} {slug}, whose mathematics is the same")
    _require_expressible(architecture, slug)
    read = tokenizer_fields(
        tokenizer, hf_config, vocab_size=architecture.vocab_size, chat_template=chat_template
    )
    fields = [
        values.text(layout.ARCHITECTURE_KEY, slug),
        values.text("general.type", "model"),
        *(values.text("general.name", text) for text in [name] if text),
        *(values.text("general.license", text) for text in [license] if text),
        values.uint32(f"{slug}.block_count", architecture.num_hidden_layers),
        values.uint32(f"{slug}.context_length", architecture.max_position_embeddings),
        values.uint32(f"{slug}.embedding_length", architecture.hidden_size),
        values.uint32(f"{slug}.feed_forward_length", architecture.intermediate_size),
        values.uint32(f"{slug}.attention.head_count", architecture.num_attention_heads),
        values.uint32(f"{slug}.attention.head_count_kv", architecture.num_key_value_heads),
        values.float32(f"{slug}.rope.freq_base", architecture.rope_theta),
        values.float32(f"{slug}.attention.layer_norm_rms_epsilon", architecture.rms_norm_eps),
        values.uint32(f"{slug}.attention.key_length", architecture.head_dim),
        values.uint32(f"{slug}.attention.value_length", architecture.head_dim),
        values.uint32("general.file_type", file_type),
        values.uint32(f"{slug}.vocab_size", architecture.vocab_size),
        values.uint32(f"{slug}.rope.dimension_count", architecture.head_dim),
        values.uint32("general.quantization_version", _QUANTIZATION_VERSION),
        *(rope.scaling_fields(architecture.rope_scaling) if architecture.rope_scaling else ()),
        *read.fields,
    ]
    return Exported(tuple(fields), (*notes, *read.notes))


def gguf_tensors(
    architecture: Architecture, tensors: Mapping[str, SourceTensor]
) -> list[SourceTensor]:
    """The tensors under GGUF's names, in model order, with rows as llama.cpp wants them.

    Refuses: gguf.tensors-differ, gguf.dtype-not-expressible, gguf.rows-not-whole-blocks,
    gguf.vector-not-f32, gguf.rope-scaling-not-expressible.
    """
    slug = _SLUGS[architecture.model_type]
    _require_expressible(architecture, slug)
    shapes = architecture.parameter_shapes()
    given = {name: tensor.shape for name, tensor in tensors.items()}
    if given != shapes:
        differing = min(
            name for name in given.keys() | shapes.keys() if given.get(name) != shapes.get(name)
        )
        raise Refusal(
            "gguf.tensors-differ",
            f"tensor {differing!r} to be exported",
            found=f"shape {given.get(differing, 'none: it is not there')}",
            expected=f"{shapes.get(differing, 'no such tensor')}",
            fix="export a whole model, with every tensor of its architecture once",
        )
    exported = [_rope_factors(architecture)] if architecture.rope_scaling else []
    for name in shapes:
        tensor = tensors[name]
        _require_dtype(tensor)
        if slug == ADJACENT and rows.is_turned(name):
            tensor = rows.to_adjacent(tensor, head_dim=architecture.head_dim)
        exported.append(_renamed(tensor, names.to_gguf(name)))
    return exported


def _require_expressible(architecture: Architecture, slug: str) -> None:
    if architecture.rope_scaling is None or slug == ADJACENT:
        return
    raise Refusal(
        "gguf.rope-scaling-not-expressible",
        "the model to be exported",
        found=f"Llama 3's rotary scaling in {architecture.model_type}",
        expected="llama: llama.cpp reads the divisors of no other family",
        fix="export to Hugging Face's format: --format hf",
    )


def _require_dtype(tensor: SourceTensor) -> None:
    where = f"tensor {tensor.name!r} to be exported"
    kind = BY_DTYPE.get(tensor.dtype)
    if kind is None:
        raise Refusal(
            "gguf.dtype-not-expressible",
            where,
            found=tensor.dtype,
            expected="one of " + ", ".join(BY_DTYPE),
            fix="name another format: --quantize f16, q8_0 or q4k",
        )
    if len(tensor.shape) == 1 and tensor.dtype != "f32":
        raise Refusal(
            "gguf.vector-not-f32",
            where,
            found=tensor.dtype,
            expected="f32, in which llama.cpp adds norms and biases",
            fix="keep norms and biases in f32",
        )
    if tensor.shape[-1] % kind.block_elements:
        raise Refusal(
            "gguf.rows-not-whole-blocks",
            where,
            found=f"rows of {tensor.shape[-1]} elements in {tensor.dtype}",
            expected=f"a multiple of {kind.block_elements}",
            fix="keep this tensor in q8_0 or f16",
        )


def _renamed(tensor: SourceTensor, name: str | None) -> SourceTensor:
    assert name is not None, f"no name in GGUF for {tensor.name}"
    return SourceTensor(name, tensor.dtype, tensor.shape, tensor.chunks)


def _rope_factors(architecture: Architecture) -> SourceTensor:
    assert architecture.rope_scaling is not None
    divisors = rope.divisors(
        architecture.rope_scaling,
        rope_theta=architecture.rope_theta,
        head_dim=architecture.head_dim,
    )
    data = divisors.tobytes()
    return SourceTensor(names.ROPE_FACTORS, "f32", divisors.shape, lambda: [memoryview(data)])
