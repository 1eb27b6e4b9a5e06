"""Whether tensors are exactly those of an architecture: every one used once, none left over.

Comparing counts of elements is not enough: upstream did, ignored what was left, and lost 72 biases
without a word. What may be there beside the architecture's tensors is a short list, and each of it
is compared with what it must equal.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from apr.architecture import Architecture
from apr.convert.huggingface.causes import cause_of_names, cause_of_shape
from apr.convert.source import SourceTensor
from apr.errors import Refusal

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"
FLOATS = ("f32", "f16", "bf16")
_BUFFER = re.compile(r"model\.(?:layers\.(\d+)\.self_attn\.)?rotary_emb\.inv_freq")
# The rounding of each type; in float32 frequencies are computed in more than one way.
_TOLERANCES = {"f32": 1e-6, "f16": 2**-10, "bf16": 2**-7}
_FIX = "config.json and weights are of two models; get both from one place"


@dataclass(frozen=True)
class Matched:
    """The tensors of an architecture, in model order, and what else was found equal."""

    tensors: Mapping[str, SourceTensor]
    notes: tuple[str, ...]


def match_tensors(
    architecture: Architecture,
    found: Mapping[str, SourceTensor],
    *,
    where: Path,
    is_tie_stated: bool = True,
) -> Matched:
    """The tensors of an architecture, once nothing is missing, left over or of another shape.

    A tied model may carry a copy of its embedding as its head, and a model of the first Llama days
    its rotary frequencies; both are compared and left out.

    Refuses: import.head-missing, import.tensor-missing, import.tensor-unexpected,
    import.tensor-dtype, import.tensor-shape-differs, import.tied-head-differs,
    import.rotary-buffer-differs.
    """
    expected = architecture.parameter_shapes()
    extras = {name for name in found if _BUFFER.fullmatch(name)}
    if architecture.tie_word_embeddings and HEAD in found:
        extras.add(HEAD)
    _require_names(architecture, set(expected), set(found) - extras, where, is_tie_stated)
    for name in expected:
        _require_float(found[name], where)
    _require_shapes(architecture, expected, found, where)
    notes: list[str] = []
    if HEAD in extras:
        _require_equal_head(found, where)
        notes.append(f"{HEAD} is a copy of the embedding, and was left out")
    buffers = sorted(extras - {HEAD})
    for name in buffers:
        _require_equal_frequencies(architecture, found[name], where)
    if buffers:
        notes.append(f"{len(buffers)} buffers of rotary frequencies equal rope_theta's")
    return Matched({name: found[name] for name in expected}, tuple(notes))


def _require_names(
    architecture: Architecture, expected: set[str], present: set[str], where: Path, is_stated: bool
) -> None:
    missing, unexpected = expected - present, present - expected
    if missing == {HEAD} and not unexpected:
        said = "says so" if is_stated else "leaves tie_word_embeddings out, which means the same"
        raise Refusal(
            "import.head-missing",
            where,
            found=f"no {HEAD}",
            expected=f"an output head, as the model is untied: config.json {said}",
            fix="if the model is tied, set tie_word_embeddings to true in config.json",
        )
    cause = cause_of_names(architecture, missing=missing, unexpected=unexpected)
    if unexpected:
        raise Refusal(
            "import.tensor-unexpected",
            where,
            found=f"{cause}: {_first_of(unexpected)}",
            expected=f"only the {len(expected)} tensors of the architecture",
            fix=_FIX,
        )
    if missing:
        raise Refusal(
            "import.tensor-missing",
            where,
            found=f"{cause}: no {_first_of(missing)}",
            expected=f"the {len(expected)} tensors of the architecture",
            fix=_FIX,
            upstream_id="FALSIFY-APR-PRETRAIN-INIT-007",
        )


def _require_float(tensor: SourceTensor, where: Path) -> None:
    if tensor.dtype not in FLOATS:
        raise Refusal(
            "import.tensor-dtype",
            f"{where}, tensor {tensor.name!r:.80}",
            found=f"{tensor.dtype} numbers",
            expected="one of " + ", ".join(FLOATS),
            fix="get the model as it was before it was quantised, in one of these types",
        )


def _require_shapes(
    architecture: Architecture,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, SourceTensor],
    where: Path,
) -> None:
    for name, shape in expected.items():
        if found[name].shape != shape:
            cause = cause_of_shape(architecture, {name: found[name].shape for name in expected})
            raise Refusal(
                "import.tensor-shape-differs",
                f"{where}, tensor {name!r}",
                found=f"{list(found[name].shape)}: {cause}",
                expected=f"{list(shape)}, from config.json",
                fix=_FIX,
            )


def _require_equal_head(found: Mapping[str, SourceTensor], where: Path) -> None:
    head, embedding = found[HEAD], found[EMBEDDING]
    if (head.dtype, head.shape) != (embedding.dtype, embedding.shape):
        _refuse_head(
            where,
            f"{head.dtype} {list(head.shape)}, the embedding is "
            f"{embedding.dtype} {list(embedding.shape)}",
        )
    # Two tensors of one size, read by one reader, come in equal pieces.
    for ours, theirs in zip(head.chunks(), embedding.chunks(), strict=True):
        if not np.array_equal(np.frombuffer(ours, "u1"), np.frombuffer(theirs, "u1")):
            _refuse_head(where, "other values than the embedding's")


def _require_equal_frequencies(
    architecture: Architecture, buffer: SourceTensor, where: Path
) -> None:
    half = architecture.head_dim // 2
    layer = _BUFFER.fullmatch(buffer.name)
    is_there = layer is not None and int(layer[1] or 0) < architecture.num_hidden_layers
    if buffer.dtype not in FLOATS or buffer.shape != (half,) or not is_there:
        _refuse_buffer(where, buffer, f"{buffer.dtype} {list(buffer.shape)}", f"{half} floats")
    if architecture.rope_scaling is not None:
        _refuse_buffer(where, buffer, "frequencies beside a rope_scaling", "no such buffer")
    raw = b"".join(buffer.chunks())
    if buffer.dtype == "bf16":
        stored = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    else:
        stored = np.frombuffer(raw, {"f32": "<f4", "f16": "<f2"}[buffer.dtype])
    exponents = np.arange(half, dtype=np.float64) / half
    wanted = architecture.rope_theta**-exponents
    tolerance = _TOLERANCES[buffer.dtype]
    smallest = 2.0**-24 if buffer.dtype == "f16" else 0.0
    # NaN is near nothing.
    differing = ~(np.abs(stored.astype(np.float64) - wanted) <= tolerance * wanted + smallest)
    if differing.any():
        at = int(np.argmax(differing))
        _refuse_buffer(
            where,
            buffer,
            f"frequency {at} is {float(stored[at]):.7g}",
            f"{float(wanted[at]):.7g}, from rope_theta {architecture.rope_theta:g}",
        )


def _refuse_head(where: Path, found: str) -> NoReturn:
    raise Refusal(
        "import.tied-head-differs",
        f"{where}, tensor {HEAD!r}",
        found=found,
        expected="no head of its own, or an exact copy of the embedding: config.json says tied",
        fix="if the head was trained by itself, set tie_word_embeddings to false in config.json",
    )


def _refuse_buffer(where: Path, buffer: SourceTensor, found: str, expected: str) -> NoReturn:
    raise Refusal(
        "import.rotary-buffer-differs",
        f"{where}, tensor {buffer.name!r:.80}",
        found=found,
        expected=expected,
        fix="rope_theta in config.json is not what the model was trained with",
    )


def _first_of(names: set[str]) -> str:
    first = sorted(names)[0]
    return f"{first:.80}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
