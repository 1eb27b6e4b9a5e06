"""Every way of computing attention against plain attention, and what each derives from documents.

`varlen` has no kernel on a CPU: here its function runs over the one of `tests.varlen_kernel`, and
on a CUDA device over the real one.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tests.varlen_kernel import varlen_on_cpu
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from apr.model.attention import (
    Way,
    cudnn,
    document_borders,
    document_mask,
    flash,
    pieces,
    plain,
    plain_recomputed,
    varlen,
)
from apr.model.attention_pieces import piece_length, pieces_of

# Rows, query heads, key heads, positions, head_dim.
SHAPES = {
    "one position": (2, 2, 2, 1, 64),
    "a head each": (2, 4, 4, 33, 32),
    "grouped": (3, 6, 2, 40, 64),
    "one key head": (1, 5, 1, 37, 80),
    "several pieces, the last one short": (2, 4, 2, 150, 16),
    "a last piece of one": (1, 2, 1, 257, 16),
}
CPU_WAYS = [plain_recomputed, pieces, flash, varlen]
Numbers = dict[str, Tensor | None]


def documents_of(rows: int, positions: int) -> Numbers:
    """Several ways of dividing rows; the last is all documents of one token."""
    random = torch.Generator().manual_seed(3)
    begins = torch.rand(rows, positions, generator=random) < 0.15
    # Numbers as in a shard: they go on from row to row, and a row may begin within a document.
    drawn = begins.flatten().cumsum(0).view(rows, positions) + 100
    lonely = torch.arange(rows * positions).view(rows, positions)
    return {"causal": None, "one": torch.zeros_like(lonely), "drawn": drawn, "lonely": lonely}


def computed(
    way: Way,
    shape: tuple[int, ...],
    numbers: Tensor | None,
    dtype: torch.dtype,
    device: str = "cpu",
) -> list[Tensor]:
    """Output and gradients on random heads, the same for every way and dtype."""
    rows, heads, kv_heads, positions, head_dim = shape
    random = torch.Generator().manual_seed(1)
    q, k, v, gradient = (
        torch.randn(rows, positions, h, head_dim, generator=random)
        .to(torch.bfloat16)
        .to(device, dtype)
        .transpose(1, 2)
        for h in (heads, kv_heads, kv_heads, heads)
    )
    inputs = [each.requires_grad_() for each in (q, k, v)]
    numbers = None if numbers is None else numbers.to(device)
    x_BTD = torch.empty(rows, positions, 1, dtype=dtype, device=device)
    y = way(x_BTD, numbers)(*inputs)
    assert y.shape == q.shape
    return [each.detach().float().cpu() for each in (y, *torch.autograd.grad(y, inputs, gradient))]


@pytest.fixture(scope="module", autouse=True)
def _kernel() -> Iterator[None]:
    with varlen_on_cpu():
        yield


@pytest.mark.parametrize("way", CPU_WAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_way_gives_the_outputs_and_gradients_of_the_plain_one(way: Way, shape: str) -> None:
    size = SHAPES[shape]
    for name, numbers in documents_of(size[0], size[3]).items():
        expected = computed(plain, size, numbers, torch.float32)
        found = computed(way, size, numbers, torch.float32)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=f"{name}, {shape}")


@pytest.mark.parametrize("way", CPU_WAYS)
def test_in_bf16_it_is_as_near_to_fp32_as_plain_attention_is(way: Way) -> None:
    size = SHAPES["several pieces, the last one short"]
    for numbers in documents_of(size[0], size[3]).values():
        exact = computed(plain, size, numbers, torch.float32)
        own = computed(plain, size, numbers, torch.bfloat16)
        found = computed(way, size, numbers, torch.bfloat16)
        for ours, near, theirs in zip(found, own, exact, strict=True):
            limit = 2.0 * (near - theirs).norm() + 1e-5 * exact[0].norm()
            assert (ours - theirs).norm() <= limit


def test_recomputed_scores_are_the_same_bits() -> None:
    size = SHAPES["grouped"]
    numbers = documents_of(size[0], size[3])["drawn"]
    pairs = (computed(way, size, numbers, torch.float32) for way in (plain, plain_recomputed))
    assert all(ours.equal(theirs) for ours, theirs in zip(*pairs, strict=True))


@pytest.mark.parametrize("positions", [1, 63, 64, 65, 256, 257, 1023, 1024, 1025, 4096])
def test_pieces_hold_every_query_once_and_all_keys_before_it(positions: int) -> None:
    found = pieces_of(positions)
    queries = [at for start, stop in found for at in range(start, stop)]
    assert queries == list(range(positions))
    assert all(stop - start <= piece_length(positions) for start, stop in found)
    assert len(found) <= 8
    if positions % piece_length(positions) == 0:
        computed_scores = sum(stop * (stop - start) for start, stop in found)
        assert computed_scores == positions**2 * (len(found) + 1) // (2 * len(found))


def test_a_piece_without_the_keys_before_it_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: pieces that begin where the keys are counted to, one position late."""
    size = SHAPES["several pieces, the last one short"]
    expected = computed(plain, size, None, torch.float32)[0]
    late = [(max(start - 1, 0), stop - 1) for start, stop in pieces_of(150)]
    monkeypatch.setattr("apr.model.attention.pieces_of", lambda _positions: late)
    with pytest.raises((AssertionError, RuntimeError)):
        torch.testing.assert_close(
            computed(pieces, size, None, torch.float32)[0], expected, rtol=1e-4, atol=1e-5
        )


