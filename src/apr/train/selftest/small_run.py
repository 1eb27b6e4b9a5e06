"""The part of a run that its proofs compute with: few rows, cut short, on copies of the model.

A compiled kernel is of one shape, so a run that compiles keeps the shape of its micro-batches.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

from apr.model.transformer import Transformer
from apr.tokenizer.tokenizer import Tokenizer
from apr.train.acceleration import Acceleration
from apr.train.batches import Batch
from apr.train.config import TrainConfig
from apr.train.linear_cross_entropy import HeadLoss
from apr.train.prepare import PreparedRun
from apr.train.step import MaskedLogits, SummedLoss

_LARGE_PARAMETERS = 1 << 26
_MOST_ROWS, _MOST_TOKENS, _MOST_LEAK_TOKENS = 4, 128, 512
_MOST_ROWS_OF_LARGE, _MOST_TOKENS_OF_LARGE, _MOST_LEAK_TOKENS_OF_LARGE = 2, 64, 128
# What a step does to its parameters does not depend on how many layers there are.
_LEADING_LAYERS = 2


@dataclass(frozen=True)
class SmallRun:
    """What the proofs of a run read; none of it is changed by them.

    `summed_loss`, `head_loss` and `logits` are the run's own, compiled where it compiles;
    `num_parts` is the number of micro-batches of a step.
    """

    config: TrainConfig
    acceleration: Acceleration
    model: Transformer
    tokenizer: Tokenizer
    summed_loss: SummedLoss
    head_loss: HeadLoss
    logits: MaskedLogits
    run_batch: Callable[[int], Batch]
    rows: int
    length: int
    leak_length: int
    num_parts: int

    def micro_batches(self, step: int) -> list[Batch]:
        """A step's micro-batches, cut to size."""
        return cut(self.run_batch(step), rows=self.rows, length=self.length).split(self.num_parts)

    def whole_micro_batch(self, step: int) -> Batch:
        """A step's first micro-batch, as the run has it."""
        return self.run_batch(step).split(self.config.num_micro_batches)[0]

    def rows_of(self, step: int, *, rows: int, length: int) -> Batch:
        """The first rows of a step, cut to another size."""
        return cut(self.run_batch(step), rows=rows, length=length)


def small_run(run: PreparedRun) -> SmallRun:
    """A run's own functions, and its batches cut to what a proof can afford."""
    config = run.config
    micro_rows = config.batch_size // config.num_micro_batches
    num_parts = min(2, config.num_micro_batches)
    most_rows, most_tokens, leak_tokens = _most(run)
    if run.acceleration.compiled:
        rows, length = micro_rows * num_parts, config.seq_length
    else:
        rows = max(1, min(micro_rows, most_rows // num_parts)) * num_parts
        length = min(config.seq_length, most_tokens)
    return SmallRun(
        config=config,
        acceleration=run.acceleration,
        model=run.model,
        tokenizer=run.inputs.tokenizer,
        summed_loss=run.summed_loss,
        head_loss=run.acceleration.head_loss_function(),
        logits=run.acceleration.logits_function(),
        run_batch=run.order.batch,
        rows=rows,
        length=length,
        leak_length=leak_tokens,
        num_parts=num_parts,
    )


def _most(run: PreparedRun) -> tuple[int, int, int]:
    """Rows, tokens of a row, and tokens of a row of a leak probe, that take seconds."""
    is_large = run.inputs.architecture.num_parameters > _LARGE_PARAMETERS
    if is_large and run.acceleration.device.type == "cpu":
        return _MOST_ROWS_OF_LARGE, _MOST_TOKENS_OF_LARGE, _MOST_LEAK_TOKENS_OF_LARGE
    return _MOST_ROWS, _MOST_TOKENS, _MOST_LEAK_TOKENS


def cut(batch: Batch, *, rows: int, length: int) -> Batch:
    """The first rows of a batch, and of each the first tokens."""
    return replace(
        batch,
        input_ids_BT=batch.input_ids_BT[:rows, :length],
        target_ids_BT=batch.target_ids_BT[:rows, :length],
        document_numbers_BT=batch.document_numbers_BT[:rows, :length],
        row_indices=batch.row_indices[:rows],
    )


def size_of(batch: Batch) -> str:
    """The shape of a batch in words."""
    rows, length = batch.input_ids_BT.shape
    return f"{rows} row{'s' if rows > 1 else ''} of {length} tokens"


def copy_of(model: Transformer) -> Transformer:
    """A model that a proof may train."""
    model.zero_grad(set_to_none=True)
    return copy.deepcopy(model)


def few_layers_of(model: Transformer) -> Transformer:
    """A copy; of a large model only the embedding, the head and the first layers."""
    if model.architecture.num_parameters <= _LARGE_PARAMETERS:
        return copy_of(model)
    layers = min(_LEADING_LAYERS, model.architecture.num_hidden_layers)
    small = Transformer(replace(model.architecture, num_hidden_layers=layers))
    weights = model.state_dict()
    small.load_state_dict({name: weights[name] for name in small.state_dict()})
    small.compute_dtype, small.attention = model.compute_dtype, model.attention
    small.model.recomputes_blocks = model.model.recomputes_blocks
    return small.to(model.head_weight.device)


def layers_of(small: Transformer, model: Transformer) -> str:
    """How much of a model a copy holds, in words; nothing when it is all of it."""
    some, every = small.architecture.num_hidden_layers, model.architecture.num_hidden_layers
    return "" if some == every else f", the first {some} of {every} layers"
