"""What differs between two containers: metadata, names, shapes, types, values.

Without a tolerance only the same content is the same. With one, values may differ by that much and
metadata may tell another story of the same model (provenance, licences, recorded hashes); another
shape, type, identity or tokenizer is another model whatever was allowed.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

from apr.container import free_keys, layout
from apr.container.inspecting.value_difference import ValueDifference, differences
from apr.container.reader import Container
from apr.errors import UsageRefusal
from apr.files import sha256_bytes
from apr.progress import Progress, Report, silent

Kind = Literal["identity", "tokenizer", "provenance", "recorded", "other"]

_IDENTITY = {
    "architecture",
    "hf_architecture",
    "hf_model_type",
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "vocab_size",
    "intermediate_size",
    "max_position_embeddings",
    "rope_theta",
    "rope_type",
    "rms_norm_eps",
    "head_dim",
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "apr.rope_scaling",
    free_keys.TIED,
}
_TOKENIZER = {
    "chat_template",
    "chat_format",
    "special_tokens",
    free_keys.TOKENIZER_JSON,
    free_keys.TOKENIZER_FINGERPRINT,
    free_keys.EOS_TOKEN,
}
_PROVENANCE = {
    "name",
    "description",
    "author",
    "license",
    "data_source",
    "data_license",
    "version",
    "source",
    "original_format",
    "created_at",
    free_keys.PROVENANCE,
    free_keys.PRETRAINING_TOKENS,
}
_RECORDED = {"model_type", "total_size", "param_count", "quantization", free_keys.TENSOR_SHA256}
_BLOCKING: tuple[Kind, ...] = ("identity", "tokenizer")
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True)
class TensorDifference:
    """What differs between the tensors of two files."""

    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    shape: tuple[dict[str, Any], ...]
    dtype: tuple[dict[str, Any], ...]
    values: tuple[ValueDifference, ...]
    """Tensors of one name and shape in which something differs."""
    not_compared: tuple[str, ...]
    """In both files, and yet not to be compared, as their shapes differ."""

    @property
    def is_other_model(self) -> bool:
        """Whether names, shapes or types differ."""
        return bool(self.only_a or self.only_b or self.shape or self.dtype)


@dataclass(frozen=True)
class ContainerDifference:
    """Everything that differs between two files."""

    a: str
    b: str
    tolerance: float | None
    format: tuple[dict[str, Any], ...]
    """Header fields that differ: version, flags, footer."""
    metadata: tuple[dict[str, Any], ...]
    tensors: TensorDifference
    compared_tensors: int
    compared_values: int

    @property
    def same(self) -> bool:
        """Whether nothing at all differs, and something was compared."""
        tensors = self.tensors
        differs = tensors.is_other_model or tensors.values or self.metadata or self.format
        return bool(self.compared_values) and not differs

    @property
    def verdict(self) -> Literal["PASS", "FAIL", "UNKNOWN"]:
        """PASS when the two are the same, or close enough where a tolerance was given."""
        if not self.compared_values:
            return "UNKNOWN"
        if self.tolerance is None:
            return "PASS" if self.same else "FAIL"
        is_apart = (
            self.tensors.is_other_model
            or any(each["kind"] in _BLOCKING for each in self.metadata)
            or any(each.exceeds(self.tolerance) for each in self.tensors.values)
        )
        return "FAIL" if is_apart else "PASS"

    def as_dict(self) -> dict[str, Any]:
        """The object that `apr diff --json` prints."""
        return {"verdict": self.verdict, "same": self.same} | asdict(self)


def diff_containers(
    a: Path, b: Path, *, tolerance: float | None = None, progress: Report = silent
) -> ContainerDifference:
    """Compare two containers, tensors piece by piece.

    Refuses: diff.tolerance, container.truncated, and as `Container.open`.
    """
    if tolerance is not None and not 0 <= tolerance < float("inf"):
        raise UsageRefusal(
            "diff.tolerance",
            "--tolerance",
            found=tolerance,
            expected="a finite number, 0 or more",
            fix="give the largest difference that counts as none",
        )
    with Container.open(a) as left, Container.open(b) as right:
        common = [name for name in left.tensors if name in right.tensors]
        pairs = [(left.tensors[name], right.tensors[name]) for name in common]
        comparable = [ours.name for ours, theirs in pairs if ours.shape == theirs.shape]
        compared = list(_compared(left, right, comparable, progress))
        return ContainerDifference(
            a=str(a),
            b=str(b),
            tolerance=tolerance,
            format=tuple(_format(left, right)),
            metadata=tuple(_metadata(left, right)),
            tensors=TensorDifference(
                only_a=tuple(name for name in left.tensors if name not in right.tensors),
                only_b=tuple(name for name in right.tensors if name not in left.tensors),
                shape=tuple(
                    {"name": ours.name, "a": list(ours.shape), "b": list(theirs.shape)}
                    for ours, theirs in pairs
                    if ours.shape != theirs.shape
                ),
                dtype=tuple(
                    {"name": ours.name, "a": ours.dtype, "b": theirs.dtype}
                    for ours, theirs in pairs
                    if ours.dtype != theirs.dtype
                ),
                values=tuple(each for each in compared if each.num_different),
                not_compared=tuple(name for name in common if name not in {*comparable}),
            ),
            compared_tensors=len(compared),
            compared_values=sum(each.num_compared for each in compared),
        )


def _compared(
    a: Container, b: Container, names: list[str], progress: Report
) -> Iterator[ValueDifference]:
    total_bytes = sum(a.tensors[name].size_bytes for name in names)
    done_bytes = 0
    for name in names:
        num_read = 0
        for num_read, result in differences(a, b, name):
            done = done_bytes + num_read
            progress(Progress("comparing", done, total_bytes, "bytes", detail=name))
            if result is not None:
                yield result
        done_bytes += num_read


def _format(a: Container, b: Container) -> Iterator[dict[str, Any]]:
    for field, (ours, theirs) in {
        "version": [list(side.sections.header.version) for side in (a, b)],
        "flags": [layout.flag_names(side.sections.header.flags) for side in (a, b)],
        "has_footer": [side.sections.has_footer for side in (a, b)],
    }.items():
        if ours != theirs:
            yield {"field": field, "a": ours, "b": theirs}


def _metadata(a: Container, b: Container) -> Iterator[dict[str, Any]]:
    ours, theirs = a.metadata.spelled(), b.metadata.spelled()
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        # By their text, because 2 == 2.0 == True.
        texts = {
            side: json.dumps(values[key], sort_keys=True, ensure_ascii=False)
            for side, values in (("a", ours), ("b", theirs))
            if key in values
        }
        if len(texts) == 2 and texts["a"] == texts["b"]:
            continue
        shown = {
            side: _shown({"a": ours, "b": theirs}[side][key], text) for side, text in texts.items()
        }
        yield {"key": key, "kind": _kind(key)} | shown


def _kind(key: str) -> Kind:
    if key in _IDENTITY:
        return "identity"
    if key in _TOKENIZER or key.startswith("tokenizer."):
        return "tokenizer"
    if key in _PROVENANCE:
        return "provenance"
    return "recorded" if key in _RECORDED else "other"


def _shown(value: Any, text: str) -> Any:
    """A value, or what is left of a long one: its kind, its length and its hash."""
    if len(text) <= _SHOWN_CHARACTERS:
        return value
    length = len(cast(list[Any] | dict[str, Any] | str, value))
    digest = sha256_bytes(text.encode("utf-8"))
    return {"type": type(value).__name__, "length": length, "sha256": digest}
