"""A GGUF file as a `Source`: its architecture, its tensors under Hugging Face's names, the rest.

The architecture comes from the file's own fields and tensors and from nothing else: every key of
the family is read, harmless or refused, and every tensor is used exactly once with exactly its
shape.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from apr.architecture import Architecture, RopeScaling
from apr.convert.gguf import names, rope, rows, vocabulary
from apr.convert.gguf.hyperparameters import ADJACENT, Hyperparameters, read_hyperparameters
from apr.convert.gguf.layout import BY_DTYPE
from apr.convert.gguf.metadata import Metadata
from apr.convert.gguf.reader import GgufFile, read_gguf
from apr.convert.gguf.vocabulary import read_vocabulary
from apr.convert.source import ReferenceConfig, Source, SourceTensor
from apr.errors import DamagedFile, Refusal

_EMBEDDING = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"
# The ids after the first end a generation too; llama.cpp has a key for each.
EOS_KEYS = (
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
)
BOS_KEY = "tokenizer.ggml.bos_token_id"
PAD_KEY = "tokenizer.ggml.padding_token_id"


@dataclass(frozen=True)
class _Rotary:
    """What a file says of its rotary frequencies beyond their base."""

    scaling: RopeScaling | None
    factors: tuple[float, ...] | None
    notes: tuple[str, ...] = ()


def read_gguf_source(path: Path) -> Source:
    """Read a model from a GGUF file; the values of its tensors are read later, in pieces.

    Refuses: what `read_gguf`, `read_hyperparameters` and `read_vocabulary` refuse,
    gguf.tensor-type-unsupported, gguf.rope-scaling-unknown, gguf.rope-factors,
    gguf.vocab-size-differs, gguf.special-id, import.tensor-unexpected, import.tensor-missing,
    import.tensor-shape-differs, architecture.shape.
    """
    file = read_gguf(path)
    metadata = Metadata(file.fields, where=str(path))
    parameters = read_hyperparameters(metadata)
    stored, factors = _stored(file, parameters)
    vocab_size = _vocab_size(file, parameters, stored)
    is_tied, tie_notes = _tie_state(file, stored)
    if is_tied:
        stored.pop(_HEAD, None)
    # Before a list of its parameters is made: the number of layers is a claim too.
    _require_tensor_count(file, parameters)
    plain = parameters.architecture(vocab_size=vocab_size, is_tied=is_tied)
    rotary = _rotary(file, plain, factors)
    architecture = replace(plain, rope_scaling=rotary.scaling)
    stored = _exactly(architecture, stored, where=str(path))
    read = read_vocabulary(metadata, vocab_size=vocab_size)
    is_adjacent = parameters.model_type == ADJACENT
    return Source(
        where=path,
        format="gguf",
        architecture=architecture,
        tensors=_in_halves(stored, parameters.head_dim) if is_adjacent else stored,
        stored=stored,
        reference=ReferenceConfig(
            vocab_size=vocab_size,
            hidden_size=parameters.hidden_size,
            num_hidden_layers=parameters.num_layers,
            num_attention_heads=parameters.num_heads,
            num_key_value_heads=parameters.num_kv_heads,
            head_dim=parameters.head_dim,
            rms_norm_eps=parameters.rms_norm_eps,
            rope_theta=parameters.rope_theta,
            rope_scaling=None,
            rope_factors=rotary.factors,
            rotary_pairs="adjacent" if is_adjacent else "halves",
        ),
        tokenizer=read.tokenizer,
        hf_config=_special_ids(metadata, vocab_size),
        generation_config=None,
        chat_template=metadata.text(vocabulary.CHAT_TEMPLATE),
        said={"license": license} if (license := metadata.text("general.license")) else {},
        files=(path,),
        notes=(*parameters.notes, *tie_notes, *rotary.notes, *read.notes),
    )


def _stored(
    file: GgufFile, parameters: Hyperparameters
) -> tuple[dict[str, SourceTensor], SourceTensor | None]:
    """The tensors by Hugging Face's names, and the divisors of the frequencies."""
    stored: dict[str, SourceTensor] = {}
    factors: SourceTensor | None = None
    for info in file.tensors.values():
        where = f"{file.path}, tensor {info.name!r}"
        if info.type.dtype is None:
            raise Refusal(
                "gguf.tensor-type-unsupported",
                where,
                found=f"data type {info.type.name}",
                expected="one of " + ", ".join(kind.name for kind in BY_DTYPE.values()),
                fix="convert it first: llama-quantize --allow-requantize FILE OUTPUT Q8_0",
            )
        name = names.to_hf(info.name)
        tensor = SourceTensor(
            name=name or info.name,
            dtype=info.type.dtype,
            shape=info.shape,
            chunks=file.chunks(info.name),
        )
        if name is not None:
            stored[name] = tensor
        elif info.name == names.ROPE_FACTORS and parameters.model_type == ADJACENT:
            factors = tensor
        else:
            raise _unexpected(where, info.shape)
    return stored, factors


def _unexpected(where: str, shape: tuple[int, ...]) -> Refusal:
    return Refusal(
        "import.tensor-unexpected",
        where,
        found=f"a tensor of shape {list(shape)}",
        expected="only tensors that the architecture has",
        fix="use a model of a supported family; leaving the tensor out would compute another one",
    )


def _missing(where: object, found: str, expected: str) -> Refusal:
    return Refusal(
        "import.tensor-missing",
        where,
        found=found,
        expected=expected,
        fix="fetch the file again from its source, or convert the model again",
    )


