"""Changes of number format: rounding as torch rounds, and what does not fit is refused."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tests.source_models import tensor

from apr.container.layout import DTYPES
from apr.convert.precision import QUANTIZATIONS, chosen_formats, converted, is_exact
from apr.convert.source import SourceTensor
from apr.convert.weights import decoded_chunks
from apr.errors import Refusal
from apr.quantization.formats import dequantize

SINGLES = arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(-65000, 65000, width=32))


def stored(each: SourceTensor) -> bytes:
    return b"".join(each.chunks())


@given(SINGLES)
def test_bf16_and_f16_are_torchs(values: np.ndarray) -> None:
    made = tensor("w", values)
    for dtype, kind in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        expected = torch.from_numpy(values.copy()).to(kind).view(torch.uint16).numpy()
        assert stored(converted(made, dtype)) == expected.tobytes()


def test_every_bf16_border_rounds_as_torchs() -> None:
    """Halfway between two values, just below and just above, in every exponent and sign."""
    upper = np.arange(0, 1 << 16, 7, dtype=np.uint32)
    bits = ((upper[:, None] << 16) | np.array([0, 0x7FFF, 0x8000, 0x8001], np.uint32)).ravel()
    values = bits.view(np.float32)
    expected = torch.from_numpy(values.copy()).to(torch.bfloat16)
    fits = np.isfinite(values) & torch.isfinite(expected).numpy()
    assert fits.sum() > 30_000
    found = stored(converted(tensor("w", values[fits]), "bf16"))
    assert found == expected.view(torch.uint16).numpy()[fits].tobytes()


@given(arrays.arrays(np.uint16, st.integers(1, 50)))
def test_widening_is_exact(bits: np.ndarray) -> None:
    halves = bits.view(np.float16)
    finite = np.ascontiguousarray(halves[np.isfinite(halves)])
    if finite.size:
        assert stored(converted(tensor("w", finite), "f32")) == finite.astype("<f4").tobytes()
    brains = bits[(bits & 0x7FFF) < 0x7F80]
    if brains.size:
        wide = stored(converted(tensor("w", brains), "f32"))
        assert stored(converted(tensor("w", np.frombuffer(wide, "<f4")), "bf16")) == (
            brains.tobytes()
        )


def test_the_same_format_is_the_same_tensor() -> None:
    made = tensor("w", np.ones((2, 3), np.float32))
    assert converted(made, "f32") is made


@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8", "q4", "q4_k", "q8_0"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(dtype: str, bad: float) -> None:
    values = np.ones(256, np.float32)
    values[7] = bad
    with pytest.raises(Refusal) as refused:
        stored(converted(tensor("w", values), dtype))
    assert (refused.value.id, refused.value.where) == ("convert.not-finite", "tensor 'w'")
    values[7] = 1.0
    assert stored(converted(tensor("w", values), dtype))


@pytest.mark.parametrize(
    ("dtype", "largest", "too_large"),
    [("f16", 65519.0, 65520.0), ("bf16", 3.3895e38, 3.3961775e38)],
)
def test_an_overflow_is_refused(dtype: str, largest: float, too_large: float) -> None:
    """The largest value that still rounds down to a finite one, and the next that does not."""
    kind = {"f16": torch.float16, "bf16": torch.bfloat16}[dtype]
    for value, fits in ((largest, True), (too_large, False)):
        for sign in (1, -1):
            values = np.array([1.0, sign * value], np.float32)
            assert bool(torch.from_numpy(values).to(kind).isfinite().all()) is fits
            if fits:
                assert stored(converted(tensor("w", values), dtype))
                continue
            with pytest.raises(Refusal) as refused:
                stored(converted(tensor("w", values), dtype))
            assert refused.value.id == "convert.overflow"
            assert f"{value:g}" in refused.value.found


def in_pieces(values: np.ndarray, cuts: Iterable[int]) -> SourceTensor:
    parts = np.split(values, list(cuts))
    return SourceTensor("w", "f32", values.shape, lambda: [part.data.cast("B") for part in parts])


@pytest.mark.parametrize("dtype", ["q8", "q4", "q4_k", "q8_0"])
def test_blocks_do_not_depend_on_how_a_tensor_is_read(dtype: str) -> None:
    values = np.random.default_rng(0).standard_normal(2048).astype(np.float32)
    whole = stored(converted(tensor("w", values), dtype))
    assert stored(converted(in_pieces(values, [1, 300, 301, 1999]), dtype)) == whole
    back = dequantize(dtype, whole, values.size)
    assert 0 < np.abs(back - values).max() < 0.6
    decoded = np.concatenate(list(decoded_chunks(converted(tensor("w", values), dtype))))
    assert np.array_equal(decoded, back)


def test_which_format_each_tensor_gets() -> None:
    shapes = {
        "model.embed_tokens.weight": (300, 256),
        "lm_head.weight": (300, 256),
        "model.norm.weight": (256,),
        "model.layers.0.self_attn.q_proj.weight": (256, 256),
        "model.layers.0.mlp.down_proj.weight": (256, 48),
        "model.layers.0.self_attn.q_proj.bias": (256,),
    }
    made = {name: SourceTensor(name, "bf16", shape, list) for name, shape in shapes.items()}
    inside = [name for name in shapes if name.endswith(("q_proj.weight", "down_proj.weight"))]
    assert set(chosen_formats(made, None).values()) == {"bf16"}
    for quantize, dtype in (("fp16", "f16"), ("bf16", "bf16")):
        assert set(chosen_formats(made, quantize).values()) == {dtype}  # type: ignore[arg-type]
    for quantize, dtypes in (("int8", "q8"), ("int4", "q4")):
        found = chosen_formats(made, quantize)  # type: ignore[arg-type]
        assert [name for name in shapes if found[name] == dtypes] == inside
        assert {found[name] for name in shapes if name not in inside} == {"bf16"}
    found = chosen_formats(made, "q4k")
    # Rows of 48 have no block of 256.
    assert [found[name] for name in inside] == ["q4_k", "q8"]
    # What only GGUF has is widened.
    alone = {"w": replace(made[inside[0]], dtype="q8_0")}
    assert chosen_formats(alone, None) == {"w": "f32"}
    assert len(QUANTIZATIONS) == 5


def test_what_is_exact() -> None:
    floats = [name for name in ("f32", "f16", "bf16") if name in DTYPES]
    assert [(a, b) for a in floats for b in floats if is_exact(a, b)] == [
        ("f32", "f32"),
        ("f16", "f32"),
        ("f16", "f16"),
        ("bf16", "f32"),
        ("bf16", "bf16"),
    ]
    assert is_exact("q4", "q4")
    assert is_exact("q8_0", "f32")
    assert not is_exact("q8", "f16")
