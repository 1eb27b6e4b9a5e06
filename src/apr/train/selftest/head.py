"""Is the loss that is taken through the head chunk by chunk the one of plain fp32 logits."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from apr.model.transformer import Transformer
from apr.train.batches import IGNORED_TARGET, Batch
from apr.train.gates import Finding
from apr.train.head_chunks import tokens_per_chunk
from apr.train.linear_cross_entropy import HeadLoss
from apr.train.selftest.distances import Bounds, farthest, scale_difference
from apr.train.selftest.small_run import cut, size_of

# Fixed before any run: what one sum in another order does, times ten; in bf16 what rounding does to
# every number. The softmax of a fresh model is flat, so that all of it rounds the same way.
_BOUNDS = {
    torch.float32: Bounds(loss=1e-5, distance=1e-5, scale=1e-4),
    torch.bfloat16: Bounds(loss=2e-4, distance=0.03, scale=4e-3),
}
_FIX = "run with --no-compile --precision fp32, and report this"


@dataclass(frozen=True)
class _Side:
    """The loss of every row, and the gradients of the hidden states and of the head."""

    nats_B: Tensor
    gradients: dict[str, Tensor]


def check_head(model: Transformer, batch: Batch, *, head_loss: HeadLoss) -> Finding:
    """Values and gradients of the run's loss behind the hidden states, against torch's in fp32.

    On the head of the model and the rows of a micro-batch, as many as fill two of the run's
    chunks; the hidden states are random, as long as the last norm makes them. With all targets
    counted, rows that count unequally, one target, and none, where all must be zero; with one
    number coming back for every row, as in a step, and with a different one for each. In fp32,
    where a thousandth shows, and in the precision of the run.

    Source: torch.nn.functional.cross_entropy, on the fp32 of the same logits, a slice at a time.
    """
    dtypes = dict.fromkeys((torch.float32, model.compute_dtype))
    expected = f"{_BOUNDS[model.compute_dtype]}; zero where no target counts"
    weight_VD = model.head_weight.detach()
    batch = _two_chunks_of(batch, _chunk_tokens(weight_VD))
    if batch.num_counted_tokens == 0:
        return Finding("UNKNOWN", "no target of the batch counts", expected, "report this")
    cases = _cases(batch, weight_VD.device)
    texts = list[str]()
    for dtype in dtypes:
        x_BTD = _hidden_states(model, batch).to(dtype)
        text = ""
        for case, (target_ids_BT, row_grad_B) in cases.items():
            found = _measured(head_loss, x_BTD, weight_VD, target_ids_BT, row_grad_B)
            plain = _plain(x_BTD, weight_VD, target_ids_BT, row_grad_B)
            is_small, difference = _difference(found, plain, _BOUNDS[dtype])
            if not is_small:
                return Finding("FAIL", f"{_in(dtype)}, {case}: {difference}", expected, _FIX)
            text = text or difference
        texts.append(f"in {_in(dtype)} {text}")
    return Finding(
        "PASS",
        f"{'; '.join(texts)}; over {size_of(batch)} in chunks of at most "
        f"{_chunk_tokens(weight_VD)} tokens, in {len(cases)} choices of targets and of what comes "
        "back",
        expected,
    )


def _two_chunks_of(batch: Batch, chunk_tokens: int) -> Batch:
    """The first rows, two where there are two: how rows weigh is seen by comparing them."""
    length = batch.input_ids_BT.shape[1]
    return cut(batch, rows=max(2, -(-2 * chunk_tokens // length)), length=length)


def _hidden_states(model: Transformer, batch: Batch) -> Tensor:
    shape = (*batch.input_ids_BT.shape, model.architecture.hidden_size)
    norm = model.model.norm.weight.detach()
    random = torch.Generator(norm.device).manual_seed(0)
    return torch.randn(shape, device=norm.device, generator=random) * norm


def _cases(batch: Batch, device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
    """The targets, and what comes back for the loss of every row."""
    targets_BT = torch.from_numpy(batch.target_ids_BT).to(device)
    num_rows, length = targets_BT.shape
    counted_BT = targets_BT != IGNORED_TARGET
    places_T = torch.arange(length, device=device)
    rows_B = torch.arange(num_rows, device=device)
    # The later the row the fewer targets count, never in runs, and at least one.
    unequal_BT = counted_BT & (places_T % (rows_B + 2).unsqueeze(1) == 0)
    first_BT = counted_BT & (counted_BT.flatten().cumsum(0).view_as(counted_BT) == 1)
    ones_B = torch.ones(num_rows, device=device)
    choices = {
        "all counted": (counted_BT, ones_B),
        "rows that count unequally": (unequal_BT, ones_B),
        "rows that weigh unequally": (unequal_BT, 1.0 / (rows_B + 2)),
        "one counted": (first_BT, ones_B),
        "none counted": (torch.zeros_like(counted_BT), ones_B),
    }
    return {
        name: (targets_BT.where(choice_BT, IGNORED_TARGET), row_grad_B / length)
        for name, (choice_BT, row_grad_B) in choices.items()
    }


def _measured(
    head_loss: HeadLoss,
    x_BTD: Tensor,
    weight_VD: Tensor,
    target_ids_BT: Tensor,
    row_grad_B: Tensor,
) -> _Side:
    x_BTD, weight_VD = x_BTD.clone().requires_grad_(), weight_VD.clone().requires_grad_()
    with torch.enable_grad():
        nats_B = head_loss(x_BTD, weight_VD, target_ids_BT)
    of_states, of_head = torch.autograd.grad(nats_B, (x_BTD, weight_VD), row_grad_B)
    return _Side(nats_B.detach(), {"hidden states": of_states, "head": of_head})


def _plain(x_BTD: Tensor, weight_VD: Tensor, target_ids_BT: Tensor, row_grad_B: Tensor) -> _Side:
    head_VD = weight_VD.to(x_BTD.dtype)
    exact_VD = head_VD.float()
    of_head = torch.zeros_like(exact_VD)
    nats_B, of_states = list[Tensor](), list[Tensor]()
    # A row at a time, and of that no more than a chunk: another division than the run's.
    size = max(1, _chunk_tokens(weight_VD) // 2)
    for x_TD, target_ids_T, row_grad in zip(x_BTD, target_ids_BT, row_grad_B, strict=True):
        parts = list[Tensor]()
        for x_CD, target_ids_C in zip(x_TD.split(size), target_ids_T.split(size), strict=True):
            logits_CV = (x_CD @ head_VD.t()).float().requires_grad_()
            with torch.enable_grad():
                nats = functional.cross_entropy(
                    logits_CV, target_ids_C, ignore_index=IGNORED_TARGET, reduction="sum"
                )
            (grad_CV,) = torch.autograd.grad(nats, logits_CV, row_grad)
            of_states.append(grad_CV @ exact_VD)
            of_head.addmm_(grad_CV.t(), x_CD.float())
            parts.append(nats.detach().double())
        nats_B.append(torch.stack(parts).sum())
    of_all_states = torch.cat(of_states).view_as(x_BTD)
    return _Side(torch.stack(nats_B), {"hidden states": of_all_states, "head": of_head})


def _difference(found: _Side, plain: _Side, bounds: Bounds) -> tuple[bool, str]:
    """Whether it is small, and how large it is in words."""
    largest = float(plain.nats_B.abs().max())
    apart = float((found.nats_B.double() - plain.nats_B).abs().max())
    if largest == 0.0:
        moved = apart != 0.0 or any(bool((g != 0).any()) for g in found.gradients.values())
        return not moved, "a loss or a gradient that is not zero"
    distance = farthest(found.gradients, plain.gradients)
    pairs = ((found.gradients[name], exact) for name, exact in plain.gradients.items())
    scale = max(scale_difference([pair]) for pair in pairs)
    return (
        Bounds(apart / largest, distance.value, scale).within(bounds),
        f"losses within {apart / largest:.1e}, gradients within {distance}, their length within "
        f"{scale:.1e}",
    )


def _chunk_tokens(weight_VD: Tensor) -> int:
    return tokens_per_chunk(len(weight_VD), on_cpu=weight_VD.device.type == "cpu")


def _in(dtype: torch.dtype) -> str:
    return "bf16" if dtype is torch.bfloat16 else "fp32"
