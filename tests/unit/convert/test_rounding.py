"""What a change of number format may do to a value, and the first thing it may not."""

from dataclasses import replace

import numpy as np
import pytest
from tests.source_models import tensor

from apr.convert.precision import converted
from apr.convert.rounding import Rounding, check_rounding
from apr.convert.source import SourceTensor
from apr.convert.weights import decoded_chunks
from apr.errors import Refusal
from apr.progress import Progress

DTYPES = ["f16", "bf16", "q8", "q4", "q4_k"]


def normal(num_elements: int = 1024) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(num_elements).astype(np.float32)


def checked(before: np.ndarray, after: SourceTensor) -> list[Rounding]:
    return check_rounding({"w": tensor("w", before)}, {"w": after})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e4])
def test_what_a_format_does_is_allowed(dtype: str, scale: float) -> None:
    values = normal() * np.float32(scale)
    after = converted(tensor("w", values), dtype)
    (found,) = checked(values, after)
    assert (found.name, found.before, found.after) == ("w", "f32", dtype)
    error = np.concatenate(list(decoded_chunks(after))) - values
    expected = np.linalg.norm(error.astype("f8")) / np.linalg.norm(values.astype("f8"))
    assert found.relative_rms_error == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("value", [1.0, 1.9921875, -0.5, 2.0**-14])
def test_one_step_too_far_is_not(dtype: str, value: float) -> None:
    """A value that the format has, as the next one that it has."""
    values = normal()
    values[500] = value
    bits = np.frombuffer(b"".join(converted(tensor("w", values), dtype).chunks()), "<u2").copy()
    assert checked(values, moved(bits, dtype))
    bits[500] += 1
    with pytest.raises(Refusal) as refused:
        checked(values, moved(bits, dtype))
    assert refused.value.id == "convert.rounding"
    assert refused.value.where == f"tensor 'w', f32 to {dtype}"
    assert f"for {value:g}" in refused.value.found


def moved(bits: np.ndarray, dtype: str) -> SourceTensor:
    return replace(tensor("w", bits), dtype=dtype)


@pytest.mark.parametrize("dtype", ["q8", "q4", "q4_k"])
def test_a_block_of_another_tensor_is_not(dtype: str) -> None:
    values = normal()
    other = values.copy()
    other[512] += np.float32(8.0)
    with pytest.raises(Refusal, match=r"convert\.rounding"):
        checked(values, converted(tensor("w", other), dtype))


@pytest.mark.parametrize("where", [0, 1023])
def test_what_is_no_number_is_no_rounding(where: int) -> None:
    values = normal()
    halves = values.astype("<f2")
    halves[where] = np.nan
    with pytest.raises(Refusal) as refused:
        checked(values, tensor("w", halves))
    assert "nan for" in refused.value.found


@pytest.mark.parametrize("num_elements", [0, 1023])
def test_values_that_are_missing(num_elements: int) -> None:
    halves = normal().astype("<f2")
    short = replace(tensor("w", halves[:num_elements]), shape=halves.shape)
    with pytest.raises(Refusal, match=r"convert\.rounding"):
        checked(normal(), short)


def test_another_shape_with_as_many_values() -> None:
    halves = normal().astype("<f2").reshape(2, 512)
    with pytest.raises(Refusal) as refused:
        checked(normal(), tensor("w", halves))
    assert "[2, 512]" in refused.value.found


def test_only_what_was_rounded_is_read() -> None:
    """The proof compares the rest: it would see a difference in what kept its format."""
    values = normal()
    reports: list[Progress] = []
    before = {name: tensor(name, values) for name in ("kept", "widened", "rounded")}
    before["widened"] = tensor("widened", values.astype("<f2"))
    after = {
        "kept": before["kept"],
        "widened": converted(before["widened"], "f32"),
        "rounded": converted(before["rounded"], "bf16"),
    }
    found = check_rounding(before, after, progress=reports.append)
    assert [each.name for each in found] == ["rounded"]
    assert [(each.done, each.total) for each in reports] == [(1, 1)]


def test_zeros_have_no_relative_error() -> None:
    (found,) = checked(np.zeros(64, np.float32), tensor("w", np.zeros(64, np.float16)))
    assert found.relative_rms_error == 0.0