def test_a_compiler_gives_what_is_given_without_one() -> None:
    """Traced by the compiler's front end, both directions; code for the graph is not made here."""
    size = SHAPES["several pieces, the last one short"]
    numbers = documents_of(size[0], size[3])["drawn"]
    expected = computed(pieces, size, numbers, torch.float32)

    def way(x_BTD: Tensor, documents_BT: Tensor | None) -> Any:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return pieces(x_BTD, documents_BT)(q, k, v)

        return torch.compile(attend, dynamic=False, backend="aot_eager", fullgraph=True)

    for ours, theirs in zip(computed(way, size, numbers, torch.float32), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["one", "drawn", "lonely"])
def test_borders_are_where_a_reader_of_the_numbers_sees_them(kind: str) -> None:
    numbers = documents_of(4, 21)[kind]
    assert numbers is not None
    expected, place = [], 0
    for row in numbers.tolist():
        for at, number in enumerate(row):
            if at == 0 or number != row[at - 1]:
                expected.append(place)
            place += 1
    borders = document_borders(numbers)
    assert borders.dtype is torch.int32
    assert borders.tolist() == [*expected, 84]
    # Between borders everything is shown that comes before, and nothing from outside them.
    shown = torch.zeros(84, 84, dtype=torch.bool)
    for start, stop in zip(borders.tolist(), borders.tolist()[1:], strict=False):
        shown[start:stop, start:stop] = torch.ones(stop - start, stop - start).tril().bool()
    mask_BTS = document_mask(numbers)
    for row in range(4):
        at = slice(21 * row, 21 * row + 21)
        assert shown[at, at].equal(mask_BTS[row])
    assert int(shown.sum()) == int(mask_BTS.sum())


def test_a_border_too_few_is_seen() -> None:
    """The planted fault: numbers that say one document where there are two."""
    size = SHAPES["grouped"]
    numbers = documents_of(size[0], size[3])["drawn"]
    assert numbers is not None
    joined = numbers.clone()
    second = int(numbers[0].unique()[1])
    joined[0][numbers[0] == second] = numbers[0, 0]
    expected = computed(plain, size, numbers, torch.float32)[0]
    found = computed(varlen, size, joined, torch.float32)[0]
    first = int((numbers[0] == second).nonzero()[0])
    assert not torch.allclose(found[0, :, first], expected[0, :, first], atol=0.1)
    torch.testing.assert_close(found[1:], expected[1:], rtol=1e-4, atol=1e-5)


def test_one_compilation_serves_any_number_of_documents() -> None:
    """Traced by the compiler's front end, both directions; code for the graph is not made here."""
    traced = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(
        lambda q, k, v, numbers: varlen(q[:, 0], numbers)(q, k, v), dynamic=False, backend=traced
    )

    def gathered(numbers: Tensor) -> list[Tensor]:
        def way(_x_BTD: Tensor, _numbers: Tensor | None) -> Any:
            return lambda q, k, v: compiled(q, k, v, numbers)

        return computed(way, (3, 2, 1, 16, 8), None, torch.float32)

    counts: set[int] = set()
    options: Any = torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True)
    with options:
        for every in (2, 5, 16):
            numbers = torch.arange(48).view(3, 16) // every
            counts.add(len(document_borders(numbers)))
            expected = computed(plain, (3, 2, 1, 16, 8), numbers, torch.float32)
            for ours, theirs in zip(gathered(numbers), expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (traced.frame_count, len(counts)) == (1, 3)


def test_a_kernel_that_is_not_there_is_an_error_and_no_other_one() -> None:
    size = SHAPES["grouped"]
    with pytest.raises(RuntimeError, match="No viable backend"):
        computed(cudnn, size, None, torch.float32)
    # On a CPU torch's flash kernel takes keys as wide as values, and nothing else.
    x_BTD, q = torch.empty(1, 4, 1), torch.zeros(1, 2, 4, 8)
    with pytest.raises(RuntimeError, match="No available kernel"):
        flash(x_BTD, None)(q, q, torch.zeros(1, 2, 4, 16))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("way", [flash, cudnn, varlen])
@pytest.mark.parametrize("shape", ["a head each", "grouped", "one key head"])
def test_kernels_on_cuda_are_as_near_to_fp32_as_plain_attention_is(way: Way, shape: str) -> None:
    size = SHAPES[shape]
    for name, numbers in documents_of(size[0], size[3]).items():
        if numbers is not None and way is flash:
            continue
        exact = computed(plain, size, numbers, torch.float32, "cuda")
        own = computed(plain, size, numbers, torch.bfloat16, "cuda")
        found = computed(way, size, numbers, torch.bfloat16, "cuda")
        for ours, near, theirs in zip(found, own, exact, strict=True):
            limit = 2.0 * (near - theirs).norm() + 1e-3 * theirs.norm()
            assert (ours - theirs).norm() <= limit, name


def test_numbers_are_read_as_a_batch_has_them() -> None:
    """A batch's numbers are int64, and rows go on where the row before stopped."""
    numbers = torch.from_numpy(np.array([[3, 3, 4], [4, 5, 5]], np.int64))
    assert document_borders(numbers).tolist() == [0, 2, 3, 4, 6]
