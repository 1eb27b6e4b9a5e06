"""Writing a Hugging Face directory: what `AutoModelForCausalLM.from_pretrained` reads, and no more.

Configuration and tensors are written from one architecture, and the finished config.json is read
back into it; a key that Hugging Face's class would fill in by itself is spelled out.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from apr.architecture import Architecture
from apr.convert.huggingface import keys
from apr.convert.huggingface.config import read_config_object, read_hf_config
from apr.convert.huggingface.files import INDEX, WEIGHTS
from apr.convert.huggingface.safetensors_writer import size_bytes, write_safetensors
from apr.convert.huggingface.tensors import FLOATS
from apr.convert.huggingface.tokenizer import require_hf_reads_tokenizer, write_hf_tokenizer
from apr.convert.source import SourceTensor
from apr.errors import Refusal
from apr.files import (
    atomic_directory,
    require_absent,
    require_replaceable,
    require_writable_place,
    write_bytes,
    write_json,
)
from apr.progress import Report, silent
from apr.tokenizer.tokenizer import Tokenizer

_OUR_FILES = (
    r"(config|generation_config|tokenizer|tokenizer_config|manifest)\.json|chat_template\.jinja"
    r"|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
)
# What a source says of itself, and would be untrue or useless of what is written here.
_NOT_OURS = {"torch_dtype", "dtype", "_name_or_path", "transformers_version", "auto_map"}
_TORCH_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
# transformers 4.57 takes a directory without this key for an old one of Mistral's, and warns of it.
_SPELLING_OF = "5.0.0"
_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def write_hf_directory(
    output: Path,
    *,
    architecture: Architecture,
    tensors: Mapping[str, SourceTensor],
    tokenizer: Tokenizer | None,
    hf_config: Mapping[str, Any],
    generation_config: Mapping[str, Any] | None,
    chat_template: str | None,
    max_shard_bytes: int = 5_000_000_000,
    overwrite: bool = False,
    progress: Report = silent,
) -> None:
    """Write a model as a directory that Hugging Face's libraries load, whole or not at all.

    `hf_config` is what a source said beside its architecture; ids of special tokens come from it
    and from nowhere else.

    Refuses: export.tensors-differ, export.not-expressible, export.tokenizer-misread,
    export.read-back, files.exists, files.foreign-content, files.io-failed, and as
    `write_safetensors`.
    Writes: config.json; model.safetensors, or an index and its files; generation_config.json,
    tokenizer.json, tokenizer_config.json, manifest.json and chat_template.jinja where there is one.
    """
    require_hf_writable(output, overwrite=overwrite)
    _require_expressible(architecture, output)
    _require_tensors(architecture, tensors, output)
    if tokenizer is not None:
        require_hf_reads_tokenizer(architecture, tokenizer)
    config = _config(architecture, tensors, hf_config)
    ids = {key: config[key] for key in _TOKEN_IDS if config[key] is not None}
    generation = dict(generation_config) if generation_config is not None else ids
    with atomic_directory(output, overwrite=overwrite) as staged:
        write_json(staged / "config.json", config)
        _require_reads_back(staged / "config.json", architecture, output)
        if generation:
            write_json(staged / "generation_config.json", generation)
        if tokenizer is not None:
            write_hf_tokenizer(staged, tokenizer, config)
        if chat_template is not None:
            write_bytes(staged / "chat_template.jinja", chat_template.encode("utf-8"))
        ordered = [tensors[name] for name in architecture.parameter_shapes()]
        _write_weights(staged, ordered, max_shard_bytes, progress)


def require_hf_writable(output: Path, *, overwrite: bool) -> None:
    """Refuse a target that holds something else, before any work is done for it.

    Refuses: files.exists, files.foreign-content, files.io-failed.
    """
    require_absent(output, overwrite=overwrite)
    require_writable_place(output)
    require_replaceable(output, names=_OUR_FILES, what="a model of Hugging Face's libraries")


def _require_expressible(architecture: Architecture, output: Path) -> None:
    rest = architecture.hidden_size % architecture.num_attention_heads
    if architecture.model_type == "llama" and rest:
        raise Refusal(
            "export.not-expressible",
            output,
            found=f"{architecture.num_attention_heads} heads, which do not divide a hidden_size of "
            f"{architecture.hidden_size}",
            expected="a Llama that LlamaForCausalLM accepts",
            fix="export to another format",
        )


def _require_tensors(
    architecture: Architecture, tensors: Mapping[str, SourceTensor], output: Path
) -> None:
    expected = architecture.parameter_shapes()
    differing = sorted(
        name
        for name in {*expected, *tensors}
        if name not in tensors
        or tensors[name].shape != expected.get(name)
        or tensors[name].dtype not in FLOATS
        or tensors[name].name != name
    )
    if differing:
        tensor = tensors.get(differing[0])
        found = f"{tensor.dtype} {list(tensor.shape)}" if tensor else "no such tensor"
        shape = expected.get(differing[0])
        raise Refusal(
            "export.tensors-differ",
            f"{output}, tensor {differing[0]!r:.80}",
            found=found,
            expected=f"{' or '.join(FLOATS)} {list(shape)}" if shape else "no such tensor",
            fix="write exactly the tensors of the architecture; nothing was written",
        )


def _config(
    architecture: Architecture, tensors: Mapping[str, SourceTensor], hf_config: Mapping[str, Any]
) -> dict[str, Any]:
    ours = keys.READ | set(keys.NEUTRAL) | _NOT_OURS
    recorded = {key: value for key, value in hf_config.items() if key not in ours}
    dtypes = {tensor.dtype for tensor in tensors.values()}
    # Libraries load all tensors as one type; of several only float32 holds the values of each.
    dtype = dtypes.pop() if len(dtypes) == 1 else "f32"
    return (
        # Null, where nothing is recorded: Llama's class has ids of its own for a key left out.
        dict.fromkeys(_TOKEN_IDS)
        | recorded
        | architecture.to_hf_config()
        | {"torch_dtype": _TORCH_DTYPES[dtype], "transformers_version": _SPELLING_OF}
    )


def _require_reads_back(path: Path, architecture: Architecture, output: Path) -> None:
    try:
        found = read_hf_config(read_config_object(path), where=path).architecture
    except Refusal as err:
        raise _not_read_back(
            output, f"{err.id}: {err.where.rpartition('/')[2]}, {err.found}"
        ) from err
    if found != architecture:
        raise _not_read_back(output, repr(found))


def _not_read_back(output: Path, found: str) -> Refusal:
    return Refusal(
        "export.read-back",
        output / "config.json",
        found=found,
        expected="a config.json that says what the model is",
        fix="leave the recorded key out; nothing was written",
    )


def _write_weights(
    directory: Path, tensors: Sequence[SourceTensor], max_shard_bytes: int, progress: Report
) -> None:
    shards = list(_shards(tensors, max_shard_bytes))
    if len(shards) == 1:
        write_safetensors(directory / WEIGHTS, shards[0], progress=progress)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_safetensors(directory / file, shard, progress=progress)
        weight_map |= {tensor.name: file for tensor in shard}
    total_bytes = sum(map(size_bytes, tensors))
    index = {"metadata": {"total_size": total_bytes}, "weight_map": weight_map}
    write_json(directory / INDEX, index)


def _shards(
    tensors: Sequence[SourceTensor], max_shard_bytes: int
) -> Iterator[Sequence[SourceTensor]]:
    """Tensors in their order, in groups that fit; a larger one is a group by itself."""
    shard: list[SourceTensor] = []
    shard_bytes = 0
    for tensor in tensors:
        if shard and shard_bytes + size_bytes(tensor) > max_shard_bytes:
            yield shard
            shard, shard_bytes = [], 0
        shard.append(tensor)
        shard_bytes += size_bytes(tensor)
    yield shard
