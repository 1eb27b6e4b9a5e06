"""The loss of every row of a micro-batch as a sum, so that the caller can weight by tokens."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from apr.model.transformer import Transformer
from apr.train.batches import IGNORED_TARGET
from apr.train.linear_cross_entropy import HeadLoss, linear_cross_entropy

HiddenStates = Callable[[Transformer, Tensor, Tensor | None], Tensor]
"""As `masked_hidden_states`."""


def masked_hidden_states(
    model: Transformer, input_ids_BT: Tensor, document_numbers_BT: Tensor | None
) -> Tensor:
    """What the head turns into logits at every position, as a training step masks them.

    None for the documents lets every token see all before it in its row.
    """
    return model.hidden_states(input_ids_BT, documents_BT=document_numbers_BT)


def masked_logits(
    model: Transformer, input_ids_BT: Tensor, document_numbers_BT: Tensor | None
) -> Tensor:
    """Logits of the next token at every position, as a training step masks them.

    None for the documents lets every token see all before it in its row.
    """
    return model(input_ids_BT, documents_BT=document_numbers_BT)


def summed_loss(
    model: Transformer,
    input_ids_BT: Tensor,
    target_ids_BT: Tensor,
    document_numbers_BT: Tensor | None,
    *,
    hidden_states: HiddenStates = masked_hidden_states,
    head_loss: HeadLoss = linear_cross_entropy,
) -> Tensor:
    """Cross-entropy of the next token, summed over the counted targets of each row.

    Divide by the number of counted targets of the whole step, not of the micro-batch: a mean of
    means weights tokens by the company they keep. None for the documents lets every token see
    all before it in its row. The logits are never there all at once.

    Units: nats.
    Shapes: as annotated; the result is (B,), float32 whatever the model computes in. A training
    step adds it up, a validation keeps it.
    Source: `plain_summed_loss`, which it must equal.
    """
    x_BTD = hidden_states(model, input_ids_BT, document_numbers_BT)
    return head_loss(x_BTD, model.head_weight, target_ids_BT)


def plain_summed_loss(
    model: Transformer,
    input_ids_BT: Tensor,
    target_ids_BT: Tensor,
    document_numbers_BT: Tensor | None,
) -> Tensor:
    """The same by torch's cross-entropy of all logits in fp32: what the fast one is held against.

    Takes three times the bytes of the fp32 logits.

    Source: torch.nn.functional.cross_entropy(reduction="none").
    """
    logits_BTV = masked_logits(model, input_ids_BT, document_numbers_BT)
    losses = functional.cross_entropy(
        logits_BTV.flatten(0, 1).float(),
        target_ids_BT.flatten(),
        ignore_index=IGNORED_TARGET,
        reduction="none",
    )
    return losses.view_as(target_ids_BT).sum(dim=1)
