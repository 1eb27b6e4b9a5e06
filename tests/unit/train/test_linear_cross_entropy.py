"""The loss behind the head, chunk by chunk, against torch's cross-entropy of all logits."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.unit.train.batch_fixture import VOCAB_SIZE, gradients, random_batch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from apr.architecture import preset
from apr.model.init import initialize
from apr.model.transformer import Transformer
from apr.train.head_chunks import tokens_per_chunk
from apr.train.linear_cross_entropy import linear_cross_entropy, loss_and_gradient
from apr.train.loss import plain_summed_loss, summed_loss

IGNORED = -100
# No vocabulary is a multiple of anything, and no chunk divides its tokens.
SHAPES = {
    "odd": (3, 7, 5, 101),
    "sequence of one": (4, 1, 8, 37),
    "one row": (1, 13, 6, 53),
    "one token": (1, 1, 3, 7),
    "two classes": (2, 5, 4, 2),
}
CHUNKS = (1, 4, 1000)


def inputs(
    shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, the head's master weight, and targets of which a third are ignored."""
    rows, positions, hidden, vocab = shape
    random = torch.Generator().manual_seed(0)
    x_BTD = torch.randn(rows, positions, hidden, generator=random).to(dtype)
    master = torch.float64 if dtype is torch.float64 else torch.float32
    weight_VD = torch.randn(vocab, hidden, generator=random, dtype=master)
    target_ids_BT = torch.randint(vocab, (rows, positions), generator=random)
    target_ids_BT.view(-1)[1::3] = IGNORED
    return x_BTD.requires_grad_(), weight_VD.requires_grad_(), target_ids_BT


def plain(x_BTD: Tensor, weight_VD: Tensor, target_ids_BT: Tensor) -> Tensor:
    """Torch's, in the precision of the master."""
    logits_BTV = x_BTD.to(weight_VD.dtype) @ weight_VD.t()
    nats = functional.cross_entropy(
        logits_BTV.flatten(0, 1), target_ids_BT.flatten(), reduction="none"
    )
    return nats.view_as(target_ids_BT).sum(dim=1)


def apart(found: Tensor, exact: Tensor) -> float:
    """Relative to the length of the exact one."""
    found, exact = found.detach().double(), exact.detach().double()
    return float((found - exact).norm() / exact.norm())


def both(
    x_BTD: Tensor, weight_VD: Tensor, target_ids_BT: Tensor, row_grad_B: Tensor, **options: Any
) -> dict[str, float]:
    """How far losses and gradients are from torch's."""
    row_grad_B = row_grad_B.to(weight_VD.dtype)
    found_B = linear_cross_entropy(x_BTD, weight_VD, target_ids_BT, **options)
    exact_B = plain(x_BTD, weight_VD, target_ids_BT)
    assert found_B.dtype == exact_B.dtype == weight_VD.dtype
    found = torch.autograd.grad(found_B, (x_BTD, weight_VD), row_grad_B)
    exact = torch.autograd.grad(exact_B, (x_BTD, weight_VD), row_grad_B)
    assert [g.dtype for g in found] == [x_BTD.dtype, weight_VD.dtype]
    return {
        "loss": apart(found_B, exact_B),
        "hidden states": apart(found[0], exact[0]),
        "head": apart(found[1], exact[1]),
    }


