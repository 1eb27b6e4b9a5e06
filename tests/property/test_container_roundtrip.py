"""Whatever is written is read back, and whatever is read without being written is refused."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.container_files import GOLDEN, build, f32, sealed

from apr.container.inspecting.validation import validate
from apr.container.named_keys import Metadata
from apr.container.reader import Container
from apr.container.writer import TensorSource, write_container
from apr.errors import Refusal

WIDTHS = {"f32": 4, "f16": 2, "bf16": 2}

quickly = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | texts
    # Every finite float, because JSON text must bring back each bit.
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
floats = st.floats(min_value=0, max_value=3e38, exclude_min=True)
metadata = st.builds(
    lambda named, free: Metadata.model_validate(named).with_free(free),
    st.fixed_dictionaries(
        {"model_type": texts},
        optional={
            "license": texts,
            "param_count": st.integers(0, 2**64 - 1),
            "hidden_size": st.integers(0, 2**64 - 1),
            "rope_theta": floats,
            "rms_norm_eps": floats,
            "special_tokens": st.fixed_dictionaries({"eos_token": texts}),
        },
    ),
    st.dictionaries(texts.map("free.{}".format), json_values, max_size=4),
)


@st.composite
def tensors(draw: st.DrawFn) -> list[TensorSource]:
    names = draw(st.lists(texts, max_size=5, unique=True))
    return [draw(_tensor(name)) for name in names]


@st.composite
def _tensor(draw: st.DrawFn, name: str) -> TensorSource:
    dtype = draw(st.sampled_from(sorted(WIDTHS)))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
    size_bytes = int(np.prod(shape)) * WIDTHS[dtype]
    data = draw(st.binary(min_size=size_bytes, max_size=size_bytes))
    return TensorSource(name, dtype, shape, lambda: [memoryview(data)])


@quickly
@given(metadata=metadata, tensors=tensors())
def test_what_is_written_is_read(
    tmp_path: Path, metadata: Metadata, tensors: list[TensorSource]
) -> None:
    path = tmp_path / "x.apr"
    write_container(path, metadata=metadata, tensors=tensors, overwrite=True)
    with Container.open(path) as container:
        assert container.verify().num_tensors == len(tensors)
        assert container.metadata == metadata
        assert set(container.tensors) == {tensor.name for tensor in tensors}
        assert list(container.tensors) == sorted(container.tensors, key=str.encode)
        for tensor in tensors:
            assert container.tensors[tensor.name].shape == tensor.shape
            assert container.tensors[tensor.name].dtype == tensor.dtype
            assert container.array(tensor.name).shape == tensor.shape
            assert bytes(container.raw(tensor.name)) == b"".join(tensor.chunks())


@quickly
@given(theta=floats, eps=floats)
def test_floats_come_back_to_the_bit(tmp_path: Path, theta: float, eps: float) -> None:
    path = tmp_path / "x.apr"
    given_metadata = Metadata(rope_theta=theta, rms_norm_eps=eps)
    write_container(path, metadata=given_metadata, tensors=[], overwrite=True)
    with Container.open(path) as container:
        assert container.metadata.rope_theta == theta
        assert container.metadata.rms_norm_eps == eps


def _only_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with suppress(Refusal):
        assert validate(path).verdict in ("PASS", "FAIL", "UNKNOWN")


@quickly
@given(data=st.binary(max_size=600))
def test_random_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.apr"
    path.write_bytes(data)
    with pytest.raises(Refusal):
        Container.open(path)


MODEL_LIKE: dict[str, Any] = {
    "model_type": "llama",
    "hf_architecture": "LlamaForCausalLM",
    "hf_model_type": "llama",
    "hidden_size": 4,
    "num_layers": 1,
    "apr.tensor_sha256": {"model.norm.weight": "0" * 64},
    "tokenizer.vocabulary": ["a", "b"],
    "apr.tokenizer_json_zlib": "eJyrrgUAAXUA+Q==",
}
SOUND = (GOLDEN, build(MODEL_LIKE, [f32("model.norm.weight", 1.0, 2.0)]))


@settings(quickly, max_examples=300)
@given(data=st.data())
def test_random_damage_behind_right_checksums_is_refused_or_judged(
    tmp_path: Path, data: st.DataObject
) -> None:
    original = bytearray(data.draw(st.sampled_from(SOUND)))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(original) - 5))
        new = data.draw(st.sampled_from([b"\0", b"\xff", b"\x80", b"\1\0\0\0", b"\xff" * 8, b"}"]))
        original[at : at + len(new)] = new
    _only_refused(tmp_path / "x.apr", sealed(bytes(original[:-4])))


@quickly
@given(free=st.dictionaries(st.sampled_from([*MODEL_LIKE, "n_layers", "d_model"]), json_values))
def test_any_json_under_any_key_is_refused_or_judged(tmp_path: Path, free: dict[str, Any]) -> None:
    text = json.dumps(MODEL_LIKE | free, ensure_ascii=False).encode()
    _only_refused(tmp_path / "x.apr", build(text, [f32("model.norm.weight", 1.0, 2.0)]))