def _vocab_size(
    file: GgufFile, parameters: Hyperparameters, stored: Mapping[str, SourceTensor]
) -> int:
    embedding = stored.get(_EMBEDDING)
    if embedding is None:
        raise _missing(file.path, "no token_embd.weight", "an embedding")
    rows = embedding.shape[0]
    if parameters.vocab_size not in (None, rows):
        raise DamagedFile(
            "gguf.vocab-size-differs",
            file.path,
            found=f"{rows} rows of the embedding",
            expected=f"{parameters.vocab_size}, as vocab_size says",
            fix="convert the model again with a current llama.cpp",
        )
    return rows


def _tie_state(file: GgufFile, stored: Mapping[str, SourceTensor]) -> tuple[bool, tuple[str, ...]]:
    """Whether the head is the embedding: by definition where it is absent, else by its bytes."""
    if _HEAD not in stored:
        return True, ()
    head, embedding = stored[_HEAD], stored[_EMBEDDING]
    if (head.dtype, head.shape) != (embedding.dtype, embedding.shape):
        return False, ()
    if _sha256(head) != _sha256(embedding):
        return False, ()
    return True, (
        "output.weight repeats token_embd.weight byte by byte: read as tied, stored once",
    )


def _sha256(tensor: SourceTensor) -> bytes:
    digest = hashlib.sha256()
    for chunk in tensor.chunks():
        digest.update(chunk)
    return digest.digest()


def _rotary(file: GgufFile, architecture: Architecture, factors: SourceTensor | None) -> _Rotary:
    if factors is None:
        return _Rotary(None, None)
    where = f"{file.path}, tensor {names.ROPE_FACTORS!r}"
    expected = (architecture.head_dim // 2,)
    if factors.dtype != "f32" or factors.shape != expected:
        raise _bad_factors(where, f"{factors.dtype} {list(factors.shape)}", f"f32 {list(expected)}")
    found = np.frombuffer(b"".join(factors.chunks()), dtype="<f4")
    if not (np.isfinite(found).all() and (found > 0).all()):
        raise _bad_factors(where, "a divisor that is not positive", "positive finite divisors")
    divisors = tuple(found.tolist())
    if (found == 1).all():
        return _Rotary(None, divisors, (f"{names.ROPE_FACTORS} divides by 1: left out",))
    scaling = rope.find_scaling(
        found,
        file.fields,
        rope_theta=architecture.rope_theta,
        head_dim=architecture.head_dim,
        where=where,
    )
    return _Rotary(scaling, divisors)


def _bad_factors(where: str, found: str, expected: str) -> DamagedFile:
    return DamagedFile(
        "gguf.rope-factors",
        where,
        found=found,
        expected=f"{expected}, one per pair of a head",
        fix="convert the model again with a current llama.cpp",
    )


def _require_tensor_count(file: GgufFile, parameters: Hyperparameters) -> None:
    if parameters.num_layers > len(file.tensors):
        raise _missing(
            file.path,
            f"{len(file.tensors)} tensors",
            f"those of {parameters.num_layers} layers",
        )


def _exactly(
    architecture: Architecture, stored: Mapping[str, SourceTensor], *, where: str
) -> dict[str, SourceTensor]:
    """The tensors in model order, once they are the architecture's, no more and no fewer."""
    shapes = architecture.parameter_shapes()
    for name, tensor in stored.items():
        at = f"{where}, tensor {names.to_gguf(name)!r}"
        if name not in shapes:
            raise _unexpected(at, tensor.shape)
        if tensor.shape != shapes[name]:
            raise Refusal(
                "import.tensor-shape-differs",
                at,
                found=f"shape {list(tensor.shape)}",
                expected=f"{list(shapes[name])}, which follows from the file's fields",
                fix="fetch the file again from its source, or convert the model again",
            )
    absent = [name for name in shapes if name not in stored]
    if absent:
        listed = ", ".join(names.to_gguf(name) or name for name in absent[:4])
        more = f" and {len(absent) - 4} more" if len(absent) > 4 else ""
        raise _missing(where, f"no {listed}{more}", f"all {len(shapes)} tensors")
    return {name: stored[name] for name in shapes}


def _in_halves(stored: Mapping[str, SourceTensor], head_dim: int) -> dict[str, SourceTensor]:
    return {
        name: rows.to_halves(tensor, head_dim=head_dim) if rows.is_turned(name) else tensor
        for name, tensor in stored.items()
    }


def _special_ids(metadata: Metadata, vocab_size: int) -> dict[str, Any]:
    """The ids of special tokens, as Hugging Face's config.json names them."""
    ends = [_id(metadata, key, vocab_size) for key in EOS_KEYS if key in metadata]
    ends = list(dict.fromkeys(ends))
    ids: dict[str, Any] = {}
    if BOS_KEY in metadata:
        ids["bos_token_id"] = _id(metadata, BOS_KEY, vocab_size)
    if ends:
        ids["eos_token_id"] = ends[0] if len(ends) == 1 else ends
    if PAD_KEY in metadata:
        ids["pad_token_id"] = _id(metadata, PAD_KEY, vocab_size)
    return ids


def _id(metadata: Metadata, key: str, vocab_size: int) -> int:
    id = metadata.integer(key)
    if 0 <= id < vocab_size:
        return id
    raise DamagedFile(
        "gguf.special-id",
        f"{metadata.where}, field {key}",
        found=f"id {id}",
        expected=f"0 to {vocab_size - 1}",
        fix="convert the model again with a current llama.cpp",
    )