@pytest.mark.parametrize("chunk_tokens", CHUNKS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_losses_and_gradients_are_torchs(
    shape: tuple[int, int, int, int], chunk_tokens: int, dtype: torch.dtype, most: float
) -> None:
    x_BTD, weight_VD, target_ids_BT = inputs(shape, dtype)
    alike = torch.full((shape[0],), 0.125)
    different = torch.linspace(-1.0, 2.0, shape[0] + 1)[:-1]
    for row_grad_B in (alike, different):
        found = both(x_BTD, weight_VD, target_ids_BT, row_grad_B, chunk_tokens=chunk_tokens)
        assert max(found.values()) < most, found


@pytest.mark.parametrize("chunk_tokens", CHUNKS)
def test_bf16_is_as_far_as_its_roundings(chunk_tokens: int) -> None:
    x_BTD, weight_VD, target_ids_BT = inputs((6, 50, 32, 301), torch.bfloat16)
    with torch.no_grad():
        weight_VD.mul_(0.2)
    for row_grad_B in (torch.full((6,), 1 / 300), torch.linspace(0.5, 1.5, 6)):
        found = both(x_BTD, weight_VD, target_ids_BT, row_grad_B, chunk_tokens=chunk_tokens)
        assert found["loss"] < 1e-3
        assert 0.0 < found["hidden states"] < 0.01
        assert 0.0 < found["head"] < 0.01


@pytest.mark.parametrize("chunk_tokens", CHUNKS)
def test_gradients_are_those_of_finite_differences(chunk_tokens: int) -> None:
    x_BTD, weight_VD, target_ids_BT = inputs((2, 3, 4, 5), torch.float64)

    def loss(x_BTD: Tensor, weight_VD: Tensor) -> Tensor:
        return linear_cross_entropy(x_BTD, weight_VD, target_ids_BT, chunk_tokens=chunk_tokens)

    assert torch.autograd.gradcheck(loss, (x_BTD, weight_VD))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_one_counted_and_none(dtype: torch.dtype) -> None:
    x_BTD, weight_VD, target_ids_BT = inputs((3, 7, 8, 37), dtype)
    none_BT = torch.full_like(target_ids_BT, IGNORED)
    one_BT = none_BT.clone()
    one_BT[1, 4] = 36
    ones_B = torch.ones(3)
    loss_B = linear_cross_entropy(x_BTD, weight_VD, one_BT, chunk_tokens=4)
    assert loss_B[[0, 2]].tolist() == [0.0, 0.0]
    assert loss_B[1] > 0
    of_states, of_head = torch.autograd.grad(loss_B, (x_BTD, weight_VD), ones_B)
    assert of_states.abs().sum(dim=2).nonzero().tolist() == [[1, 4]]
    assert apart(
        of_head, torch.autograd.grad(plain(x_BTD, weight_VD, one_BT).sum(), weight_VD)[0]
    ) < (1e-6 if dtype is torch.float32 else 0.01)
    for row_grad_B in (ones_B, torch.tensor([1.0, 2.0, 3.0])):
        loss_B = linear_cross_entropy(x_BTD, weight_VD, none_BT, chunk_tokens=4)
        assert loss_B.tolist() == [0.0] * 3
        for gradient in torch.autograd.grad(loss_B, (x_BTD, weight_VD), row_grad_B):
            assert not gradient.any()


def test_an_ignored_token_changes_nothing() -> None:
    x_BTD, weight_VD, target_ids_BT = inputs((2, 6, 8, 37))
    moved_BTD = x_BTD.detach().clone()
    moved_BTD[target_ids_BT == IGNORED] += 100.0
    moved_BTD.requires_grad_()
    found = [
        torch.autograd.grad(
            linear_cross_entropy(x, weight_VD, target_ids_BT, chunk_tokens=5).sum(), (x, weight_VD)
        )
        for x in (x_BTD, moved_BTD)
    ]
    assert found[0][1].equal(found[1][1])
    assert found[0][0].equal(found[1][0])


def test_a_graph_that_is_retained_may_be_walked_again() -> None:
    x_BTD, weight_VD, target_ids_BT = inputs((3, 7, 5, 101))
    loss_B = linear_cross_entropy(x_BTD, weight_VD, target_ids_BT, chunk_tokens=4)
    wanted = (x_BTD, weight_VD)
    twice = [torch.autograd.grad(loss_B.sum(), wanted, retain_graph=True) for _ in range(2)]
    other = torch.autograd.grad(loss_B, wanted, torch.tensor([1.0, 0.0, 2.0]), retain_graph=True)
    again = torch.autograd.grad(loss_B.sum(), wanted)
    for first, second, third in zip(*twice, again, strict=True):
        assert first.equal(second)
        assert first.equal(third)
    assert not other[0].equal(again[0])


def test_the_same_inputs_give_the_same_bits() -> None:
    def computed() -> list[Tensor]:
        x_BTD, weight_VD, target_ids_BT = inputs((3, 7, 5, 101))
        loss_B = linear_cross_entropy(x_BTD, weight_VD, target_ids_BT, chunk_tokens=4)
        return [loss_B, *torch.autograd.grad(loss_B.sum(), (x_BTD, weight_VD))]

    assert all(a.equal(b) for a, b in zip(computed(), computed(), strict=True))


def test_only_what_needs_a_gradient_gets_one() -> None:
    x_BTD, weight_VD, target_ids_BT = inputs((3, 7, 5, 101))
    exact = torch.autograd.grad(plain(x_BTD, weight_VD, target_ids_BT).sum(), (x_BTD, weight_VD))
    for frozen in (0, 1):
        pair = [x_BTD, weight_VD]
        pair[frozen] = pair[frozen].detach()
        loss_B = linear_cross_entropy(pair[0], pair[1], target_ids_BT, chunk_tokens=4)
        for row_grad_B in (torch.ones(3), torch.tensor([1.0, 0.0, 2.0])):
            (found,) = torch.autograd.grad(loss_B, pair[1 - frozen], row_grad_B, retain_graph=True)
            assert found.shape == exact[1 - frozen].shape
        (found,) = torch.autograd.grad(loss_B.sum(), pair[1 - frozen])
        assert apart(found, exact[1 - frozen]) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_without_gradients_none_is_computed(dtype: torch.dtype) -> None:
    x_BTD, weight_VD, target_ids_BT = inputs((3, 7, 5, 101), dtype)

    def never(_logits: Tensor, _targets: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError("a gradient is computed")

    with_gradients_B = linear_cross_entropy(x_BTD, weight_VD, target_ids_BT, chunk_tokens=4)
    with torch.no_grad():
        inside_B = linear_cross_entropy(
            x_BTD, weight_VD, target_ids_BT, chunk_tokens=4, loss_and_gradient=never
        )
    detached_B = linear_cross_entropy(
        x_BTD.detach(),
        weight_VD.detach(),
        target_ids_BT,
        chunk_tokens=4,
        loss_and_gradient=never,
    )
    assert not inside_B.requires_grad
    assert inside_B.equal(with_gradients_B)
    assert detached_B.equal(with_gradients_B)
    with pytest.raises(AssertionError, match="a gradient is computed"):
        linear_cross_entropy(x_BTD, weight_VD, target_ids_BT, loss_and_gradient=never)


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor):
                self.numel = max(self.numel, each.numel())
        return made


def largest(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> int:
    x_BTD, weight_VD, target_ids_BT = inputs((4, 64, 8, 1001), torch.bfloat16)
    with Largest() as seen:
        loss(x_BTD, weight_VD, target_ids_BT).sum().backward()
        with torch.no_grad():
            loss(x_BTD, weight_VD, target_ids_BT)
    return seen.numel


def test_all_logits_are_never_there_at_once() -> None:
    def chunked(x_BTD: Tensor, weight_VD: Tensor, target_ids_BT: Tensor) -> Tensor:
        return linear_cross_entropy(x_BTD, weight_VD, target_ids_BT, chunk_tokens=32)

    assert largest(chunked) == 32 * 1001
    assert largest(plain) == 4 * 64 * 1001


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_is_the_embedding_gets_both_gradients(tied: bool) -> None:
    shape = replace(preset("tiny", tokenizer_vocab_size=VOCAB_SIZE), tie_word_embeddings=tied)
    model = Transformer(shape)
    initialize(model, seed=0)
    batch = random_batch(counted=[16, 3, 0, 9])
    arguments = [
        torch.from_numpy(each)
        for each in (batch.input_ids_BT, batch.target_ids_BT, batch.document_numbers_BT)
    ]
    found: list[dict[str, Tensor]] = []
    for loss in (summed_loss, plain_summed_loss):
        model.zero_grad(set_to_none=True)
        nats_B = loss(model, *arguments)
        assert nats_B[2] == 0.0
        (nats_B.sum() / batch.num_counted_tokens).backward()
        found.append(gradients(model))
    assert found[0].keys() == found[1].keys() == dict(model.named_parameters()).keys()
    assert ("lm_head.weight" in found[0]) is not tied
    for name, exact in found[1].items():
        assert apart(found[0][name], exact) < 1e-5, name


@pytest.mark.parametrize("shift", [0.0, 1000.0, -1000.0])
def test_what_a_compiler_gets_is_what_eager_kernels_get(
    monkeypatch: pytest.MonkeyPatch, shift: float
) -> None:
    random = torch.Generator().manual_seed(0)
    logits_CV = torch.randn(6, 37, generator=random) * 20 + shift
    target_ids_C = torch.tensor([0, 36, 5, 5, 17, 1])
    exact = loss_and_gradient(logits_CV.double(), target_ids_C)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    traced = loss_and_gradient(logits_CV, target_ids_C)
    for ours, reference in zip(traced, exact, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), reference, rtol=1e-6, atol=1e-7)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_chunk_is_the_eager_one() -> None:
    fused = torch.compile(loss_and_gradient, dynamic=False)
    x_BTD, weight_VD, target_ids_BT = inputs((3, 7, 5, 101))
    for row_grad_B in (torch.full((3,), 0.125), torch.tensor([1.0, 0.0, -2.0])):
        found = both(
            x_BTD,
            weight_VD,
            target_ids_BT,
            row_grad_B,
            chunk_tokens=16,
            loss_and_gradient=fused,
        )
        assert max(found.values()) < 1e-6, found


def test_a_chunk_is_a_power_of_two_within_its_bytes() -> None:
    for vocab_size in (2, 61, 8192, 32_000, 50_257, 151_936, 1 << 22):
        for on_cpu in (True, False):
            tokens = tokens_per_chunk(vocab_size, on_cpu=on_cpu)
            assert tokens & (tokens - 1) == 0
            assert tokens >= 1
